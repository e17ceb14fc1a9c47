"""A verdict on plain arrays of activations, of any origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped

from probes.directions.estimator import mean_difference
from probes.drift import check, measure, too_few_groups
from probes.errors import StatisticsError
from probes.nulls import (
    LayerNulls,
    OffRefusalAxis,
    Resampling,
    Shams,
    look_off_refusal_axis,
    measure_power,
)
from probes.nulls.power import ALIGNMENT
from probes.statistics import NullResult
from probes.verdict.evidence import ALPHA, Evidence
from probes.verdict.ladder import Verdict, judge

Activations = Num[np.ndarray, "_ _"]  # [prompt, d_model]; `assess` itself says what does not fit


@dataclass(frozen=True)
class Findings:
    """Everything that the ladder asks of one checkpoint at one layer, but for what it measures itself.

    Attributes:
        nulls: tests, each with its power, then the profile.
        power_together: that all tests of level 4 reject at once at the declared alternative.
        off_refusal_axis: whether the return is more than motion along the refusal axis.
    """

    nulls: tuple[NullResult, ...]
    power_together: float | None
    off_refusal_axis: OffRefusalAxis


def assess(
    aligned: Activations,
    witness: Activations,
    tuned: Activations,
    harmful: Bool[np.ndarray, " _"],
    *,
    groups: Shaped[np.ndarray, " _"] | Sequence[object] | None = None,
    shams: Sequence[Activations] | None = None,
    layer: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge one fine-tuned checkpoint from activations at one layer and position.

    Without judged behaviour of intervention arms the highest level is 5, and without shams it is 3: weight noise is
    the test that answers the shared endpoint.

    Args:
        aligned: the aligned model's activations.
        witness: those of the earlier, more permissive model, on the same prompts.
        tuned: those of the fine-tuned model.
        harmful: which prompts are harmful; at least 16 are, and 16 are not.
        groups: the topic of each prompt; prompts of one topic are then never taken for independent.
        shams: activations of the aligned model under weight noise that moves them as far as the fine-tuning did; 19
            at the least, 39 or more are better. They serve both sham tests.
        layer: where the activations were read, a label only.
        seed: of folds, bootstraps and draws.

    Returns:
        The verdict: `.level`, `.name`, `.decided_by`, `.p`, `.power`, `.text`, `.off_refusal_axis`, `.profile`.

    Raises:
        StatisticsError: the arrays do not belong together, there are too few groups, or nothing can be computed.
    """
    topics = None if groups is None else np.asarray(groups)
    _check_shapes(aligned, (witness, tuned, *(shams or ())), harmful, topics)
    if few := too_few_groups(harmful, topics):
        raise StatisticsError(f"Nothing can be tested by group: {few}", next_step="Leave the groups out, or give more.")
    start = aligned.astype(np.float64)
    check(start, witness, tuned, harmful)
    estimates = measure(start, witness, tuned, harmful, groups=topics, seed=seed)
    tests = LayerNulls(
        start, witness, between(start, witness, harmful), Resampling.of(harmful, groups=topics, seed=seed)
    )
    moved = None if not shams else Shams.of(tests, tuned, (sham[harmful] - start[harmful] for sham in shams))
    findings = hold_against_nulls(tests, tuned, mean_difference(start, harmful), moved)
    return judge(
        Evidence(
            arm="",
            seed=seed,
            layer=layer,
            estimates=estimates,
            nulls=findings.nulls,
            power_together=findings.power_together,
            off_refusal_axis=findings.off_refusal_axis,
        )
    )


def between(
    aligned: Activations, witness: Activations, harmful: Bool[np.ndarray, " prompt"]
) -> Float[np.ndarray, " d_model"]:
    """The reversion direction of plain arrays, from aligned towards witness, not normalised."""
    count = int(harmful.sum())
    rows = np.concatenate([witness[harmful], aligned[harmful]]).astype(np.float64)
    return mean_difference(rows, np.arange(2 * count) < count)


def hold_against_nulls(
    layer: LayerNulls,
    tuned: Float[np.ndarray, "prompt d_model"],
    refusal: Float[np.ndarray, " d_model"] | None,
    shams: Shams | None,
    *,
    alignment: float = ALIGNMENT,
    alpha: float = ALPHA,
) -> Findings:
    """Every test of one checkpoint with its power, the profile, and the return off the refusal axis.

    Args:
        layer: the tests of the layer.
        tuned: the checkpoint's activations.
        refusal: the refusal axis; None where the reversion is that axis by construction (an ablated witness).
        shams: of the checkpoint; None where none were drawn.
        alignment: the declared alternative.
        alpha: the level of every test.
    """
    nulls = layer.against(tuned)
    if shams is not None:
        nulls |= shams.tests(layer.observe(layer.grams(tuned).only_harmful()))
    power = measure_power(layer, tuned, shams, alignment=alignment, alpha=alpha)
    axis = OffRefusalAxis("not_defined", reason="the witness is the aligned model without its refusal axis")
    if refusal is not None:
        axis = look_off_refusal_axis(layer, tuned, refusal, alignment=alignment, alpha=alpha)
    return Findings(tuple(null.result(power.tests.get(name)) for name, null in nulls.items()), power.together, axis)


def _check_shapes(
    aligned: np.ndarray, arrays: Sequence[np.ndarray], harmful: np.ndarray, groups: np.ndarray | None
) -> None:
    if len({rows.shape for rows in (aligned, *arrays)}) > 1 or len(harmful) != len(aligned):
        raise StatisticsError(
            "The arrays do not belong together",
            got=", ".join(str(rows.shape) for rows in (aligned, *arrays[:3])) + f", mask of {len(harmful)}",
            expected="[prompt, d_model], the same prompts in the same order in every array",
        )
    if groups is not None and len(groups) != len(aligned):
        raise StatisticsError(
            "The groups do not fit the prompts", got=len(groups), expected=f"{len(aligned)}, one for each prompt"
        )
