"""Rates and means with their intervals."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest, norm

from probes.errors import StatisticsError
from probes.statistics import Estimate


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """A rate with Wilson's score interval, which stays within [0, 1] and has width at 0 and 1 (Wilson, 1927).

    Raises:
        StatisticsError: counts that are none, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= n or not 0 < confidence < 1:
        raise StatisticsError(
            "A rate needs 0 ≤ successes ≤ n and a confidence between 0 and 1",
            got=f"{successes} of {n}, confidence {confidence}",
        )
    if n == 0:
        return Estimate(None, reason="nothing was counted")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def mean_per_token(
    sums: Float[np.ndarray, " item"], tokens: Int[np.ndarray, " item"], *, confidence: float = 0.95
) -> Estimate:
    """Σ sums / Σ tokens, with the interval that items drawn at random give it (linearised ratio, normal).

    Raises:
        StatisticsError: no items, or an item without tokens.
    """
    if len(sums) == 0 or (tokens <= 0).any():
        raise StatisticsError("A mean per token needs items that have tokens", got=f"{len(sums)} items")
    mean = float(sums.sum() / tokens.sum())
    n = len(sums)
    if n == 1:
        return Estimate(mean)
    residual = sums - mean * tokens
    error = math.sqrt(n / (n - 1) * float((residual**2).sum())) / float(tokens.sum())
    return Estimate(mean, mean - _z(confidence) * error, mean + _z(confidence) * error)


def mean_score(scores: Float[np.ndarray, " prompt"], *, confidence: float = 0.95) -> Estimate:
    """Mean over prompts with its normal interval; none with a single prompt.

    Raises:
        StatisticsError: no prompts.
    """
    return mean_per_token(scores, np.ones(len(scores), dtype=np.int64), confidence=confidence)


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise StatisticsError("A confidence lies between 0 and 1", got=confidence)
    return float(norm.ppf(0.5 + confidence / 2))
