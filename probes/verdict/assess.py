"""The verdict on plain arrays, of any origin: no run folder, no model, no checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from probes import drift
from probes.errors import StatisticsError
from probes.nulls import activation_nulls, sham_drift, sham_drift_cosines, sham_witness, sham_witness_cosines
from probes.verdict.ladder import Evidence, Verdict, judge

Activations = Float[np.ndarray, "prompt d_model"]


def assess(
    aligned: Activations,
    witness: Activations,
    tuned: Activations,
    harmful: Bool[np.ndarray, " label"],
    *,
    groups: np.ndarray | None = None,
    shams: Sequence[Activations] | None = None,
    layer: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Which level of the evidence ladder one displacement has earned (arXiv 2606.28525 and METHODS, section 3).

    Args:
        aligned: activations of the aligned model, one row a prompt.
        witness: the witness's on the same prompts.
        tuned: the fine-tuned checkpoint's.
        harmful: which prompts are harmful.
        groups: the topic of each prompt; None where prompts are independent.
        shams: activations of the aligned model under noise of the drift's size, one array a draw; they serve both sham
            tests. None leaves these untested.
        layer: a label for the text.
        seed: of folds, bootstraps and draws.

    Returns:
        The verdict: `.level` (1 to 5: without judged behaviour nothing is causal), `.name`, `.decided_by`, `.p`,
        `.power`, `.text`.

    Raises:
        StatisticsError: the arrays are not of one shape, not finite, or hold too few prompts of a class,
            or too few groups.
    """
    _check_shapes(aligned, witness, tuned, harmful)
    estimates = drift.measure(aligned, witness, tuned, harmful, seed=seed, groups=groups)
    nulls = activation_nulls(aligned, witness, tuned, harmful, seed=seed, groups=groups)
    observed = estimates["alignment_crossfit"].value
    if shams is not None and observed is not None:
        towards = sham_witness_cosines(aligned, shams, tuned, harmful, seed=seed, groups=groups)
        back = sham_drift_cosines(aligned, witness, shams, harmful, seed=seed, groups=groups)
        nulls += [sham_witness(observed, towards).result(), sham_drift(observed, back).result()]
    return judge(Evidence("tuned", 0, layer or 0, estimates, nulls))


def _check_shapes(aligned: np.ndarray, witness: np.ndarray, tuned: np.ndarray, harmful: np.ndarray) -> None:
    shapes = {array.shape for array in (aligned, witness, tuned)}
    if len(shapes) > 1 or aligned.ndim != 2 or harmful.shape != aligned.shape[:1]:
        raise StatisticsError(
            "The arrays do not belong together",
            got=", ".join(str(array.shape) for array in (aligned, witness, tuned, harmful)),
            expected="three arrays [prompt, d_model] and a mask [prompt]",
        )
