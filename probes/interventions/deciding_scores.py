"""Scores of refusal candidates, no more of them than the rule's answer takes.

A rule asks three scores of a candidate, and one that fails is refused whatever the others are. So the cheapest is
computed first, and of a refused candidate no further one, unless no candidate passes: then those that come nearest are
scored in full. `selection.select` selects and lists the same as it would from all scores; where none passes, it may
offer fewer ways to relax the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from probes.directions.selection import NEAREST, Rule

Place = tuple[int, int]  # position, layer
Score = Callable[[str, Place], float]


def screen(places: Sequence[Place], rule: Rule, score: Score, done: Callable[[int, int], None]) -> None:
    """Have `score` compute what `select` needs.

    Args:
        places: of the candidates, above the rule's depth.
        rule: what must be passed.
        score: gives one score of one candidate; asked twice, it answers the same.
        done: is given (candidates done, candidates in all).
    """
    passing = 0
    for number, place in enumerate(places):
        if score("induce", place) > rule.min_induce and score("kl", place) < rule.max_kl:
            passing += math.isfinite(score("bypass", place))
        done(number + 1, len(places))
    if not passing:
        for place in _nearest(places, rule, score):
            score("bypass", place)


def _nearest(places: Sequence[Place], rule: Rule, score: Score) -> list[Place]:
    """Where none passes: the candidates that fail least, and that which fails by its KL alone, and by the least."""
    induces = {place: induce for place in places if math.isfinite(induce := score("induce", place))}
    misses = {place: _miss(induce - rule.min_induce, rule.min_induce) for place, induce in induces.items()}
    reached = [place for place, induce in induces.items() if induce > rule.min_induce]
    kls = {place: kl for place in reached if (kl := score("kl", place)) >= rule.max_kl}
    of_kl = sorted(kls, key=kls.__getitem__)
    single = {place: _miss(kls[place] - rule.max_kl, rule.max_kl) for place in of_kl}
    refused = sorted(induces.keys() - set(reached), key=lambda place: (misses[place], place))
    for place in refused:
        if sum(miss <= misses[place] for miss in single.values()) >= NEAREST:
            break
        if score("kl", place) < rule.max_kl:
            single[place] = misses[place]
    ranked = sorted(single, key=single.__getitem__)[:NEAREST]
    if len(ranked) < NEAREST:  # every KL is known then
        kls = {place: kl for place in refused if (kl := score("kl", place)) >= rule.max_kl}
        twice = {place: misses[place] + _miss(kl - rule.max_kl, rule.max_kl) for place, kl in kls.items()}
        ranked += sorted(twice, key=twice.__getitem__)[:NEAREST]
    return [*ranked, *of_kl[:1]]


def _miss(by: float, limit: float) -> float:
    return abs(by) / max(abs(limit), 1.0)
