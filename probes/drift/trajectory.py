"""Drift of whole fine-tuning runs: one number per trajectory, and what several runs together say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from probes.drift.grams import Grams, Groups, Products, remembered_weights
from probes.errors import StatisticsError
from probes.statistics import Estimate

MIN_RUNS = 5
MIN_RELIABILITY = 0.5
PROMPT_LEVEL = "prompt-level only"
_NEARLY_ONE = 1 - 1e-12


@dataclass(frozen=True)
class RunLevel:
    """What the runs of one arm say together.

    Seeds of one history share the aligned model, the witness and the reversion direction, so that they are no
    independent trials of "does fine-tuning fall back?": there is an interval over them, and no p-value.

    Attributes:
        alignment: mean over runs (of Fisher z, as a cosine), with its interval where there are 5 runs or
            more.
        runs: how many.
        words: "prompt-level only" where there are fewer than 5 runs, else "over N runs".
    """

    alignment: Estimate
    runs: int
    words: str


def measurable(estimates: Mapping[str, Estimate]) -> str | None:
    """Why a displacement is not measurable at this checkpoint and layer; None where it is.

    It is not where its alignment is not defined (zero, or within the noise of a repeated pass), or where its
    two halves of the prompts disagree: reliability below 0.5.
    """
    for name in ("alignment_crossfit", "reliability"):
        if estimates[name].value is None:
            return estimates[name].reason
    reliability = estimates["reliability"].value or 0.0
    if reliability < MIN_RELIABILITY:
        return f"two halves of the prompts disagree on the displacement (reliability {reliability:.2f} < 0.5)"
    return None


def log_spaced(steps: Sequence[int], count: int = 8) -> list[int]:
    """Of the steps above 0, those nearest to `count` points with equal ratios, so that no decade weighs
    more.
    """
    positive = sorted({step for step in steps if step > 0})
    if not positive:
        return []
    targets = np.log(np.geomspace(positive[0], positive[-1], count))
    nearest = np.abs(np.log(positive)[None, :] - targets[:, None]).argmin(axis=1)
    return [positive[index] for index in sorted(set(nearest.tolist()))]


def trajectory(by_step: Mapping[int, Mapping[str, Estimate]], *, count: int = 8) -> tuple[Estimate, list[int]]:
    """The one number of a trajectory: mean Fisher z of the cross-fitted alignment over log-spaced steps.

    Args:
        by_step: `measure`'s estimates at one layer, by step.
        count: of log-spaced steps.

    Returns:
        The mean, turned back into a cosine, and the steps it was taken over. Steps whose displacement is not
        measurable are left out: early ones often have hardly moved. (That choice looks at the displacement
        alone, never at the direction, so it cannot favour either sign.)
    """
    steps = [step for step in log_spaced(list(by_step), count) if measurable(by_step[step]) is None]
    if not steps:
        return Estimate(None, reason="the displacement is not measurable at any step"), []
    cosines = [by_step[step]["alignment_crossfit"].value or 0.0 for step in steps]
    return Estimate(float(mean_cosine(cosines))), steps


def mean_cosine(cosines: np.ndarray | Sequence[float]) -> Any:
    """Cosines averaged over the first axis as Fisher z, and turned back: an array, or a number for one axis."""
    z = np.arctanh(np.clip(cosines, -_NEARLY_ONE, _NEARLY_ONE)).mean(axis=0)
    return np.tanh(z)


def crossfit_draws(
    aligned: Float[np.ndarray, "prompt d_model"],
    reversions: Float[np.ndarray, "prompt d_model"],
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    groups: Groups | None = None,
    bootstraps: int = 500,
    seed: int = 0,
) -> Float[np.ndarray, " draw"]:
    """Bootstrap draws over prompts of the cross-fitted alignment, for `over_runs`.

    The same seed draws the same prompts, so draws of several steps or runs may be averaged draw by draw.
    """
    own = np.ones(int(harmful.sum()), dtype=bool)
    inside = Grams.of(aligned[harmful], reversions[harmful], tuned[harmful], own)
    _, weights = remembered_weights(harmful, 0, bootstraps, (seed, 0xB007), groups)
    return Products.of(inside, *(half[:, harmful] for half in weights)).crossfit()


def over_runs(
    alignments: Float[np.ndarray, " run"],
    draws: Float[np.ndarray, "run draw"] | None = None,
    *,
    bootstraps: int = 2_000,
    seed: int = 0,
) -> RunLevel:
    """What several runs of one arm, each with its own seed, say together.

    Args:
        alignments: one number per run, as of `trajectory`.
        draws: bootstrap draws over prompts of the same number, per run; then runs are drawn first, prompts
            second.
        bootstraps: number of draws for the interval.
        seed: of them.

    Raises:
        StatisticsError: no run, or a number that is not finite.
    """
    if alignments.size == 0 or not np.isfinite(alignments).all():
        raise StatisticsError(
            "The runs cannot be taken together",
            got=f"{alignments.size} runs, {int((~np.isfinite(alignments)).sum())} without a number",
            expected="one number per run",
            next_step="Leave out runs that are not measurable, and say how many.",
        )
    runs, value = alignments.size, float(mean_cosine(alignments))
    if runs < MIN_RUNS:
        return RunLevel(Estimate(value), runs, PROMPT_LEVEL)
    low, high = _interval(alignments, draws, bootstraps, seed)
    return RunLevel(Estimate(value, low, high), runs, f"over {runs} runs")


def _interval(alignments: np.ndarray, draws: np.ndarray | None, bootstraps: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng([seed, 0x12D5])
    chosen = rng.integers(alignments.size, size=(bootstraps, alignments.size))
    z = np.arctanh(np.clip(alignments, -_NEARLY_ONE, _NEARLY_ONE))
    sampled = z[chosen]
    if draws is not None:
        # how far prompts alone move each run's number, moved onto the number itself
        moved = np.arctanh(np.clip(draws, -_NEARLY_ONE, _NEARLY_ONE))
        moved = moved - np.median(moved, axis=1, keepdims=True)
        sampled = sampled + moved[chosen, rng.integers(moved.shape[1], size=(bootstraps, 1))]
    low, high = np.quantile(np.tanh(sampled.mean(axis=1)), [0.025, 0.975])
    return float(low), float(high)
