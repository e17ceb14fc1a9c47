"""Directions that are not to find anything: what a found one is held against."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from probes.directions.estimator import ContrastName, Estimator, differences, leading, mean_difference
from probes.nulls.gaussian import Spectrum


class Isotropic(Estimator):
    """A direction drawn evenly from the sphere."""

    says = "a random direction"
    control = True
    spanned = False

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del positive, pairs
        return np.random.default_rng([self.seed, 0x150]).standard_normal((rows.shape[1],))


class CovarianceMatched(Estimator):
    """A direction drawn from N(0, Σ), Σ the Ledoit-Wolf covariance of the activations: as loud as they are."""

    says = "random, with the activations' spread"
    control = True
    spanned = False

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del positive, pairs
        return Spectrum.of(rows).draw(np.random.default_rng([self.seed, 0xC0]))


class ShuffledLabel(Estimator):
    """The mean difference between classes whose labels have been dealt out again at random."""

    says = "shuffled labels"
    control = True

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, np.random.default_rng([self.seed, 0x5F]).permutation(positive))


class TopDrift(Estimator):
    """The loudest axis of a checkpoint's own drift that is orthogonal to another direction, such as the reversion."""

    says = "loudest drift off the reversion"
    contrast: ContrastName = "drift"  # type: ignore[misc]
    control = True

    def __init__(
        self,
        *,
        off: Float[np.ndarray, " d_model"] | None = None,
        winsorise: float | None = None,
        seed: int = 0,
    ) -> None:
        """Choose options.

        Args:
            off: what it must be orthogonal to; None is nothing.
            winsorise: as of `Estimator`.
            seed: unused.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.off = off

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        moved = differences(rows, positive, pairs)
        length = 0.0 if self.off is None else float(np.linalg.norm(self.off))
        unit = np.zeros(rows.shape[1]) if self.off is None or length == 0 else self.off / length
        moved = moved - np.outer(moved @ unit, unit)
        found = leading(moved, 1)
        if not len(found) or not (moved**2).any():
            return np.zeros(rows.shape[1])
        return found[0] - (found[0] @ unit) * unit
