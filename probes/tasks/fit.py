"""Directions of a measured run: candidates scored, answers read, every method fitted everywhere, tokens read out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.directions.selection import Candidate, Rule, Selection, select
from probes.errors import CheckpointError, PromptError, UsageError
from probes.interventions.candidates import Asked, candidates, positions_of
from probes.lineage import Lineage, Member
from probes.models import ModelHost
from probes.progress import Progress, Report, silent, within
from probes.prompts import PromptSet, render
from probes.stages.present import present
from probes.stages.readings import SELECTED, Kept, answered, at_position, forget_reading, write_reading
from probes.stages.readout import write_readout
from probes.stages.roles import open_aligned
from probes.stages.tracks import write_fits
from probes.store import ALIGNED, DIRECTIONS, RunFolder, fingerprint
from probes.tasks.measure import kept_prompts

_VERSION = 1
CANDIDATES = "refusal_candidates"


@dataclass(frozen=True)
class Fitted:
    """What fitting has left.

    Attributes:
        run: the folder.
        selection: what the rule says of the refusal candidates; None where the model could not be opened.
        left_out: what could not be done, in sentences; empty where everything was.
    """

    run: RunFolder
    selection: Selection | None
    left_out: tuple[str, ...]


def fit_directions(
    path: Path | str,
    *,
    winsorise: float | None = None,
    rule: Rule | None = None,
    device: str | None = None,
    models: bool = True,
    report: Report = silent,
) -> Fitted:
    """Fit every direction at every checkpoint and layer of a measured run; what is there is not done again.

    Args:
        path: the run.
        winsorise: clip massive activations to so many typical spreads; None leaves them.
        rule: how the refusal direction is selected; None is the published rule.
        device: where models run; None is as the run was measured.
        models: open the checkpoints, for the refusal candidates' scores, the answers, and the tokens read out.
            Without it, only what the kept activations hold is done; so it is for checkpoints that are gone.
        report: told where the work is.

    Raises:
        RunFolderError: the run is not measured.
        GravityError: a checkpoint is there and cannot be read.
    """
    if winsorise is not None and not winsorise > 0:
        raise UsageError("A limit of spreads must be positive", got=winsorise)
    with RunFolder.writing(path) as run:
        members = present(run)
        lineage = Lineage.opened(run.manifest.lineage, run.path)
        host, left_out = _host(run, lineage, device) if models else (None, ())
        chosen: Selection | None = None
        reached: list[Member] = []
        if host is not None:
            reached, gone = _reached(host, members)
            left_out += gone
            chosen = _with_models(run, host, reached, rule or Rule(), within(report, 0.0, 0.5))
        told = _told(chosen) if host is not None else _told_before(run)
        write_fits(run, winsorise=winsorise, selected=told, report=within(report, 0.5, 0.85))
        if host is not None:
            write_readout(run, reached, host, within(report, 0.85, 1.0))
        run.save()
    return Fitted(RunFolder(path), chosen, left_out)


def _host(run: RunFolder, lineage: Lineage, device: str | None) -> tuple[ModelHost | None, tuple[str, ...]]:
    try:
        return open_aligned(run, lineage, device), ()
    except CheckpointError as error:
        return None, (
            f"The aligned model cannot be opened ({error.what}); refusal candidates, answers and tokens are left out.",
        )


def _reached(host: ModelHost, members: Sequence[Member]) -> tuple[list[Member], tuple[str, ...]]:
    """The members whose checkpoints are still there, and a sentence about each that is not."""
    there, gone = [], []
    for member in members:
        try:
            host.find(member.ref)
        except CheckpointError as error:
            gone.append(f"{member.id}: {error.what}; its answers and tokens are not read again.")
        else:
            there.append(member)
    return there, tuple(gone)


def _with_models(
    run: RunFolder, host: ModelHost, members: Sequence[Member], rule: Rule, report: Report
) -> Selection | None:
    """Score the refusal candidates, and read what the kept activations do not hold."""
    prompts = kept_prompts(run)
    ids = render(prompts, host.tokenizer, host.context_length).token_ids
    positions = positions_of(ids)
    scored = _candidates(run, host, prompts, ids, positions, within(report, 0.0, 0.5))
    chosen = select(scored, host.n_layers, rule) if scored else None
    wanted = [answered(run, host, ids, within(report, 0.5, 0.6))]
    place = chosen.chosen if chosen else None
    if place is not None and place.position != int(run.manifest.config["position"]):
        wanted.append(at_position(SELECTED, ids, place.position))
    else:
        forget_reading(run, SELECTED)  # of another selection
    for done, member in enumerate(members):
        report(Progress("reading answers", done, len(members), member.id, 0.6 + 0.4 * done / len(members)))
        for each in wanted:
            write_reading(run, member, host, each)
    return chosen


def _candidates(
    run: RunFolder,
    host: ModelHost,
    prompts: PromptSet,
    ids: Sequence[Sequence[int]],
    positions: Sequence[int],
    report: Report,
) -> list[Candidate]:
    """The candidates' scores, all of which are kept."""
    made_from = _scored_from(run, positions)
    if not run.holds(CANDIDATES, made_from):
        with run.stage(CANDIDATES, made_from):
            fold = run.read_table("prompts", columns=["fold"])["fold"].to_numpy() == 1
            asked = Asked(*(_folds(ids, of_class, fold) for of_class in (prompts.harmful, ~prompts.harmful)))
            host.put(host.aligned)
            told = lambda done, count: report(Progress("scoring refusal candidates", done, count))  # noqa: E731
            try:
                found, _ = candidates(host, asked, positions, told)
            except PromptError:  # the tokenizer knows no word that begins a refusal
                found = []
            run.write_json(CANDIDATES, [each.published() for each in found])
    return [Candidate.of_published(row) for row in run.read_json(CANDIDATES)]


def _folds(
    ids: Sequence[Sequence[int]], of_class: np.ndarray, fold: np.ndarray
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]:
    """The prompts of one class, in the first fold and in the second."""
    first, second = ([ids[int(place)] for place in np.flatnonzero(of_class & side)] for side in (~fold, fold))
    return first, second


def _told_before(run: RunFolder) -> Mapping[str, str]:
    """The selection of an earlier fit, while the model and the prompts are those that it was made on.

    One that reads another token than the run counts only where the activations at that token are kept.
    """
    if not (run.has_json(DIRECTIONS) and run.has_json(CANDIDATES)):
        return {}
    positions = list(dict.fromkeys(int(row["position"]) for row in run.read_json(CANDIDATES)))
    told = {str(name): str(value) for name, value in run.read_json(DIRECTIONS).get("selection", {}).items()}
    place = told.get("position", str(run.manifest.config["position"]))
    read = place == str(run.manifest.config["position"]) or SELECTED in Kept.of(run, [ALIGNED]).wanted
    return told if read and run.holds(CANDIDATES, _scored_from(run, positions)) else {}


def _scored_from(run: RunFolder, positions: Sequence[int]) -> str:
    """What candidates' scores are made from."""
    shown = run.manifest.stages.get("prompts")
    return fingerprint([_VERSION, run.manifest.checkpoints[ALIGNED]["key"], list(positions), shown])


def _told(selection: Selection | None) -> Mapping[str, str]:
    """The metadata of the refusal direction: the selected place, or what is nearest to one and fails."""
    if selection is None:
        return {}
    best, fails = (selection.chosen, ()) if selection.chosen else selection.nearest[0]
    if fails:  # nothing is selected, so whoever uses the direction takes the layer that was declared in advance
        return {"selection_json": json.dumps({**best.published(), "fails": list(fails)})}
    place = {"selected_layer": str(best.layer), "position": str(best.position)}
    return {**place, "selection_json": json.dumps(best.published())}
