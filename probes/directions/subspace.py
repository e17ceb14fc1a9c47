"""A subspace in place of one direction: where the single prompts' differences lie."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import Estimator, differences, leading


class Subspace(Estimator):
    """The k leading right singular vectors of the prompts' differences, not centred: the mean is mostly the first.

    Attributes:
        basis_: orthonormal rows, [k, d_model]; `direction_` is the first, oriented.
    """

    says = "leading axis of single differences"

    def __init__(self, *, rank: int = 8, winsorise: float | None = None, seed: int = 0) -> None:
        """Choose options.

        Args:
            rank: k; fewer where the differences have fewer dimensions.
            winsorise: as of `Estimator`.
            seed: unused.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.rank = rank

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        self.basis_ = leading(differences(rows, positive, pairs), self.rank)
        return self.basis_[0]
