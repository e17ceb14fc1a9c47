"""Stage `refusal_candidates.json`: what each candidate for the refusal direction does, as far as that decides.

Scores are kept as they are computed, in `refusal_candidates.part.json` until all are there: a fit that is interrupted
goes on, and a rule that asks for more scores has no others computed again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from probes.directions.selection import ESTIMATES, KEYS, Candidate, Rule
from probes.errors import PromptError
from probes.interventions.candidates import Asked, Scorer
from probes.interventions.deciding_scores import UNDEFINED, Estimate, Place, screen
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages.jobs import StageJob
from probes.store import ALIGNED, activations_stage, fingerprint
from probes.store.atomic import write_json

CANDIDATES = "refusal_candidates"
_VERSION = 3  # of scores: raise it when a change alters them
_PART = f"{CANDIDATES}.part"


def candidate_jobs(run: Run, positions: Sequence[int], rule: Rule) -> list[StageJob]:
    """What writes the scores that the rule's answer takes; nothing where the run holds them.

    Where no word begins a refusal, there are no scores.

    Args:
        run: measured, open for writing.
        positions: of the tokens at which candidates are read, counted from the end.
        rule: which will select; no candidate at a depth that it refuses is scored.
    """
    key = made_from(run, positions)
    if run.holds(CANDIDATES, key):
        scores = _Kept(run, key, _know_no_more, run.read_json(CANDIDATES))
        try:
            if scores.rows:
                screen(_places(run, positions, rule), rule, scores, lambda *_: None)
            return []
        except _UnknownScoreError:
            scores.keep()
    work = partial(_write_scores, tuple(positions), rule)
    return [StageJob("Scores of refusal candidates", CANDIDATES, key, work)]


def _write_scores(positions: Sequence[int], rule: Rule, run: Run, model: ModelHost, report: Report) -> None:
    @functools.cache
    def scorer() -> Scorer:
        model.put(model.aligned)
        return Scorer(model, Asked.of(run.rendered.token_ids, run.harmful, run.fold), positions)

    def show(done: int, count: int) -> None:
        report(Progress("scoring refusal candidates", done, count))

    scores = _Kept(run, made_from(run, positions), scorer)
    try:
        screen(_places(run, positions, rule), rule, scores, show)
    except PromptError:  # the tokenizer knows no word that begins a refusal
        scores.rows.clear()
    run.write_json(CANDIDATES, scores.rows_in_order())


def drop_part(run: Run) -> None:
    """Forget the scores that were kept while they came, once the stage of all of them is kept."""
    (run.path / f"{_PART}.json").unlink(missing_ok=True)


class _UnknownScoreError(Exception):
    """A score is asked for that is not kept."""


def _know_no_more() -> Scorer:
    raise _UnknownScoreError


def _places(run: Run, positions: Sequence[int], rule: Rule) -> list[Place]:
    layers = range(max(1, int(rule.depth * run.n_layers)))
    return [(position, layer) for position in positions for layer in layers]


def read_candidates(run: Run) -> list[Candidate]:
    """The candidates with what is known of them."""
    return [Candidate.of_published(row) for row in run.read_json(CANDIDATES)]


def made_from(run: Run, positions: Sequence[int]) -> str:
    """The fingerprint of what the scores are made from; which of them are there is no part of it."""
    needs = [run.input_of(name) for name in (activations_stage(ALIGNED), "prompts")]
    return fingerprint([_VERSION, needs, {}, {"positions": list(positions)}])


class _Kept:
    """The scores and estimates that are known, by place, and each other once it is asked for.

    A row holds None for a score that was not computed, or that is not defined; in the latter case nothing else.
    """

    def __init__(self, run: Run, key: str, scorer: Callable[[], Scorer], rows: Sequence[dict[str, Any]] = ()) -> None:
        """Take over rows of an earlier fit, and those of one that was interrupted, on the same inputs."""
        self._key, self._scorer, self.part = key, scorer, run.path / f"{_PART}.json"
        if run.has_json(_PART) and (part := run.read_json(_PART))["made_from"] == key:
            rows = part["rows"]
        self.rows: dict[Place, dict[str, Any]] = {(row[KEYS["position"]], row[KEYS["layer"]]): row for row in rows}

    def score(self, name: str, place: Place) -> float:
        """A score of all prompts."""
        row, published = self.rows.get(place), KEYS[name]
        if row is not None and (row[published] is not None or _is_undefined(row)):
            return math.nan if row[published] is None else float(row[published])
        value = self._scorer().score(name, *place)
        row = self._row(place)
        if math.isfinite(value):
            row[published] = value
        self.keep()
        return value

    def estimates(self, name: str, places: Sequence[Place]) -> list[Estimate]:
        """What a few prompts say, or all of them where that is known."""
        unknown = [place for place in places if self._estimate_of(name, place) is None]
        if name == "kl":
            for place in unknown:
                self._keep_estimates(name, {place: self._scorer().estimate_kl(*place)})
        else:
            for layer in dict.fromkeys(layer for _, layer in unknown):
                together = [place for place in unknown if place[1] == layer]
                estimates = self._scorer().estimate_induces(layer, [position for position, _ in together])
                self._keep_estimates(name, dict(zip(together, estimates, strict=True)))
        return [self._estimate_of(name, place) or UNDEFINED for place in places]

    def _estimate_of(self, name: str, place: Place) -> Estimate | None:
        row, published = self.rows.get(place), KEYS[name]
        if row is None:
            return None
        if row[published] is not None or _is_undefined(row):
            return Estimate(*[self.score(name, place)] * 2)
        return Estimate(*row[ESTIMATES][published]) if published in row.get(ESTIMATES, {}) else None

    def _keep_estimates(self, name: str, estimates: Mapping[Place, Estimate]) -> None:
        for place, estimate in estimates.items():
            row = self._row(place)
            if math.isfinite(estimate.value):
                row.setdefault(ESTIMATES, {})[KEYS[name]] = [estimate.value, estimate.bound]
        self.keep()

    def rows_in_order(self) -> list[dict[str, Any]]:
        """The rows, in the order of their places."""
        return [self.rows[place] for place in sorted(self.rows)]

    def keep(self) -> None:
        """Write what is known by now beside what is whole."""
        write_json(self.part, {"made_from": self._key, "rows": self.rows_in_order()})  # no file of the stage

    def _row(self, place: Place) -> dict[str, Any]:
        empty = {KEYS["position"]: place[0], KEYS["layer"]: place[1], **dict.fromkeys(list(KEYS.values())[2:])}
        return self.rows.setdefault(place, empty)


def _is_undefined(row: dict[str, Any]) -> bool:
    """Whether something was asked for, and nothing came of it."""
    return ESTIMATES not in row and all(row[KEYS[name]] is None for name in ("bypass", "induce", "kl"))
