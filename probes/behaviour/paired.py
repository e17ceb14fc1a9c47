"""Two conditions on the same prompts or items: differences, exact tests, equivalence, and several runs at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from probes.behaviour.rates import mean_per_token
from probes.behaviour.tango import tango_interval
from probes.errors import StatisticsError
from probes.statistics import Estimate

FEW_RUNS = 5
_RESAMPLES = 2000


@dataclass(frozen=True)
class Paired:
    """A difference between two rates on the same prompts.

    Attributes:
        difference: rate after − rate before, with Tango's 95 % score interval.
        before: rate before, as a fraction.
        after: rate after.
        gained: prompts on which it holds after and did not before.
        lost: prompts on which it held before and does not after.
        n: all prompts.
        p: McNemar's exact two-sided p-value.
    """

    difference: Estimate
    before: float
    after: float
    gained: int
    lost: int
    n: int
    p: float


@dataclass(frozen=True)
class Equivalence:
    """Whether a cost stays within a margin that was declared in advance.

    Attributes:
        cost: mean after − before, with its 90 % interval: the two one-sided tests at 5 % in another form.
        margin: what was declared, in the units of the cost.
        p: the larger of the two one-sided p-values, for "as far off as the margin, or further".
        equivalent: whether p is below 0.05.
    """

    cost: Estimate
    margin: float
    p: float
    equivalent: bool


def paired_rates(before: Bool[np.ndarray, " prompt"], after: Bool[np.ndarray, " prompt_after"]) -> Paired:
    """Compare two rates prompt by prompt: McNemar's exact test (binomial on what changed), and Tango's interval.

    Raises:
        StatisticsError: not the same prompts, or none.
    """
    if before.shape != after.shape or not before.size:
        raise StatisticsError("A paired difference needs the same prompts", got=f"{before.size} and {after.size}")
    n, gained, lost = before.size, int((~before & after).sum()), int((before & ~after).sum())
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    difference = Estimate((gained - lost) / n, *tango_interval(gained, lost, n))
    return Paired(difference, float(before.mean()), float(after.mean()), gained, lost, n, float(p))


def equivalence(
    before: Float[np.ndarray, " item"],
    after: Float[np.ndarray, " item_after"],
    tokens: Int[np.ndarray, " item_tokens"],
    margin: float,
) -> Equivalence:
    """Two one-sided tests (TOST; Schuirmann, 1987) of the mean cost per token, paired by item.

    Args:
        before: summed loss of each item.
        after: the same items later.
        tokens: answer tokens of each item.
        margin: largest cost, up or down, that still counts as none; in nats per token.

    Raises:
        StatisticsError: not the same items, fewer than two, or a margin that is not positive.
    """
    if before.shape != after.shape or len(before) < 2 or not margin > 0:
        raise StatisticsError(
            "Equivalence needs the same items and a margin",
            got=f"{len(before)} and {len(after)} items, margin {margin}",
            expected="two items or more, a margin above 0",
        )
    cost = mean_per_token(after - before, tokens, confidence=0.9)
    value = float(cost.value or 0.0)
    error = (float(cost.high or 0.0) - value) / float(stats.norm.ppf(0.95))
    distance = margin - abs(value)
    p = float(stats.norm.sf(distance / error)) if error else float(distance <= 0)
    return Equivalence(cost, margin, p, p < 0.05)


def mean_over_runs(
    differences: Float[np.ndarray, "run prompt"], *, seed: int = 0, resamples: int = _RESAMPLES
) -> Estimate:
    """Mean difference over runs and prompts, with a 95 % bootstrap that draws runs first, then prompts.

    With fewer than five runs, drawing runs says nothing; only prompts are drawn, and `reason` says so.

    Raises:
        StatisticsError: no runs or no prompts.
    """
    if not differences.size:
        raise StatisticsError("A mean over runs needs runs and prompts", got=differences.shape)
    runs, prompts = differences.shape
    rng = np.random.default_rng(seed)
    few = runs < FEW_RUNS
    # How often each run and prompt was drawn; their product weighs the cells.
    run_draws = np.ones((resamples, runs)) if few else rng.multinomial(runs, np.full(runs, 1 / runs), resamples)
    prompt_draws = rng.multinomial(prompts, np.full(prompts, 1 / prompts), resamples)
    means = np.einsum("br,rp,bp->b", run_draws, differences, prompt_draws, optimize=True) / (runs * prompts)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(
        float(differences.mean()),
        float(low),
        float(high),
        reason="prompt-level only: fewer than 5 runs" if few else None,
    )
