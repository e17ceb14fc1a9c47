"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import Estimator, mean_difference
from probes.nulls.gaussian import Spectrum


class Lda(Estimator):
    """Σ⁻¹(μ₊ − μ₋), Σ the covariance within the classes after shrinkage towards a multiple of the identity.

    The same direction as scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=…)`, but Σ is never
    formed: at width 4096 and 256 prompts it takes milliseconds.

    Attributes:
        shrinkage_: weight of the identity, in [0, 1], as given or as found.
    """

    says = "linear discriminant, Ledoit-Wolf"
    spanned = False  # the shrinkage depends on the width; its cost does not

    def __init__(self, *, shrinkage: float | None = None, winsorise: float | None = None, seed: int = 0) -> None:
        """Choose options.

        Args:
            shrinkage: weight of the identity; None is Ledoit and Wolf's (2004).
            winsorise: as of `Estimator`.
            seed: unused.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.shrinkage = shrinkage

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        spectrum = Spectrum.of(rows, positive, shrinkage=self.shrinkage)
        self.shrinkage_ = spectrum.shrinkage
        return spectrum.solve(mean_difference(rows, positive))
