"""Nulls made from other checkpoints: a drift that is only noise on the weights, a witness that is none.

They answer the objection that the activation-level nulls cannot: displacement and reversion both start from
the aligned model, so any perturbation that shrinks what is special about it points "back". Three unrelated
points give a cosine of 0.5. A sham drift shares that endpoint, and the perturbation's size, with the real
one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from probes.drift import crossfit
from probes.nulls.draws import NullDraws

_STATISTIC = "alignment_crossfit"


def sham_drift(observed: float, cosines: Float[np.ndarray, " draw"]) -> NullDraws:
    """The alignment against that of aligned checkpoints with noise of the same norm, tensor by tensor.

    Args:
        observed: the checkpoint's `alignment_crossfit`.
        cosines: the shams', as of `sham_drift_cosines`; 19 are the fewest that can give p = 0.05.
    """
    return NullDraws("sham_drift", _STATISTIC, observed, np.asarray(cosines, dtype=float))


def sham_witness(observed: float, cosines: Float[np.ndarray, " draw"]) -> NullDraws:
    """The alignment against that towards checkpoints that are no witness (a cosine has no need of equal
    norms).

    Args:
        observed: the checkpoint's `alignment_crossfit`.
        cosines: the same displacement's alignment with each sham witness, as of `sham_witness_cosines`.
    """
    return NullDraws("sham_witness", _STATISTIC, observed, np.asarray(cosines, dtype=float))


def sham_drift_cosines(
    aligned: Float[np.ndarray, "prompt d_model"],
    witness: Float[np.ndarray, "prompt d_model"],
    shams: Iterable[Float[np.ndarray, "prompt d_model"]],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    splits: int = 50,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Float[np.ndarray, " draw"]:
    """Cross-fitted alignment of every sham drift with the true reversion direction.

    Args:
        aligned: the aligned model's activations.
        witness: the witness's.
        shams: activations of the noised copies, one after the other, so that not all need to be in memory.
        harmful: which prompts are harmful.
        splits: as for `drift.measure`.
        seed: as for `drift.measure`.
        groups: as for `drift.measure`.
    """
    return np.array(
        [crossfit(aligned, witness, sham, harmful, splits=splits, seed=seed, groups=groups) for sham in shams]
    )


def sham_witness_cosines(
    aligned: Float[np.ndarray, "prompt d_model"],
    shams: Iterable[Float[np.ndarray, "prompt d_model"]],
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    splits: int = 50,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Float[np.ndarray, " draw"]:
    """Cross-fitted alignment of the true displacement with the direction towards every sham witness."""
    return np.array(
        [crossfit(aligned, sham, tuned, harmful, splits=splits, seed=seed, groups=groups) for sham in shams]
    )
