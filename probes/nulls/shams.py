"""Nulls made from other checkpoints: a drift that is only noise on the weights, a witness that is none.

They answer the objection that the activation-level nulls cannot: displacement and reversion both start from
the aligned model, so any perturbation that shrinks what is special about it points "back". Three unrelated
points give a cosine of 0.5. A sham drift shares that endpoint, and the perturbation's size, with the real
one. One noise is one draw: it is scaled to every checkpoint of a trajectory, never drawn anew for a step (averaging
over steps would average the noise away), and the same draws serve as sham drifts and as sham witnesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from probes.drift import cosine
from probes.nulls.catalogue import SHAMS
from probes.nulls.draws import NullDraws
from probes.nulls.layer import LayerNulls

_STATISTIC = "alignment_crossfit"
TOO_MANY = 0.1  # share of draws that may not come within 5 % of the distance
Rows = Float[np.ndarray, "harmful d_model"]
Halves = tuple[Float[np.ndarray, "split harmful"], Float[np.ndarray, "split harmful"]]


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


def why_no_reference(
    reached: Bool[np.ndarray, " sham"], farthest: Float[np.ndarray, " sham"]
) -> tuple[NullDraws, ...] | None:
    """Both tests without a p-value, where the shams are no reference; None where they are one.

    Whether weight noise of no scale moves the activations as far, or the search has missed the scale: nothing then
    answers the shared endpoint, so a level above 3 is not reached without them.

    Args:
        reached: whether a draw moves the activations as far, within 5 %.
        farthest: the longest displacement that its search has seen, in units of the checkpoint's.
    """
    most, missed = TOO_MANY * len(reached), int((~reached).sum())
    cannot = int((~reached & (farthest < 1)).sum())
    if missed <= most:
        return None
    reason = f"not defined: {cannot} of {len(reached)} draws of weight noise cannot move the activations as far"
    if cannot <= most:
        reason = f"the search missed the scale of {missed} of {len(reached)} draws of weight noise"
    return tuple(NullDraws(name, _STATISTIC, None, reason=reason) for name in SHAMS)


@dataclass(frozen=True)
class Sham:
    """One sham, held against the reversion and against a checkpoint.

    Attributes:
        moves: mean displacements of the harmful prompts in either half of the first split, whose noise is apart.
        drift: cross-fitted alignment with the true reversion, as of `drift.crossfit`.
        witness: the same of the checkpoint's displacement with the sham in the witness's place.
    """

    moves: Float[np.ndarray, "half d_model"]
    drift: float
    witness: float

    @classmethod
    def of(cls, sham: Rows, back: Rows, moved: Rows, halves: Halves) -> Sham:
        """Hold displacements of the harmful prompts against each other.

        Args:
            sham: of the sham (sham - aligned).
            back: of the witness.
            moved: of the checkpoint.
            halves: weights of the harmful prompts in the halves of the splits.
        """
        own = [half @ sham for half in halves]
        cosines = [_crossfit(own, [half @ rows for half in halves]) for rows in (back, moved)]
        return cls(np.stack([own[0][0], own[1][0]]), cosines[0], cosines[1])


def _crossfit(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    products = [
        cosine(*(np.einsum("sd,sd->s", *pair) for pair in ((left, right), (left, left), (right, right))))
        for left, right in zip(first, second[::-1], strict=True)
    ]
    return float(np.mean(products))


@dataclass(frozen=True)
class Shams:
    """What sham checkpoints say of one checkpoint at one layer; arrays of what `Sham` holds.

    Attributes:
        moves: mean displacements of either half.
        drift: alignments with the reversion.
        witness: alignments of the checkpoint with the shams.
    """

    moves: Float32[np.ndarray, "sham half d_model"]
    drift: Float[np.ndarray, " sham"]
    witness: Float[np.ndarray, " sham"]

    @classmethod
    def of(cls, layer: LayerNulls, tuned: Float[np.ndarray, "prompt d_model"], shams: Iterable[Rows]) -> Shams:
        """Hold shams against the reversion and against a checkpoint.

        Args:
            layer: the tests of the layer.
            tuned: the checkpoint's activations.
            shams: displacements (sham - aligned) of the harmful prompts, one sham after the other.
        """
        back, moved = layer.back[layer.harmful], (tuned - layer.aligned)[layer.harmful]
        drawn = [Sham.of(rows, back, moved, layer.halves) for rows in shams]
        return cls(
            np.stack([sham.moves for sham in drawn]).astype(np.float32),
            np.array([sham.drift for sham in drawn]),
            np.array([sham.witness for sham in drawn]),
        )

    def tests(self, observed: float) -> dict[str, NullDraws]:
        """Both tests of a checkpoint with this cross-fitted alignment."""
        return {"sham_drift": sham_drift(observed, self.drift), "sham_witness": sham_witness(observed, self.witness)}
