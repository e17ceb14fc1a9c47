"""Tango's score test and interval for a difference of two rates on the same prompts (Statistics in Medicine 17, 1998).

The interval holds the differences that the score test does not reject. It has width where no prompt flips, stays
within [−1, 1], and at a difference of 0 the test is McNemar's.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm

from probes.errors import StatisticsError

Counts = TypeVar("Counts", int, np.ndarray)
ONE_SIDED = 0.9  # confidence of a two-sided interval of which each side errs in 5 %
_EDGE = 1e-12  # the statistic diverges at differences of −1 and 1


def tango_statistic(gained: Counts, lost: Counts, n: int, difference: float) -> np.ndarray:
    """The score statistic z against a true difference (after − before), by Tango's equations 24 to 26.

    Args:
        gained: prompts on which it holds after and did not before; a count or an array of counts.
        lost: prompts on which it held before and does not after, likewise.
        n: all prompts.
        difference: the difference that is tested, within (−1, 1).
    """
    up, down = np.asarray(gained, dtype=float), np.asarray(lost, dtype=float)
    linear = -up - down + (2 * n - up + down) * difference
    constant = -down * difference * (1 - difference)
    # Likelihood's estimate of the probability of a loss, given the difference: the larger root of a quadratic.
    loss = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * loss + difference * (1 - difference))
    distance = up - down - n * difference
    return np.divide(distance, np.sqrt(np.maximum(variance, 0.0)), out=np.zeros_like(distance), where=distance != 0)


def tango_interval(gained: int, lost: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Both ends of the score interval for the difference (after − before), as fractions within [−1, 1].

    Raises:
        StatisticsError: counts that are none, or a confidence outside (0, 1).
    """
    if n < 1 or min(gained, lost) < 0 or gained + lost > n or not 0 < confidence < 1:
        raise StatisticsError(
            "A paired difference needs counts of one set of prompts and a confidence between 0 and 1",
            got=f"{gained} gained and {lost} lost of {n}, confidence {confidence}",
        )
    z = float(norm.ppf(0.5 + confidence / 2))
    estimate = (gained - lost) / n

    def beyond(difference: float, side: float) -> float:
        return float(tango_statistic(gained, lost, n, difference)) - side * z

    low = -1.0 if estimate == -1 else brentq(beyond, -1 + _EDGE, estimate, args=(1.0,), xtol=1e-14)
    high = 1.0 if estimate == 1 else brentq(beyond, estimate, 1 - _EDGE, args=(-1.0,), xtol=1e-14)
    return float(low), float(high)


def prompts_needed(flips: float, margin: float, *, power: float = 0.8) -> int:
    """Prompts with which `held` is the answer at `power`, where no rate changes and a share `flips` flips either way.

    Raises:
        StatisticsError: shares outside their range.
    """
    if not (0 <= flips <= 1 and 0 < margin < 1 and 0 < power < 1):
        raise StatisticsError("Prompts needed need shares", got=f"flips {flips}, margin {margin}, power {power}")
    enough = 1
    while _power_to_hold(enough, flips, margin) < power:
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if _power_to_hold(middle, flips, margin) < power:
            too_few = middle
        else:
            enough = middle
    return enough


def _power_to_hold(n: int, flips: float, margin: float) -> float:
    """Probability of `held` with `n` prompts of which each flips with probability `flips`, to either side alike."""
    z = norm.ppf(0.5 + ONE_SIDED / 2)
    law = binom(n, flips)
    changed = np.arange(int(law.ppf(1e-9)), int(law.ppf(1 - 1e-9)) + 1)
    # The largest number of losses that is still held, by bisection for every number of flips at once.
    most, too_many = np.full(len(changed), -1), changed + 1
    while (too_many - most > 1).any():
        middle = (most + too_many) // 2
        held = tango_statistic(changed - np.maximum(middle, 0), np.maximum(middle, 0), n, -margin) > z
        held &= middle > most  # settled places stay
        most, too_many = np.where(held, middle, most), np.where(held | (middle == most), too_many, middle)
    return float((law.pmf(changed) * binom.cdf(most, changed, 0.5)).sum())
