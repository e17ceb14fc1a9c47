"""Scores of refusal candidates, no more of them than the rule's answer takes.

A rule asks three scores of a candidate, and one that fails is refused whatever the others are. So induce comes first,
then KL, then bypass; each of the first two is screened on a few prompts before it is computed on all, and of a refused
candidate nothing further is computed. `selection.select` selects what it would from all scores, unless an estimate is
further off than its bound. Where no candidate passes, those that come nearest by what is known are scored in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

from probes.directions.selection import NEAREST, Rule

Place = tuple[int, int]  # position, layer
_TRIED = 4 * NEAREST  # candidates, refused for their induce score, whose KL is asked for where none passes


@dataclass(frozen=True)
class Estimate:
    """A score as a few prompts tell it.

    Attributes:
        value: what it is likely to be.
        bound: induce: it is hardly above this; KL: it is not below this.
    """

    value: float
    bound: float


UNDEFINED = Estimate(math.nan, math.nan)


@runtime_checkable
class Scores(Protocol):
    """Scores of candidates; asked twice, they answer the same, and compute nothing again."""

    def score(self, name: str, place: Place) -> float:
        """One score, of all prompts; NaN where it is not defined."""

    def estimates(self, name: str, places: Sequence[Place]) -> list[Estimate]:
        """Induce or KL of a few prompts; the score itself, twice, where that is known."""


def screen(places: Sequence[Place], rule: Rule, scores: Scores, done: Callable[[int, int], None]) -> None:
    """Have those scores computed that `select` needs.

    Args:
        places: of the candidates, above the rule's depth.
        rule: what must be passed.
        scores: compute them.
        done: is given (candidates done, candidates in all).
    """
    passing, number = 0, 0
    reached: list[Place] = []
    for _, at_layer in groupby(sorted(places, key=_layer), key=_layer):
        together = list(at_layer)
        for place, induce in zip(together, scores.estimates("induce", together), strict=True):
            if induce.bound > rule.min_induce and scores.score("induce", place) > rule.min_induce:
                reached.append(place)
                if scores.estimates("kl", [place])[0].bound < rule.max_kl and scores.score("kl", place) < rule.max_kl:
                    passing += math.isfinite(scores.score("bypass", place))
            number += 1
            done(number, len(places))
    if passing:
        return
    for place in _nearest(places, reached, rule, scores):
        for name in ("induce", "kl", "bypass"):
            scores.score(name, place)


def _layer(place: Place) -> int:
    return place[1]


def _nearest(places: Sequence[Place], reached: Sequence[Place], rule: Rule, scores: Scores) -> list[Place]:
    """Where none passes: candidates that seem to fail least, and that which seems to fail by its KL alone, least."""
    estimated = zip(places, scores.estimates("induce", places), strict=True)
    induces = {place: estimate.value for place, estimate in estimated}
    short = {place: rule.min_induce - induce for place, induce in induces.items() if math.isfinite(induce)}
    refused = sorted(short.keys() - set(reached), key=lambda place: (short[place], place))
    tried = [*reached, *refused[:_TRIED]]
    over = {
        place: estimate.value - rule.max_kl
        for place, estimate in zip(tried, scores.estimates("kl", tried), strict=True)
    }

    def faults(place: Place) -> tuple[int, float]:
        of_induce = 0.0 if place in reached else short[place] / max(abs(rule.min_induce), 1.0)
        of_kl = max(over[place], 0.0) / max(abs(rule.max_kl), 1.0)
        return (place not in reached) + (over[place] >= 0), of_induce + of_kl

    return [*sorted(over, key=faults)[:NEAREST], *sorted(reached, key=over.__getitem__)[:1]]
