"""Least-squares concept erasure: the smallest change after which no linear probe finds the classes."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import Estimator, mean_difference
from probes.directions.mass_mean import pseudo_solved


class Leace(Estimator):
    """What LEACE reads and what it takes away (Belrose et al., arXiv 2306.03819), for two classes.

    Erasing is h ← h − e ⟨r, h − μ⟩ / ⟨r, e⟩ with e the cross-covariance of activations and label, which is the mean
    difference, and r = Σ⁺e, Σ the covariance of all rows. r is the mass-mean direction, by Sherman and Morrison.

    Attributes:
        direction_: r̂, whose reading is erased.
        erased_: ê, along which activations are moved.
        mean_: μ.
    """

    says = "what LEACE reads and erases"

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        self.mean_ = rows.mean(axis=0)
        gap = mean_difference(rows, positive)
        self.erased_ = gap / (np.linalg.norm(gap) or 1.0)
        return pseudo_solved(rows - self.mean_, gap)

    def erase(self, activations: np.ndarray) -> np.ndarray:
        """Activations [prompt, d_model] without the concept; of the fitted rows, none is left that is linear."""
        read = (np.asarray(activations, dtype=np.float64) - self.mean_) @ self.direction_
        return activations - np.outer(read / (self.direction_ @ self.erased_), self.erased_)
