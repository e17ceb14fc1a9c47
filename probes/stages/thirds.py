"""Stages `thirds/<checkpoint>.parquet`: a checkpoint with one third of its update alone, and with all but that third.

Embeddings belong to the first third of the network, what stands behind the blocks to the last; a tied embedding to the
first. The update is that of the merged weights, from the model that the training began at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from probes.activations import collect_layer
from probes.behaviour.evaluation import Evaluation
from probes.errors import CheckpointError
from probes.interventions.trials import RATES, Trial, judge_trials
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.weight_space import merged_weights, with_weights
from probes.progress import Report
from probes.run import Run
from probes.stages.jobs import StageJob, write_all
from probes.stages.weights import describe_tensor
from probes.store import fingerprint

THIRDS = ("first", "middle", "last")
KEPT = ("keep", "drop")
COLUMNS = ("checkpoint", "arm", "seed", "step", "kept", "third", "return_fraction", *RATES, "reason")
_VERSION = 1
Weights = Mapping[str, torch.Tensor]


def thirds_stage(checkpoint: str) -> str:
    """The stage's name."""
    return f"thirds/{checkpoint}"


def write_thirds(run: Run, model: ModelHost, members: Sequence[Member], evaluation: Evaluation, report: Report) -> None:
    """Write six rows of each checkpoint: one third of its update kept (`keep`), or taken out (`drop`).

    `return_fraction` is at the headline layer, over the harmful probe prompts, and NaN without a witness; `RATES` are
    of the evaluation's requests. A checkpoint whose adapter cannot be merged has one row with the reason.

    Args:
        run: measured, open for writing.
        model: opened on the aligned model.
        members: the checkpoints.
        evaluation: what is asked.
        report: told before every trial.
    """
    known, asked_in = run.manifest.checkpoints, replace(evaluation, task=(), rendering=run.rendering)
    needs = [run.input_of(need) for need in ("prompts", "witness")]
    about = [_VERSION, run.headline_layer, asked_in.document(), *needs]
    jobs = []
    for member in members:
        weights = [known[name]["weights_sha256"] for name in (member.reference, member.id)]
        made_from = fingerprint([*about, weights])
        if not run.holds(thirds_stage(member.id), made_from):
            work = partial(_write, member, asked_in)
            jobs.append(StageJob(f"Thirds of {member.id}", thirds_stage(member.id), made_from, work))
    write_all(run, model, jobs, report)


def _write(member: Member, evaluation: Evaluation, run: Run, model: ModelHost, report: Report) -> None:
    try:
        start, end = (merged_weights(model, ref) for ref in (run.lineage.ref(member.reference), member.ref))
    except CheckpointError as error:
        rows = pd.DataFrame([{**member.labels, "reason": error.got or error.what}])
    else:
        mixes = {
            (way, third): mix(start, end, run.n_layers, third, drop=way == "drop") for way in KEPT for third in THIRDS
        }
        trials = [
            Trial({"kept": way, "third": third}, run.lineage.aligned, with_weights(model, weights))
            for (way, third), weights in mixes.items()
        ]
        rates = judge_trials(model, trials, evaluation, "asking thirds of an update", report)
        returns = [_return(run, model, member, weights) for weights in mixes.values()]
        rows = rates.assign(**member.labels, return_fraction=returns)
    frame = rows.reindex(columns=list(COLUMNS)).astype({"reason": "string"})
    run.write_table(thirds_stage(member.id), frame)


def mix(start: Weights, end: Weights, n_layers: int, third: str, *, drop: bool) -> dict[str, torch.Tensor]:
    """`start` with the tensors of one third of the network from `end`; or, with `drop`, all others from there.

    Args:
        start: weights by name.
        end: the same after training.
        n_layers: blocks of the network.
        third: from `THIRDS`.
        drop: leave that third as it was, and take everything else.
    """
    return {
        name: end[name] if (third_of(name, n_layers) == third) != drop else tensor for name, tensor in start.items()
    }


def third_of(tensor: str, n_layers: int) -> str:
    """Which third of the network a tensor belongs to; of a number that three does not divide, the first have more."""
    about = describe_tensor(tensor)
    if about["layer"] < 0:
        return "first" if about["kind"] == "embedding" else "last"
    parts = np.array_split(np.arange(n_layers), len(THIRDS))
    return next(name for name, part in zip(THIRDS, parts, strict=True) if about["layer"] in part)


def _return(run: Run, model: ModelHost, member: Member, weights: Weights) -> float:
    """Return fraction of the aligned model with these weights in place of its own, from the member's reference."""
    if not run.has_witness:
        return float("nan")
    settings, layer = run.settings, run.headline_layer
    budget = settings.batch_tokens or run.manifest.model.get("batch_tokens")
    tokens = [run.rendered.token_ids[place] for place in np.flatnonzero(run.harmful)]
    with with_weights(model, weights):
        rows = collect_layer(model, tokens, layer, position=settings.position, batch_tokens=budget)
    unit, norm = run.direction("reversion").at(layer)
    start = run.activations(member.reference, layer)[run.harmful]
    along = float((rows.astype(np.float64) - start).mean(axis=0) @ unit) / norm
    return along if member.reference == "aligned" else -along
