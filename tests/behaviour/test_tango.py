"""Tango's interval: published worked examples, and its score test inverted by brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from probes.behaviour.tango import tango_interval, tango_statistic
from probes.errors import StatisticsError


def test_the_worked_example_of_tango_1998():
    # Section 6.1: 43 pairs effective both times, 1 with the standard treatment only; margin 10 points.
    z = float(tango_statistic(0, 1, 44, -0.1))
    assert z == pytest.approx(1.709, abs=5e-4)
    assert norm.sf(z) == pytest.approx(0.044, abs=5e-4)
    assert tango_interval(0, 1, 44, confidence=0.9)[0] == pytest.approx(-0.096, abs=5e-4)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "low", "high", "digits"),
    [
        (9, 3, 32, -0.027, 0.390, 3),  # Tango 1998
        (1, 7, 21, -0.517, -0.026, 3),  # Fagerland, Lydersen and Laake 2014: airway hyper-responsiveness
        (6, 16, 161, -0.1240, -0.0054, 4),  # the same authors 2017: response before and after consolidation therapy
    ],
)
def test_published_intervals(gained, lost, n, low, high, digits):
    assert np.round(tango_interval(gained, lost, n), digits).tolist() == [low, high]


def score_by_likelihood(gained, lost, n, difference):
    """The score statistic with the nuisance parameter found by maximising the likelihood."""
    same = n - gained - lost

    def minus_log_likelihood(loss):
        terms = [(gained, loss + difference), (lost, loss), (same, 1 - 2 * loss - difference)]
        return -sum(count * np.log(max(share, 1e-300)) for count, share in terms if count)

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    loss = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * loss + difference - difference**2)
    return (gained - lost - n * difference) / np.sqrt(variance)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(0, 0, 52), (0, 1, 44), (9, 3, 32), (2, 30, 64), (5, 5, 10), (0, 7, 9)]
)
def test_the_interval_inverts_the_score_test(gained, lost, n, confidence):
    low, high = tango_interval(gained, lost, n, confidence=confidence)
    z = norm.ppf(0.5 + confidence / 2)
    assert score_by_likelihood(gained, lost, n, low) == pytest.approx(z, abs=1e-4)
    assert score_by_likelihood(gained, lost, n, high) == pytest.approx(-z, abs=1e-4)
    for difference in np.linspace(-0.999, 0.999, 400):
        within = (
            abs(score_by_likelihood(gained, lost, n, difference)) <= z if difference != (gained - lost) / n else True
        )
        assert within == (low <= difference <= high) or min(abs(difference - low), abs(difference - high)) < 1e-3


def test_at_no_difference_it_is_mcnemars_statistic():
    for gained, lost in ((3, 9), (12, 1), (5, 5)):
        assert tango_statistic(gained, lost, 40, 0.0) == pytest.approx((gained - lost) / np.sqrt(gained + lost))


def test_without_flips_the_interval_is_known_in_closed_form():
    z = norm.ppf(0.95)
    for n in (1, 51, 52, 1000):
        low, high = tango_interval(0, 0, n, confidence=0.9)
        assert (-low, high) == pytest.approx((z**2 / (n + z**2),) * 2)


def test_swapping_before_and_after_turns_the_sign_and_the_ends_stay_within_bounds():
    for gained, lost, n in ((4, 1, 9), (0, 9, 9), (9, 0, 9), (0, 0, 1)):
        low, high = tango_interval(gained, lost, n)
        assert tango_interval(lost, gained, n) == pytest.approx((-high, -low))
        assert -1 <= low <= (gained - lost) / n <= high <= 1


@pytest.mark.parametrize(
    ("gained", "lost", "n", "confidence"), [(1, 1, 1, 0.9), (-1, 0, 3, 0.9), (0, 0, 0, 0.9), (0, 0, 9, 1.0)]
)
def test_counts_that_are_none_are_refused(gained, lost, n, confidence):
    with pytest.raises(StatisticsError):
        tango_interval(gained, lost, n, confidence=confidence)
