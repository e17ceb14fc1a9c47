"""The reversion direction and its difference-in-differences twin (Poppi and Lukas, arXiv 2606.28525)."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import ContrastName, Estimator, mean_difference


class Reversion(Estimator):
    """Mean of the witness's activations minus the checkpoint's own, on harmful prompts: the way back that is left."""

    says = "witness − this checkpoint, harmful"
    contrast: ContrastName = "models"  # type: ignore[misc]

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        return mean_difference(rows, positive)


class ReversionDid(Reversion):
    """The same difference of (harmful − harmless) means: what is common to all prompts cancels.

    It is the mean difference between harmful and harmless prompts of each prompt's own displacement to the witness.
    """

    says = "the same, less what harmless prompts do"
    contrast: ContrastName = "displacements"  # type: ignore[misc]
