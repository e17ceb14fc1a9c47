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
    """Displacements of sham checkpoints at one layer, as means over the harmful prompts and over their halves.

    Attributes:
        layer: the tests of that layer.
        whole: mean displacements.
        halves: those of the first halves of the splits, and of the second.
    """

    layer: LayerNulls
    whole: Float32[np.ndarray, "sham d_model"]
    halves: tuple[Float32[np.ndarray, "split sham d_model"], Float32[np.ndarray, "split sham d_model"]]

    @classmethod
    def of(cls, layer: LayerNulls, moved: Iterable[Float[np.ndarray, "harmful d_model"]]) -> Shams:
        """Take the means.

        Args:
            layer: the tests of the layer.
            moved: displacements (sham - aligned) of the harmful prompts, one sham after the other.
        """
        weights = np.concatenate(layer.halves).astype(np.float32)
        means, whole = [], []
        for rows in moved:
            means.append(weights @ rows.astype(np.float32))
            whole.append(rows.mean(axis=0))
        splits, both = len(layer.halves[0]), np.stack(means, axis=1)
        return cls(layer, np.stack(whole).astype(np.float32), (both[:splits], both[splits:]))

    def drift_cosines(self) -> Float[np.ndarray, " sham"]:
        """Cross-fitted alignment of every sham with the true reversion, as of `drift.crossfit`."""
        return self._cosines(self.layer.back[self.layer.harmful])

    def witness_cosines(self, tuned: Float[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, " sham"]:
        """Cross-fitted alignment of a checkpoint's displacement with every sham in the witness's place."""
        return self._cosines((tuned - self.layer.aligned)[self.layer.harmful])

    def _cosines(self, rows: np.ndarray) -> np.ndarray:
        sums = np.zeros(len(self.whole))
        for shams, weights in zip(self.halves, self.layer.halves[::-1], strict=True):
            means = (weights @ rows).astype(np.float32)
            with np.errstate(divide="ignore", invalid="ignore"):
                lengths = np.linalg.norm(shams, axis=2) * np.linalg.norm(means, axis=1)[:, None]
                sums += (np.einsum("skd,sd->sk", shams, means) / lengths).mean(axis=0, dtype=float)
        return sums / 2
