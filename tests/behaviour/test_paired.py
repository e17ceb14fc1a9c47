"""Paired comparisons against hand-computed values, other implementations, and simulations of what they promise."""

import numpy as np
import pytest
from scipy.stats import binom

from probes.behaviour import equivalence, mean_over_runs, paired_rates
from probes.errors import StatisticsError


def answers(in_both, lost, gained, neither):
    before = np.array([True] * (in_both + lost) + [False] * (gained + neither))
    after = np.array([True] * in_both + [False] * lost + [True] * gained + [False] * neither)
    return before, after


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (1, 8), (10, 10), (3, 20)])
def test_mcnemar_is_twice_the_smaller_binomial_tail(lost, gained):
    rates = paired_rates(*answers(4, lost, gained, 6))
    tail = min(1.0, 2 * binom.cdf(min(lost, gained), lost + gained, 0.5))
    assert rates.p == pytest.approx(tail)
    assert (rates.lost, rates.gained) == (lost, gained)
    assert rates.difference.value == pytest.approx((gained - lost) / (10 + lost + gained))


def test_without_any_change_there_is_still_an_interval_around_nothing():
    rates = paired_rates(*answers(20, 0, 0, 0))
    assert rates.difference.value == 0
    assert rates.difference.low < 0 < rates.difference.high


def test_swapping_before_and_after_turns_the_sign():
    before, after = answers(9, 2, 7, 12)
    forth, back = paired_rates(before, after), paired_rates(after, before)
    assert forth.p == pytest.approx(back.p)
    assert forth.difference.low == pytest.approx(-back.difference.high)


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_paired_interval_covers_the_truth_as_often_as_it_says(shared):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        same = rng.random(80) < shared
        first, second = rng.random(80), rng.random(80)
        second = np.where(same, first, second)
        difference = paired_rates(first < 0.7, second < 0.4).difference
        hits += difference.low <= -0.3 <= difference.high
    assert 0.92 <= hits / 600 <= 0.99


def test_equivalence_holds_for_no_cost_and_not_for_a_cost_at_the_margin():
    rng = np.random.default_rng(1)
    tokens = rng.integers(3, 9, 60)
    before = tokens * 2.0
    noise = rng.normal(0, 0.05, 60)
    none = equivalence(before, before + noise, tokens, 0.05)
    assert none.equivalent
    assert none.cost.low > -0.05
    assert none.cost.high < 0.05
    at_margin = equivalence(before, before + 0.05 * tokens + noise - noise.sum() * tokens / tokens.sum(), tokens, 0.05)
    assert at_margin.p == pytest.approx(0.5, abs=1e-9)
    assert not at_margin.equivalent


def test_equivalence_is_wrongly_claimed_in_at_most_five_of_a_hundred():
    rng = np.random.default_rng(2)
    tokens = np.full(50, 5)
    wrong = [
        equivalence(np.zeros(50), rng.normal(0.5, 1.0, 50), tokens, 0.1).equivalent for _ in range(1000)
    ]  # the true cost, 0.5 nats an item of 5 tokens, is the margin itself
    assert np.mean(wrong) < 0.075


def test_clustering_widens_the_interval_where_runs_differ():
    rng = np.random.default_rng(3)
    runs = rng.normal(0.3, 0.3, (8, 1)) + rng.normal(0, 0.1, (8, 50))
    wide = mean_over_runs(runs)
    assert wide.reason is None
    assert wide.value == pytest.approx(runs.mean())
    spread = runs.mean(axis=1).std(ddof=0) / np.sqrt(8)
    assert (wide.high - wide.low) / 3.92 == pytest.approx(spread, rel=0.2)
    few = mean_over_runs(runs[:3])
    assert "prompt-level only" in few.reason
    assert few.high - few.low < wide.high - wide.low


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_rates(np.array([True]), np.array([True, False])),
        lambda: equivalence(np.zeros(3), np.zeros(3), np.ones(3, dtype=int), 0.0),
        lambda: equivalence(np.zeros(1), np.zeros(1), np.ones(1, dtype=int), 1.0),
        lambda: mean_over_runs(np.zeros((0, 3))),
    ],
)
def test_what_cannot_be_compared_is_refused(call):
    with pytest.raises(StatisticsError):
        call()
