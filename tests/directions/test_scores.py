"""Scores against scikit-learn, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from probes.directions.scores import auroc, auroc_interval, calibration_error, separation


def test_auroc_is_scikit_learns_with_ties_too():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=(60, 4)).astype(float)
    positive = rng.random(60) < 0.4
    expected = [roc_auc_score(positive, scores[:, place]) for place in range(4)]
    assert np.allclose(auroc(scores, positive), expected)
    assert np.isnan(auroc(scores, np.ones(60, dtype=bool))).all()
    scores[3, 1] = np.nan
    assert np.isnan(auroc(scores, positive)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
def test_the_interval_covers(apart):
    """At least nine of ten at a nominal 95 % (the law holds for many prompts), and not by being endless."""
    rng, per_class = np.random.default_rng(1), 48
    truth = norm.cdf(apart / np.sqrt(2))
    scores = rng.standard_normal((2 * per_class, 2000))
    scores[:per_class] += apart
    low, high = auroc_interval(auroc(scores, np.arange(2 * per_class) < per_class), per_class, per_class)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.99
    assert (high - low).mean() < 0.25


def test_a_perfect_score_has_an_interval_within_bounds():
    low, high = auroc_interval(np.array([1.0, 0.0, 0.5]), 20, 20)
    assert high[0] == 1.0
    assert 0.8 < low[0] < 1.0
    assert low[1] == 0.0
    assert low[2] == pytest.approx(1 - high[2])
    solved = np.array([low[0]])
    spread = 1 + 19 * (1 - solved) / (2 - solved) + 19 * solved / (1 + solved)
    assert abs(1 - solved) == pytest.approx(1.959964 * np.sqrt(solved * (1 - solved) * spread / 400), rel=1e-6)


def test_separation_by_hand():
    scores, positive = np.array([3.0, 5.0, 0.0, 2.0]), np.array([True, True, False, False])
    assert separation(scores, positive) == pytest.approx(3 / np.sqrt(2))
    assert np.isnan(separation(np.array([1.0, 1.0, 0.0, 0.0]), positive))


def test_calibration_by_hand():
    chance = np.array([0.05, 0.05, 0.95, 0.95])
    assert calibration_error(chance, np.array([False, False, True, True])) == pytest.approx(0.05)
    assert calibration_error(chance, np.array([False, True, True, True])) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0
