"""Nulls made from other checkpoints: a drift that is only noise on the weights, a witness that is none.

They answer the objection that the activation-level nulls cannot: displacement and reversion both start from
the aligned model, so any perturbation that shrinks what is special about it points "back". Three unrelated
points give a cosine of 0.5. A sham drift shares that endpoint, and the perturbation's size, with the real
one. One noise is one draw: it is scaled to every checkpoint of a trajectory, never drawn anew for a step (averaging
over steps would average the noise away), and the same draws serve as sham drifts and as sham witnesses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from probes.drift import cosine
from probes.nulls.draws import NullDraws
from probes.nulls.layer import LayerNulls

_STATISTIC = "alignment_crossfit"


def sham_drift(observed: float, cosines: Float[np.ndarray, " draw"]) -> NullDraws:
    """The alignment against that of aligned checkpoints with weight noise that moves the activations as far.

    Args:
        observed: the checkpoint's `alignment_crossfit`.
        cosines: the shams', each with the true reversion; 19 are the fewest that can give p = 0.05.
    """
    return NullDraws("sham_drift", _STATISTIC, observed, np.asarray(cosines, dtype=float))


def sham_witness(observed: float, cosines: Float[np.ndarray, " draw"]) -> NullDraws:
    """The alignment against that towards checkpoints that are no witness (a cosine has no need of equal
    norms).

    Args:
        observed: the checkpoint's `alignment_crossfit`.
        cosines: the same displacement's alignment with each sham in the place of the witness.
    """
    return NullDraws("sham_witness", _STATISTIC, observed, np.asarray(cosines, dtype=float))


@dataclass(frozen=True)
class Shams:
    """What sham checkpoints say of one checkpoint at one layer.

    Attributes:
        moves: mean displacement of each on the harmful prompts.
        drift: cross-fitted alignment of each with the true reversion, as of `drift.crossfit`.
        witness: the same of the checkpoint's displacement with each sham in the witness's place.
    """

    moves: Float32[np.ndarray, "sham d_model"]
    drift: Float[np.ndarray, " sham"]
    witness: Float[np.ndarray, " sham"]

    @classmethod
    def of(
        cls,
        layer: LayerNulls,
        tuned: Float[np.ndarray, "prompt d_model"],
        shams: Iterable[Float[np.ndarray, "harmful d_model"]],
    ) -> Shams:
        """Hold shams against the reversion and against a checkpoint.

        Args:
            layer: the tests of the layer.
            tuned: the checkpoint's activations.
            shams: displacements (sham - aligned) of the harmful prompts, one sham after the other.
        """
        inside = layer.harmful
        targets = [_half_means(layer, rows[inside]) for rows in (layer.back, tuned - layer.aligned)]
        moves, cosines = [], []
        for rows in shams:
            halves = _half_means(layer, rows)
            moves.append(rows.mean(axis=0))
            cosines.append([_crossfit(halves, target) for target in targets])
        drift, witness = np.array(cosines).T
        return cls(np.stack(moves).astype(np.float32), drift, witness)

    def tests(self, observed: float) -> dict[str, NullDraws]:
        """Both tests of a checkpoint with this cross-fitted alignment."""
        return {"sham_drift": sham_drift(observed, self.drift), "sham_witness": sham_witness(observed, self.witness)}


def _half_means(layer: LayerNulls, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean rows of the harmful prompts in the first halves of the splits, and in the second."""
    first, second = layer.halves
    return first @ rows, second @ rows


def _crossfit(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    products = [
        cosine(*(np.einsum("sd,sd->s", *pair) for pair in ((left, right), (left, left), (right, right))))
        for left, right in zip(one, other[::-1], strict=True)
    ]
    return float(np.mean(products))
