"""What several trajectories say together: the Holm-adjusted level within a run, and independent histories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from probes.statistics import ALPHA
from probes.verdict.ladder import Verdict

MIRROR, POSITIVE_CONTROL, CONTROL = "mirror", "helpful", "control:"
MIN_HISTORIES = 5
_ROUNDING = 1 + 1e-9  # of 9 · (1 / 300) and 0.03, which are equal


@dataclass(frozen=True)
class Histories:
    """How many of several independent histories reached level 4.

    Attributes:
        reached: how many.
        histories: of how many.
        p: against the binomial of alpha; None under five of them.
        words: the sentence.
    """

    reached: int
    histories: int
    p: float | None
    words: str


def is_member(arm: str) -> bool:
    """Whether an arm counts among a run's fine-tuning trajectories: controls, mirror and positive control do not."""
    return arm not in (MIRROR, POSITIVE_CONTROL) and not arm.startswith(CONTROL)


def adjust_levels(verdicts: Sequence[Verdict], alpha: float = ALPHA) -> list[Verdict]:
    """The same verdicts, each with the level that it keeps when the run's fine-tuning trajectories are many (Holm).

    A level's p-value is the largest of its tests'. Where the tests have too few draws for so many trajectories,
    `level_holm` says so and how many are needed.
    """
    members = [verdict for verdict in verdicts if is_member(verdict.arm)]
    levels = {id(verdict): min(verdict.level, 3) for verdict in members}
    for rung in (4, 5, 6):
        adjusted = _holm([verdict.p_of_level(rung) for verdict in members])
        for verdict, p in zip(members, adjusted, strict=True):
            if levels[id(verdict)] == rung - 1 and p <= alpha * _ROUNDING:
                levels[id(verdict)] = rung
    return [
        replace(verdict, level_holm=_words(verdict, levels[id(verdict)], members, alpha))
        if id(verdict) in levels
        else verdict
        for verdict in verdicts
    ]


def _words(verdict: Verdict, level: int, members: Sequence[Verdict], alpha: float) -> int | str:
    """The level that is kept, or how many draws it takes where this trajectory's own draws allow no p small enough."""
    draws, place = verdict.fewest_draws, [id(member) for member in members].index(id(verdict))
    if level >= verdict.level or verdict.level <= 3 or not draws:
        return level
    p_values = [member.p_of_level(4) for member in members]
    p_values[place] = 1 / (draws + 1)
    if _holm(p_values)[place] <= alpha * _ROUNDING:
        return level
    needed = math.ceil(len(members) / (alpha * _ROUNDING)) - 1
    return f"not reachable with {draws} draws ({needed} needed)"


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment."""
    order = np.argsort(p_values)
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted.tolist()


def over_histories(levels: Sequence[int], alpha: float = ALPHA) -> Histories:
    """What independent histories (pretraining, alignment and fine-tuning each on their own) say together.

    Args:
        levels: of one fine-tuning trajectory of each history.
        alpha: probability that a history without reversion reaches level 4.
    """
    reached, count = sum(level >= 4 for level in levels), len(levels)
    words = f"{reached} of {count} histories reached level 4"
    if count < MIN_HISTORIES:
        return Histories(reached, count, None, f"{words}; too few for a p-value ({MIN_HISTORIES} are needed)")
    p = float(stats.binomtest(reached, count, alpha, alternative="greater").pvalue)
    return Histories(reached, count, p, words)
