"""The mass-mean probe: the difference of means in the metric of the classes' own spread (Marks and Tegmark)."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import Estimator, mean_difference

_RELATIVE_ZERO = 1e-6  # singular values under this share of the largest count as none


class MassMean(Estimator):
    """Σ⁺(μ₊ − μ₋), Σ the pooled covariance within the classes (Marks and Tegmark, arXiv 2310.06824).

    Σ⁺ is the pseudo-inverse: what no prompt varies along has no part in it. With fewer prompts than dimensions that is
    most of the space; the shrinkage of `lda` is then the better choice.
    """

    says = "whitened difference of means"

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        gap = mean_difference(rows, positive)
        inside = rows - np.where(positive[:, None], rows[positive].mean(axis=0), rows[~positive].mean(axis=0))
        return pseudo_solved(inside, gap)


def pseudo_solved(centred: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Σ⁺ vector, Σ the covariance of centred rows."""
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    nonzero = sizes > _RELATIVE_ZERO * sizes[0]
    return ((axes[nonzero] @ vector) * len(centred) / sizes[nonzero] ** 2) @ axes[nonzero]
