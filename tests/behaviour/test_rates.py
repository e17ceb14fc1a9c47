"""Intervals against an independent implementation and by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from probes.behaviour import mean_per_token, wilson
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
