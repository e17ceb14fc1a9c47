"""The refusal direction: harmful − harmless mean (Arditi et al., arXiv 2406.11717); `selection` chooses its place."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import ContrastName, Estimator, mean_difference


class Refusal(Estimator):
    """Mean over harmful prompts minus mean over harmless ones, at each layer of one checkpoint."""

    says = "harmful − harmless means (Arditi et al.)"
    contrast: ContrastName = "selected"  # type: ignore[misc]

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, positive)
