"""A fine-tuned checkpoint in, the same without its return out, as a Hugging Face folder; judged before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probes.behaviour.evaluation import Evaluation, answer_questions, fit_evaluation, judge_completions, with_questions
from probes.behaviour.judges import JudgementCache, open_judge
from probes.drift.restoration import Restored, without_return
from probes.errors import UsageError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.weight_space import merged_weights, save
from probes.progress import Progress, Report, silent, within
from probes.prompts import LeftOut
from probes.run import Run
from probes.store import records
from probes.store.remote import is_url, new_checkpoint, place_elsewhere, whole_url

NOTE = "restoration.json"
_RESTORING = 0.3  # share of the job's time where behaviour is judged too


@dataclass(frozen=True)
class Lineages:
    """The three checkpoints that restoring needs."""

    tuned: CheckpointRef
    aligned: CheckpointRef
    witness: CheckpointRef

    @classmethod
    def of(cls, tuned: str, run: Run | None, aligned: str | None, witness: str | None) -> Lineages:
        """From a run and the name of one of its checkpoints, or from three references.

        Raises:
            UsageError: neither, or both, are given.
        """
        if run is not None and not (aligned or witness):
            lineage, refs = run.lineage, dict(run.lineage.checkpoints())
            earlier = lineage.need_witness("Restoring", weights=True)
            return cls(refs.get(tuned) or CheckpointRef.parse(tuned), lineage.aligned, earlier)
        if run is None and aligned and witness:
            return cls(*map(CheckpointRef.parse, (tuned, aligned, witness)))
        raise UsageError("Restoring needs a lineage", expected="either --run, or --aligned and --witness")


@dataclass(frozen=True)
class Restoration:
    """What was restored.

    Attributes:
        out: the new checkpoint's folder, or its URL.
        form: how the return was removed.
        strength: which share of it.
        tensors: per tensor name ‖Δ‖ before, ‖Δ‖ left, and whether alignment moved it in every direction.
        behaviour: rates of `aligned`, `tuned` and `restored` (rows of `tables.RATE_COLUMNS`); empty if not judged.
        contrasts: restored against tuned (rows of `tables.CONTRAST_COLUMNS`).
        left_out: (id, number of tokens) of each evaluation prompt that was too long for the context.
    """

    out: Path | str
    form: str
    strength: float
    tensors: dict[str, dict[str, Any]]
    behaviour: list[dict[str, Any]] = field(default_factory=list)
    contrasts: list[dict[str, Any]] = field(default_factory=list)
    left_out: LeftOut = ()

    def document(self) -> dict[str, Any]:
        """The documented JSON."""
        before, left = (np.sqrt(sum(row[name] ** 2 for row in self.tensors.values())) for name in ("drift", "left"))
        moved = [row for row in self.tensors.values() if row["drift"]]
        return {
            "out": str(self.out),
            "form": self.form,
            "strength": self.strength,
            "drift": float(before),
            "left": float(left),
            "tensors_moved": len(moved),
            "tensors_emptied": sum(row["everywhere"] for row in moved),
            "behaviour": self.behaviour,
            "contrasts": self.contrasts,
            "left_out": [list(pair) for pair in self.left_out],
            "tensors": self.tensors,
        }


@dataclass(frozen=True)
class RestoreOptions:
    """How the return is removed.

    Attributes:
        form: `exact`, `scaled` or `along`.
        strength: share of the return that is removed, in [0, 1].
        device: where the model runs.
    """

    form: str = "exact"
    strength: float = 1.0
    device: str = "auto"


def restore(
    checkpoints: Lineages,
    out: Path | str,
    options: RestoreOptions | None = None,
    *,
    evaluation: Evaluation | None = None,
    report: Report = silent,
) -> Restoration:
    """Write `checkpoints.tuned` without the return in its weight drift (see `probes.drift.restoration`).

    Three checkpoints are held in memory in float32. An adapter is folded into its base.

    Args:
        checkpoints: the fine-tuned one, the aligned one it left from, and the witness.
        out: a folder, or a URL, where nothing is yet; the checkpoint appears whole or not at all.
        options: how; None is every default.
        evaluation: judge harm and task before and after on this; None leaves it out.
        report: told where the work is.

    Raises:
        UsageError: `out` is there already, or the options are not what they must be.
        CheckpointError: a checkpoint cannot be loaded, or is of another lineage.
        RemoteError: the store of a URL refuses, or does not answer.
    """
    part = within(report, 0.0, _RESTORING if evaluation else 1.0)
    options, out = options or RestoreOptions(), whole_url(out) if is_url(out) else out
    host = ModelHost(checkpoints.aligned, device=options.device)
    tensors: dict[str, dict[str, Any]] = {}
    with new_checkpoint(out, part) as folder:
        restored = {}
        for name, result in _restore_tensors(host, checkpoints, options, part):
            restored[name] = result.tensor
            tensors[name] = {"drift": result.drift, "left": result.left, "everywhere": result.everywhere}
        _save(host, folder, restored)
        places = {name: _elsewhere(ref) for name, ref in vars(checkpoints).items()}
        note = {"form": options.form, "strength": options.strength, **places}
        (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    done = Restoration(out, options.form, options.strength, tensors)
    if evaluation is None:
        return done
    return _judge(host, checkpoints, done, evaluation, within(report, _RESTORING, 1.0))


def _elsewhere(ref: CheckpointRef) -> str:
    """A checkpoint as another machine finds it."""
    adapter = ref.adapter and place_elsewhere(ref.adapter)
    return str(ref.model_copy(update={"model": place_elsewhere(ref.model), "adapter": adapter}))


def _restore_tensors(
    host: ModelHost, checkpoints: Lineages, options: RestoreOptions, report: Report
) -> Iterator[tuple[str, Restored]]:
    weights = {}
    for number, name in enumerate(("aligned", "witness", "tuned")):
        report(Progress("reading weights", number, 6, name))
        weights[name] = merged_weights(host, getattr(checkpoints, name))
    for number, name in enumerate(weights["tuned"]):
        report(Progress("restoring", len(weights["tuned"]) + number, 2 * len(weights["tuned"]), name[-22:]))
        arrays = [weights[role][name].numpy() for role in ("aligned", "tuned", "witness")]
        yield name, without_return(*arrays, form=options.form, strength=options.strength, precision=host.precision)


def _save(host: ModelHost, folder: Path, tensors: dict[str, np.ndarray]) -> None:
    import torch

    save(host, folder, {name: torch.from_numpy(tensor) for name, tensor in tensors.items()})


def _judge(
    host: ModelHost, checkpoints: Lineages, done: Restoration, evaluation: Evaluation, report: Report
) -> Restoration:
    """Ask the aligned, the fine-tuned and the restored checkpoint, and compare."""
    import pandas as pd

    from probes.behaviour import rate_tables as tables

    refs = {
        "aligned": checkpoints.aligned,
        "tuned": checkpoints.tuned,
        "restored": CheckpointRef.parse(str(done.out)),
    }
    evaluation, left_out = fit_evaluation(evaluation, host, evaluation.rendering)
    parts, losses = [], []
    for number, (name, ref) in enumerate(refs.items()):
        report(Progress("asking", number, len(refs) + 1, name))
        host.put(ref)
        # The comparison knows a baseline and what is held against it.
        place = {"checkpoint": name, "arm": "baseline" if name == "tuned" else name, "seed": 0, "step": 0}
        answers, items = answer_questions(host, evaluation)
        parts.append(with_questions(answers, evaluation).assign(**place))
        losses.append(items.assign(**place))
    judges = [open_judge(judge) for judge in evaluation.judges]
    frame, _ = judge_completions(pd.concat(parts, ignore_index=True), judges, JudgementCache(), silent)
    items = pd.concat(losses, ignore_index=True)
    contrasts = tables.contrasts(frame, items, margin=evaluation.margin)
    against = contrasts[(contrasts["checkpoint"] == "restored") & (contrasts["against"] == "baseline")]
    return Restoration(
        done.out,
        done.form,
        done.strength,
        done.tensors,
        records(tables.rates(frame, items).drop(columns="arm")),
        records(against.assign(against="tuned")),
        left_out,
    )
