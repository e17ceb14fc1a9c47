"""Rates and means with their intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class JudgeAccuracy:
    """How a judge did on answers of other models that people had labelled.

    Attributes:
        positives: answers that people say are of the kind in question, such as refusals.
        positives_seen: those of them that the judge says are; their share is the sensitivity.
        negatives: answers that people say are not.
        negatives_seen: those of them that the judge says are not; their share is the specificity.
    """

    positives: int
    positives_seen: int
    negatives: int
    negatives_seen: int

    def __post_init__(self) -> None:
        if not (0 <= self.positives_seen <= self.positives and 0 <= self.negatives_seen <= self.negatives):
            raise StatisticsError("A judge cannot be right more often than it was asked", got=self)
        if not (self.positives and self.negatives):
            raise StatisticsError("A judge's accuracy needs answers of both kinds", got=self)


def corrected_rate(successes: int, n: int, judge: JudgeAccuracy, *, confidence: float = 0.95) -> Estimate:
    """A rate corrected for the judge's errors, with the uncertainty of those (`Estimate` without a value: not defined).

    The estimate is Rogan and Gladen's (American Journal of Epidemiology 107, 1978), the interval Lang and Reiczigel's
    (Preventive Veterinary Medicine 113, 2014, equations 6, 7, 15 to 17), within [0, 1].

    Args:
        successes: answers that the judge says are of the kind in question.
        n: answers judged.
        judge: its sensitivity and specificity, as counts.
        confidence: of the interval.

    Raises:
        StatisticsError: counts that are none, or a confidence outside (0, 1).
    """
    if wilson(successes, n, confidence=confidence).value is None:
        return Estimate(None, reason="nothing was counted")
    sensitivity, specificity = judge.positives_seen / judge.positives, judge.negatives_seen / judge.negatives
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return Estimate(None, reason="not defined: the judge tells them no better than chance")
    rate = (successes / n + specificity - 1) / youden
    if not 0 <= rate <= 1:
        return Estimate(None, reason=f"not defined: the corrected rate would be {rate:.2f}, outside 0 to 1")
    low, high = _lang_reiczigel(successes, n, judge, _z(confidence))
    return Estimate(rate, low, high)


def _lang_reiczigel(successes: int, n: int, judge: JudgeAccuracy, z: float) -> tuple[float, float]:
    # Every sample is shrunk a little: by z² / 2 successes of z², and by one of two.
    apparent, size = (successes + z * z / 2) / (n + z * z), n + z * z
    seen, positives = (judge.positives_seen + 1) / (judge.positives + 2), judge.positives + 2
    spared, negatives = (judge.negatives_seen + 1) / (judge.negatives + 2), judge.negatives + 2
    youden = seen + spared - 1
    if youden <= 0:
        return 0.0, 1.0
    rate = (apparent + spared - 1) / youden
    of_seen, of_spared = seen * (1 - seen) / positives, spared * (1 - spared) / negatives
    shift = 2 * z * z * (rate * of_seen - (1 - rate) * of_spared)
    spread = apparent * (1 - apparent) / size + rate**2 * of_seen + (1 - rate) ** 2 * of_spared
    half = z * math.sqrt(spread) / youden
    return max(rate + shift - half, 0.0), min(rate + shift + half, 1.0)


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
