"""Which training examples pulled a model back: shares of the return that was measured, effects, forecast and clusters.

Shares and effects need the path of the training (`--record-path`); without one there is the forecast alone.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from probes.attribution.effects import measure_effects
from probes.attribution.replay import Replay, check_path
from probes.attribution.rows_of_examples import Texts, example_table, places_in, with_shares
from probes.attribution.shares import OTHER, Shares, measure_shares
from probes.attribution.targets import RETURN, Probe, Target, targets_of
from probes.attribution.texts_of_examples import are_read_as, rendered_examples, texts_of
from probes.behaviour.task_file import read_task
from probes.errors import RunFolderError, UsageError
from probes.experiments.known_data import known_pairs
from probes.guard.recorded_path import PATH, RecordedExample, RecordedPath
from probes.lineage import MIRROR, Member
from probes.models import ModelHost
from probes.models.identity import check_measured
from probes.organism.history import write_lines
from probes.progress import Report, silent, within
from probes.run import Run
from probes.store import ALIGNED, fingerprint, records

if TYPE_CHECKING:
    import pandas as pd

RANKINGS = ("forecast", "share", "effect", "bm25")
_VERSION = 2
_FORECAST = 0.3  # share of the time
_WALKED = 0.7  # likewise, by which shares are done where exact effects follow


@dataclass(frozen=True)
class Attributing:
    """What is attributed.

    Attributes:
        data: requests with answers; None is what the arm was trained on, where the run knows it.
        arm: whose training.
        seed: of the training.
        layer: a block; None is the headline layer.
        exact: take the effect on the return by the unrolled derivative; those on the other targets stay cheap.
    """

    data: Path | None = None
    arm: str = "baseline"
    seed: int = 0
    layer: int | None = None
    exact: bool = False


class Example(BaseModel):
    """One training example; None is what is not known.

    Attributes:
        index: its place in the data.
        share: of the measured return; shares and `other` (the remainder) add up to it.
        effect: what the return would lack without it, to first order.
        forecast: before training; it ranks, in no unit.
        low: of an interval over runs; None for one run.
        high: likewise.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    text: str
    share: float | None
    effect: float | None
    forecast: float | None
    low: float | None
    high: float | None
    cluster: int
    projection: float | None
    projection_difference: float | None
    bm25: float | None
    length: int


class Other(BaseModel):
    """What no example did."""

    model_config = ConfigDict(frozen=True)

    name: str
    share: float


class Attribution(BaseModel):
    """What `gravity-probe attribute RUN --json` prints.

    Attributes:
        completeness_gap: measured less predicted return; None without a recorded path.
        measured_return: the summary's return fraction of the trajectory's last checkpoint at the layer.
        predicted_return: Σ of all shares, examples' and others'.
        remainder: weight decay, the guard, the first moment at the start.
        examples: in the order of the data.
    """

    model_config = ConfigDict(frozen=True)

    completeness_gap: float | None
    measured_return: float | None
    predicted_return: float | None
    remainder: tuple[Other, ...] = Field(serialization_alias="other")
    examples: tuple[Example, ...]


def attribute(path: Path | str, options: Attributing = Attributing(), report: Report = silent) -> Attributed:
    """Attribute the return of a trajectory to the examples it was trained on, and keep the table in the run.

    Args:
        path: a measured run.
        options: which trajectory, at which layer.
        report: told where the work is.

    Raises:
        RunFolderError: the run has no such trajectory, or has neither its path nor its data.
        UsageError: an arm whose return cannot be attributed.
    """
    with Run.writing(path) as run:
        member = _last_member(run, options)
        layer = run.headline_layer if options.layer is None else options.layer
        work = _Work(run, member, dataclasses.replace(options, layer=layer))
        name, made_from = work.name, work.fingerprint
        if not run.holds(name, made_from):
            with run.stage(name, made_from):
                work.write(report)
        run.save()
    return Attributed(Run(path), name)


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
        about, table = self.about, self.table
        fields = [name for name in Example.model_fields if name in table]
        empty = dict.fromkeys(Example.model_fields)
        rows = [Example(**{**empty, **row}) for row in records(table[fields])]
        shares = about["targets"].get(RETURN)
        predicted = None if shares is None else shares["predicted"]
        measured = about["measured_return"]
        return Attribution(
            completeness_gap=None if predicted is None or measured is None else measured - predicted,
            measured_return=measured,
            predicted_return=predicted,
            remainder=tuple(
                Other(name=name, share=share) for name, share in (shares or {"other": {}})["other"].items()
            ),
            examples=tuple(rows),
        )


def drop_top(attributed: Attributed, percent: float, by: str, out: Path) -> tuple[Path, Path]:
    """Write the data without the top per cent of a ranking, and beside it what was dropped.

    Args:
        attributed: whose table.
        percent: of the examples.
        by: one of `RANKINGS`.
        out: a JSONL file of `prompt` and `completion`; what was dropped lies in `NAME-dropped.jsonl`.

    Returns:
        Both files.

    Raises:
        UsageError: a ranking that the table has not, a percentage that leaves nothing, or texts that are known only
            as the model read them, with its chat template.
    """
    table = attributed.table
    if by not in RANKINGS or by not in table:
        known = ", ".join(name for name in RANKINGS if name in table)
        raise UsageError("There is no such ranking here", got=by, expected=known)
    if not attributed.about["texts_are_data"]:
        raise UsageError(
            "The examples are known only as the model read them, with its chat template",
            next_step="Name the data they were made from: --data FILE.",
        )
    count = round(len(table) * percent / 100)
    if not 0 < count < len(table):
        raise UsageError("--drop-top leaves all or nothing", got=f"{percent:g} % of {len(table)} examples")
    top = set(table.sort_values(by, ascending=False, kind="stable")["index"].head(count))
    pairs = [(index, {"prompt": request, "completion": answer}) for index, request, answer in _pairs(table)]
    dropped = out.with_name(f"{out.stem}-dropped{out.suffix}")
    write_lines(out, [row for index, row in pairs if index not in top])
    write_lines(dropped, [row for index, row in pairs if index in top])
    return out, dropped


def _pairs(table: pd.DataFrame) -> list[tuple[int, str, str]]:
    return list(table[["index", "request", "answer"]].itertuples(index=False, name=None))


class _Work:
    """One attribution: its inputs, found before any model is loaded, and the writing of its table."""

    def __init__(self, run: Run, member: Member, options: Attributing) -> None:
        self._run, self._member, self._options = run, member, options
        place = Path(member.ref.adapter or member.ref.model).parent / PATH
        self._path = RecordedPath(place, member.step) if place.is_dir() else None
        self._task = read_task(options.data) if options.data else None
        if self._path is None and self._task is None:
            self._task = known_pairs(run, member)
        self.name = f"attribution/{options.arm.replace(':', '-')}-s{options.seed}-layer{options.layer}"

    @property
    def fingerprint(self) -> str:
        """Of everything that the table is made from."""
        path = None if self._path is None else self._path.fingerprint
        needs = [*(self._run.input_of(need) for need in ("prompts", "directions")), self._measured_return]
        models = [self._run.keys[checkpoint] for checkpoint in (ALIGNED, self._member.id)]
        options = [self._options.layer, self._options.exact]
        return fingerprint([_VERSION, needs, models, path, self._task, options])

    @property
    def _measured_return(self) -> float | None:
        last, layer = self._member, self._options.layer
        drift = self._run.drift(last.arm, "return_fraction", layer=layer, seed=last.seed)
        value = float(drift.loc[drift["step"] == last.step, "value"].iloc[0])
        return None if math.isnan(value) else value

    def write(self, report: Report) -> None:
        """Write the table, and what holds for all of its rows."""
        run, options = self._run, self._options
        assert options.layer is not None
        host = ModelHost(run.lineage.aligned, device=run.settings.device, dtype="float32")
        checkpoint = (self._member.id, self._member.ref) if self._path else (ALIGNED, run.lineage.aligned)
        check_measured(
            host.weights_sha256, checkpoint[1], run.manifest.checkpoints[checkpoint[0]].get("weights_sha256")
        )
        host.put(checkpoint[1])
        examples, pairs = self._examples(host)
        recorded = self._path.examples() if self._path else examples
        names = self._path.names if self._path else [name for name, _ in host.model.named_parameters()]
        replay = Replay(host, examples, names)
        if self._path:
            check_path(self._path, replay)
            replay.put(self._path.tensors(1).weights)
        probe = Probe(run.rendered.token_ids, run.settings.position)
        targets = targets_of(run, options.layer, host.tokenizer)
        harmful = [prompt.text for prompt in run.prompts.prompts if prompt.label == "harmful"]
        table = example_table(replay, probe, targets, Texts(pairs, harmful), within(report, 0.0, _FORECAST))
        shares: list[Shares] = []
        places: list[int | None] = []
        if self._path:
            replay.examples = recorded
            walked = _WALKED if options.exact else 1.0
            shares = measure_shares(self._path, replay, probe, targets, within(report, _FORECAST, walked))
            places = places_in(examples, recorded)
            table = with_shares(table, shares, places)
            if options.exact:
                table["effect"] = self._exact(replay, probe, targets[0], places, within(report, walked, 1.0))
        faithful = self._task is not None or are_read_as(pairs, examples, host.tokenizer)
        run.write_table(self.name, table)
        run.write_json(
            self.name, {**self._about(shares), "not_trained_on": places.count(None), "texts_are_data": faithful}
        )

    def _exact(
        self, replay: Replay, probe: Probe, target: Target, places: list[int | None], report: Report
    ) -> list[float]:
        assert self._path is not None
        effects = measure_effects(self._path, replay, probe, target, report)
        return [0.0 if place is None else float(effects[place]) for place in places]

    def _examples(self, host: ModelHost) -> tuple[list[RecordedExample], list[tuple[str, str]]]:
        """What is attributed: the data that was given, or what was recorded."""
        if self._task is None:
            assert self._path is not None
            examples = self._path.examples()
            return examples, [texts_of(example, host.tokenizer) for example in examples]
        return rendered_examples(self._task, host.tokenizer), list(self._task)

    def _about(self, shares: list[Shares]) -> dict[str, Any]:
        layer, last = self._options.layer, self._member
        about = {
            result.target: {
                "change": result.change,
                "predicted": result.total,
                "gap": result.gap,
                "complete": result.is_complete,
                "rule": result.rule,
                "other": {name: result.remainder[name] for name in OTHER},
            }
            for result in shares
        }
        return {
            "arm": last.arm,
            "seed": last.seed,
            "step": last.step,
            "layer": layer,
            "measured_return": self._measured_return,
            "effect": None if not shares else "exact" if self._options.exact else "cheap",
            "without_shares": None if shares else "no path was recorded: train again with --record-path",
            "targets": about,
        }


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
