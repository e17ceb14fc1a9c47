"""Intervals against an independent implementation and by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from probes.behaviour import JudgeAccuracy, corrected_rate, mean_per_token, wilson
from probes.errors import StatisticsError


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 64), (64, 64), (13, 64), (32, 64), (1, 1000), (999, 1000)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_solves_its_score_equation_and_is_scipys(successes, n, confidence):
    ours = wilson(successes, n, confidence=confidence)
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ours.value == successes / n
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1
    z = norm.ppf(0.5 + confidence / 2)
    for bound in (ours.low, ours.high):
        distance = abs(ours.value - bound) - z * np.sqrt(bound * (1 - bound) / n)
        assert distance == pytest.approx(0, abs=1e-12)


def test_nothing_counted_has_no_rate():
    assert wilson(0, 0).value is None
    assert wilson(0, 0).reason


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_counts_that_are_none_are_refused(successes, n):
    with pytest.raises(StatisticsError):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(StatisticsError):
        wilson(1, 2, confidence=confidence)


def test_mean_per_token_weighs_items_by_their_length():
    estimate = mean_per_token(np.array([2.0, 8.0]), np.array([1, 4]))
    assert estimate.value == pytest.approx(2.0)
    assert estimate.low == pytest.approx(2.0)
    assert estimate.high == pytest.approx(2.0)


def test_its_interval_covers_the_truth_as_often_as_it_says():
    chance = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        tokens = chance.integers(3, 12, 60)
        sums = tokens * 1.5 + chance.normal(0, 2, 60) * np.sqrt(tokens)
        estimate = mean_per_token(sums, tokens)
        hits += estimate.low <= 1.5 <= estimate.high
    assert 0.91 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("sums", "tokens"), [([], []), ([1.0], [0])])
def test_items_without_tokens_are_refused(sums, tokens):
    with pytest.raises(StatisticsError):
        mean_per_token(np.array(sums, dtype=float), np.array(tokens, dtype=int))


ACCURACY = JudgeAccuracy(positives=200, positives_seen=180, negatives=250, negatives_seen=240)


def test_a_corrected_rate_is_rogan_and_gladens():
    estimate = corrected_rate(60, 128, ACCURACY)
    assert estimate.value == pytest.approx((60 / 128 + 0.96 - 1) / (0.9 + 0.96 - 1))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    raw = wilson(60, 128)
    assert estimate.high - estimate.low > raw.high - raw.low


def test_with_a_perfect_judge_the_interval_tends_to_agresti_and_coulls():
    perfect = JudgeAccuracy(10**9, 10**9, 10**9, 10**9)
    z = norm.ppf(0.975)
    middle = (30 + z**2 / 2) / (100 + z**2)
    half = z * np.sqrt(middle * (1 - middle) / (100 + z**2))
    estimate = corrected_rate(30, 100, perfect)
    assert estimate.value == pytest.approx(0.3)
    assert (estimate.low, estimate.high) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_the_corrected_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = total = 0
    for _ in range(1000):
        judged = rng.binomial(128, 0.4 * 0.85 + 0.6 * 0.1)
        judge = JudgeAccuracy(80, int(rng.binomial(80, 0.85)), 60, int(rng.binomial(60, 0.9)))
        estimate = corrected_rate(int(judged), 128, judge)
        if estimate.defined:
            total += 1
            hits += estimate.low <= 0.4 <= estimate.high
    assert total > 990
    assert 0.93 <= hits / total <= 0.985


@pytest.mark.parametrize(
    ("successes", "judge", "why"),
    [
        (1, JudgeAccuracy(50, 40, 50, 40), "outside 0 to 1"),
        (99, JudgeAccuracy(50, 40, 50, 40), "outside 0 to 1"),
        (50, JudgeAccuracy(50, 20, 50, 25), "no better than chance"),
    ],
)
def test_a_corrected_rate_that_is_none_is_not_defined(successes, judge, why):
    estimate = corrected_rate(successes, 100, judge)
    assert estimate.value is None
    assert estimate.reason.startswith("not defined")
    assert why in estimate.reason


@pytest.mark.parametrize("counts", [(0, 0, 5, 5), (5, 6, 5, 5), (5, 5, 0, 0)])
def test_an_accuracy_that_is_none_is_refused(counts):
    with pytest.raises(StatisticsError):
        JudgeAccuracy(*counts)
