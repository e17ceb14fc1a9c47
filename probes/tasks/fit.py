"""Directions of a measured run: candidates scored, answers read, every method fitted everywhere, tokens read out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probes.directions import METHODS
from probes.directions.selection import Rule, Selection, select
from probes.engine import current_engine
from probes.errors import CheckpointError, UsageError
from probes.interventions.candidates import positions_of
from probes.lineage import Member
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Report, silent, within
from probes.run import Run
from probes.stages.jobs import StageJob, complete_stages, write_all
from probes.stages.method_fits import method_jobs
from probes.stages.readings import (
    ANSWERS,
    SELECTED,
    Readings,
    answer_jobs,
    at_position,
    forget_reading,
    over_answers,
    reading_jobs,
)
from probes.stages.readout import write_readout
from probes.stages.refusal_candidates import CANDIDATES, candidate_jobs, drop_part, made_from, read_candidates
from probes.stages.tracks import write_fits
from probes.store import ALIGNED, DIRECTIONS

REFUSAL = "refusal"


@dataclass(frozen=True)
class Fitted:
    """What fitting has left.

    Attributes:
        run: the folder.
        selection: what the rule says of the refusal candidates; None where the model could not be opened.
        left_out: what could not be done, in sentences; empty where everything was.
    """

    run: Run
    selection: Selection | None
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class FitOptions:
    """How directions are fitted.

    Attributes:
        winsorise: clip massive activations to so many typical spreads; None leaves them.
        rule: how the refusal direction is selected; by default the published rule.
        device: where models run; None is as the run was measured.
        models: open the checkpoints, for the refusal candidates' scores, the answers, and the tokens read out.
            Without it, only what the kept activations hold is done; so it is for checkpoints that are gone.
        methods: names from `METHODS`; what was fitted before stays. Refusal candidates are scored for `refusal`, and
            answers read for `response_mean`, alone.
    """

    winsorise: float | None = None
    rule: Rule = field(default_factory=Rule)
    device: str | None = None
    models: bool = True
    methods: tuple[str, ...] = tuple(METHODS)

    def __post_init__(self) -> None:
        if self.winsorise is not None and not self.winsorise > 0:
            raise UsageError("A limit of spreads must be positive", got=self.winsorise)
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise UsageError(
                "There is no such method", got=unknown[0] if unknown else "none", expected=", ".join(METHODS)
            )


def fit_directions(path: Path | str, options: FitOptions | None = None, report: Report = silent) -> Fitted:
    """Fit every direction at every checkpoint and layer of a measured run; what is there is not done again.

    Args:
        path: the run.
        options: how; None is every default.
        report: told where the work is.

    Raises:
        RunFolderError: the run is not measured.
        GravityError: a checkpoint is there and cannot be read.
    """
    options = options or FitOptions()
    with Run.writing(path) as run, current_engine().threads():
        if options.models:
            current_engine().prepare("probes.interventions.candidates", len(run.measured))
        model, left_out = _find_model(run, options.device) if options.models else (None, ())
        selection: Selection | None = None
        reached: list[Member] = []
        if model is not None:
            reached, gone = _reachable_members(model, run.measured)
            left_out += gone
            selection = _read_with_models(run, model, reached, options, within(report, 0.0, 0.5))
        selects = model is not None and REFUSAL in options.methods
        about = _describe(selection) if selects else _earlier_selection(run)
        write_fits(run, options.winsorise, about, within(report, 0.5, 0.85), options.methods)
        if model is not None:
            write_readout(run, reached, model, within(report, 0.85, 1.0))
        run.save()
    return Fitted(Run(path), selection, left_out)


def _find_model(run: Run, device: str | None) -> tuple[CheckpointFolders | None, tuple[str, ...]]:
    """The model, which whoever has work for it opens: where workers do, the driver needs none."""
    try:
        model = run.unopened_model(device)
        files = model.files(model.aligned)
        if not files.pickled:
            files.shapes()  # refuses one that is cut off
        return model, ()
    except CheckpointError as error:
        return None, (
            f"The aligned model cannot be opened ({error.what}); refusal candidates, answers and tokens are left out.",
        )


def _reachable_members(host: CheckpointFolders, members: Sequence[Member]) -> tuple[list[Member], tuple[str, ...]]:
    """The members whose checkpoints are still there, and a sentence about each that is not."""
    reachable, gone = [], []
    for member in members:
        try:
            host.find(member.ref)
        except CheckpointError as error:
            gone.append(f"{member.id}: {error.what}; its answers and tokens are not read again.")
        else:
            reachable.append(member)
    return reachable, tuple(gone)


def _read_with_models(
    run: Run, model: CheckpointFolders, members: Sequence[Member], options: FitOptions, report: Report
) -> Selection | None:
    """Score the refusal candidates, and read what the kept activations do not hold, as the methods need it.

    Methods that need neither are fitted meanwhile, last of all: they fill the time of workers that have ended first.
    """
    token_ids, jobs, asking = run.rendered.token_ids, list[StageJob](), list[StageJob]()
    if REFUSAL in options.methods:
        jobs += candidate_jobs(run, positions_of(token_ids), options.rule)
    if "response_mean" in options.methods:
        asking = answer_jobs(run)
        jobs += asking or reading_jobs(run, members, over_answers(run))
    fills = bool(jobs) and current_engine().is_local
    fits = method_jobs(run, options.methods, options.winsorise) if fills else []
    jobs += [] if asking else fits
    # The aligned model's answers are read as they are made.
    expected = len(jobs) + (len(members) - 1 + len(fits) if asking else 0)
    for job, _ in complete_stages(run, model, jobs, within(report, 0.0, 0.9), expected=expected):
        if job.stage == ANSWERS:
            jobs += [*reading_jobs(run, members, over_answers(run)), *fits]
    if REFUSAL not in options.methods:
        return None
    drop_part(run)
    scored = read_candidates(run)
    selection = select(scored, run.n_layers, options.rule) if scored else None
    place = selection.chosen if selection else None
    if place is not None and place.position != run.settings.position:
        reading = at_position(SELECTED, token_ids, place.position)
        write_all(run, model, reading_jobs(run, members, reading), within(report, 0.9, 1.0))
    else:
        forget_reading(run, SELECTED)  # of another selection
    return selection


def _earlier_selection(run: Run) -> Mapping[str, str]:
    """The selection of an earlier fit, while the model and the prompts are those that it was made on.

    One that reads another token than the run counts only where the activations at that token are kept.
    """
    if not (run.has_json(DIRECTIONS) and run.has_json(CANDIDATES)):
        return {}
    about = {str(name): str(value) for name, value in run.read_json(DIRECTIONS).get("selection", {}).items()}
    own = str(run.settings.position)
    place = about.get("position", own)
    read = place == own or SELECTED in Readings.of(run, [ALIGNED]).digests
    positions = list(dict.fromkeys(candidate.position for candidate in read_candidates(run)))
    return about if read and run.holds(CANDIDATES, made_from(run, positions)) else {}


def _describe(selection: Selection | None) -> Mapping[str, str]:
    """The metadata of the refusal direction: the selected place, or what is nearest to one and fails."""
    if selection is None:
        return {}
    best, fails = (selection.chosen, ()) if selection.chosen else selection.nearest[0]
    if fails:  # nothing is selected, so whoever uses the direction takes the layer that was declared in advance
        return {"selection_json": json.dumps({**best.published_row(), "fails": list(fails)})}
    place = {"selected_layer": str(best.layer), "position": str(best.position)}
    return {**place, "selection_json": json.dumps(best.published_row())}
