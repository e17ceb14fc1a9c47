"""The refusal direction: harmful − harmless mean (Arditi et al., arXiv 2406.11717); `selection` chooses its place."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from probes.directions.estimator import ContrastName, Estimator, mean_difference
from probes.directions.reversion import Layers
from probes.directions.vectors import Vectors


def refusal_axis(aligned: Layers, harmful: Bool[np.ndarray, " prompt"]) -> Vectors:
    """r: harmful − harmless mean of the aligned model, where its activations were read, at each layer.

    Args:
        aligned: the aligned model's activations, layer by layer from 0, or [layer, prompt, d_model].
        harmful: which prompts are harmful.
    """
    raw = [mean_difference(rows.astype(np.float64), harmful) for rows in aligned]
    return Vectors.of_raw("refusal", tuple(range(len(raw))), np.stack(raw))


class Refusal(Estimator):
    """Mean over harmful prompts minus mean over harmless ones, at each layer of one checkpoint."""

    says = "harmful − harmless means (Arditi et al.)"
    contrast: ContrastName = "selected"  # type: ignore[misc]

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, positive)
