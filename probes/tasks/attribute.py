"""Which training examples pulled a model back: shares of the return that was measured, effects, forecast and clusters.

Shares need the path of the training (`--record-path`); without one there are the forecast, and effects of a first step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.attribution.document import Attribution
from probes.attribution.layer_tables import Accounting, LayerTable
from probes.attribution.pathways import Axes, Regression, pathway_targets
from probes.attribution.replay import Replay, check_path
from probes.attribution.rows_of_examples import ENDINGS, Texts
from probes.attribution.shares import OTHER, UNLISTED, Shares
from probes.attribution.targets import Probe, Target, refusal_score_of, targets_of
from probes.attribution.texts_of_examples import are_read_as, rendered_examples, texts_of
from probes.behaviour.task_file import read_task
from probes.errors import RunFolderError, UsageError
from probes.experiments.known_data import known_pairs
from probes.guard.recorded_path import PATH, WEIGHTS, RecordedExample, RecordedPath
from probes.lineage import MIRROR, Member
from probes.models import ModelHost
from probes.models.identity import check_measured
from probes.progress import Report, silent
from probes.run import Run
from probes.store import ALIGNED, fingerprint

if TYPE_CHECKING:
    import pandas as pd

EXPLAINED = 10
_VERSION = 4


@dataclass(frozen=True)
class Attributing:
    """What is attributed.

    Attributes:
        data: requests with answers; None is what the arm was trained on, where the run knows it.
        arm: whose training.
        seed: of the training.
        layers: blocks; none is the headline layer. A table each, by one walk along the path.
        exact: take the effect on the return by the unrolled derivative; those on the other targets stay cheap.
        pathways: attribute too how refusals hang on the way back: through the features, through the output.
        explained: of so many examples at the top of each ranking, the harmful prompts that each moves.
    """

    data: Path | None = None
    arm: str = "baseline"
    seed: int = 0
    layers: tuple[int, ...] = ()
    exact: bool = False
    pathways: bool = False
    explained: int = EXPLAINED


def attribute(path: Path | str, options: Attributing = Attributing(), report: Report = silent) -> list[Attributed]:
    """Attribute the return of a trajectory to the examples it was trained on, and keep the tables in the run.

    Args:
        path: a measured run.
        options: which trajectory, at which layers.
        report: told where the work is.

    Returns:
        An attribution for each layer.

    Raises:
        RunFolderError: there is no run, or it has no such trajectory, or neither its path nor its data.
        UsageError: an arm whose return cannot be attributed.
    """
    Run(path)  # refused before anything is written, where it is no run
    with Run.writing(path) as run:
        member = _last_member(run, options)
        layers = tuple(dict.fromkeys(options.layers)) or (run.headline_layer,)
        work = _Work(run, member, options)
        missing = [layer for layer in layers if not run.holds(work.name(layer), work.fingerprint(layer))]
        tables: dict[int, LayerTable] = {}
        for layer in missing:
            with run.stage(work.name(layer), work.fingerprint(layer)):
                tables = tables or work.tables(missing, report)
                work.write(layer, tables[layer])
        run.save()
    return [Attributed(Run(path), work.name(layer)) for layer in layers]


@dataclass(frozen=True)
class Attributed:
    """A finished attribution in its run folder."""

    run: Run
    name: str

    @property
    def table(self) -> pd.DataFrame:
        """A row an example, with every target's columns."""
        return self.run.table(self.name)

    @property
    def about(self) -> dict[str, Any]:
        """Gap, measured and predicted return, other rows, by target; why there are no shares where there are none."""
        return self.run.read_json(self.name)

    @property
    def document(self) -> Attribution:
        """The documented JSON."""
        return Attribution.of(self.table, self.about)


class _Work:
    """One attribution: its inputs, found before any model is loaded, and the making of its tables."""

    def __init__(self, run: Run, member: Member, options: Attributing) -> None:
        self._run, self._member, self._options = run, member, options
        place = Path(member.ref.adapter or member.ref.model).parent / PATH
        self._path = RecordedPath(place, member.step) if place.is_dir() else None
        self._task = read_task(options.data) if options.data else None
        if self._path is None and self._task is None:
            self._task = known_pairs(run, member)
        self._faithful = False
        self._slopes: dict[int, list[float]] = {}

    def name(self, layer: int) -> str:
        """What a layer's attribution is called in the run folder."""
        return f"attribution/{self._options.arm.replace(':', '-')}-s{self._options.seed}-layer{layer}"

    def fingerprint(self, layer: int) -> str:
        """Of everything that a layer's table is made from."""
        needs = [*(self._run.input_of(need) for need in ("prompts", "directions")), self._measured_return(layer)]
        models = [self._run.keys[checkpoint] for checkpoint in (ALIGNED, self._member.id)]
        options = [layer, self._options.exact, self._options.pathways, self._options.explained]
        return fingerprint([_VERSION, needs, models, self._path_fingerprint, self._task, options])

    @cached_property
    def _path_fingerprint(self) -> str | None:
        return None if self._path is None else self._path.fingerprint

    def _measured_return(self, layer: int) -> float | None:
        last = self._member
        drift = self._run.drift(last.arm, "return_fraction", layer=layer, seed=last.seed)
        value = float(drift.loc[drift["step"] == last.step, "value"].iloc[0])
        return None if math.isnan(value) else value

    def tables(self, layers: Sequence[int], report: Report) -> dict[int, LayerTable]:
        """Attribute at these layers."""
        run, options = self._run, self._options
        host = self._host()
        examples, pairs = self._examples(host)
        self._faithful = self._task is not None or are_read_as(pairs, examples, host.tokenizer)
        replay = Replay(host, examples, self._names(host))
        if self._path:
            check_path(self._path, replay)
            replay.put(self._path.stream(1, WEIGHTS, replay.view.device))
        probe = Probe(run.rendered.token_ids, run.settings.position)
        targets = [target for layer in layers for target in targets_of(run, layer)]
        targets += refusal_score_of(run, layers[0], host.tokenizer)
        if options.pathways:
            targets += [target for layer in layers for target in self._pathways(replay, probe, layer)]
        harmful = [prompt.text for prompt in run.prompts.prompts if prompt.label == "harmful"]
        accounting = Accounting(
            replay, probe, targets, Texts(pairs, harmful), self._path, options.exact, options.explained
        )
        return accounting.tables(layers, report)

    def write(self, layer: int, table: LayerTable) -> None:
        """Write a layer's table, what holds for all of its rows, and the prompts that examples move."""
        run, name = self._run, self.name(layer)
        prompts = table.prompts.assign(prompt=[run.prompts.prompts[place].id for place in table.prompts["prompt"]])
        run.write_table(name, table.rows)
        run.write_table(f"{name}-prompts", prompts)
        run.write_json(name, self._about(layer, table))

    def _host(self) -> ModelHost:
        """The aligned model with the trajectory's last checkpoint in its place, where its path was recorded."""
        run = self._run
        if run.settings.quantize:
            raise UsageError(
                "Gradients are those of whole weights, and this run was read in fewer bits",
                got=f"--quantize {run.settings.quantize}",
                next_step="Measure without --quantize first.",
            )
        host = ModelHost(run.lineage.aligned, device=run.settings.device, dtype="float32")
        name, place = (self._member.id, self._member.ref) if self._path else (ALIGNED, run.lineage.aligned)
        check_measured(host.weights_sha256, place, run.manifest.checkpoints[name].get("weights_sha256"))
        host.put(place)
        return host

    def _names(self, host: ModelHost) -> list[str]:
        return self._path.names if self._path else [name for name, _ in host.model.named_parameters()]

    def _examples(self, host: ModelHost) -> tuple[list[RecordedExample], list[tuple[str, str]]]:
        """What is attributed: the data that was given, or what was recorded."""
        if self._task is None:
            assert self._path is not None
            examples = self._path.examples()
            return examples, [texts_of(example, host.tokenizer) for example in examples]
        return rendered_examples(self._task, host.tokenizer, host.context_length), list(self._task)

    def _pathways(self, replay: Replay, probe: Probe, layer: int) -> list[Target]:
        """How refusals hang on the way back: by the regressions at the path's two ends, or at the start alone."""
        axes = Axes.of(self._run, layer, replay.view.tokenizer)
        regressions = [Regression.read(replay.view, probe, axes)]
        if self._path:
            replay.put(self._path.stream(self._path.steps + 1, WEIGHTS, replay.view.device))
            regressions.append(Regression.read(replay.view, probe, axes, regressions[0].penalty))
            replay.put(self._path.stream(1, WEIGHTS, replay.view.device))
        self._slopes[layer] = [float(regression.weights[0]) for regression in regressions]
        return pathway_targets(axes, regressions)

    def _about(self, layer: int, table: LayerTable) -> dict[str, Any]:
        last, options, shares = self._member, self._options, table.shares
        about = {
            result.target: {
                "change": result.change,
                "predicted": result.total,
                "gap": result.gap,
                "complete": result.is_complete,
                "rule": result.rule,
                "other": _beside_examples(result, table),
            }
            for result in shares
        }
        return {
            "arm": last.arm,
            "seed": last.seed,
            "step": last.step,
            "layer": layer,
            "measured_return": self._measured_return(layer),
            "effect": "first step" if not shares else "exact" if options.exact else "cheap",
            "without_shares": None if shares else "no path was recorded: train again with --record-path",
            "targets": about,
            "not_trained_on": table.strangers,
            "texts_are_data": self._faithful,
            "refusal_by_return": self._slopes.get(layer),
        }


def _beside_examples(result: Shares, table: LayerTable) -> dict[str, float]:
    """What no row of a table did, so that with this all shares add up: also examples that the given data lack."""
    beside = {name: result.remainder[name] for name in OTHER}
    if len(result.share) > len(table.rows) - table.strangers:
        beside[UNLISTED] = float(result.share.sum() - table.rows["share" + ENDINGS[result.target]].sum())
    return beside


def _last_member(run: Run, options: Attributing) -> Member:
    """The last checkpoint of a trajectory."""
    if options.arm == MIRROR:
        raise UsageError(
            "The mirror starts at the witness, so that its return is another", next_step="Take another arm."
        )
    members = [member for member in run.tuned if (member.arm, member.seed) == (options.arm, options.seed)]
    if not members:
        known = ", ".join(sorted({f"{member.arm} (seed {member.seed})" for member in run.tuned}))
        raise RunFolderError(f"{run.path} has no trajectory {options.arm} (seed {options.seed})", expected=known)
    return max(members, key=lambda member: member.step)
