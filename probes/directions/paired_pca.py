"""The first principal component of the differences of pairs (representation reading)."""

from __future__ import annotations

import numpy as np

from probes.directions.estimator import Estimator, differences, leading, mean_difference


class PairedPca(Estimator):
    """Leading axis of pair differences, taken both ways round so that their mean is 0 (Zou et al., arXiv 2310.01405).

    The source draws the order within each pair at random; both orders at once is the same without the luck of the
    draw. Where pairs are not known, every positive prompt is paired with every negative one, in closed form.
    """

    says = "first component of pair differences"

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        if pairs is not None:
            return leading(differences(rows, positive, pairs), 1)[0]
        # Second moment of x − y over all pairs: both classes' covariances, and the square of the gap.
        sides = [(side - side.mean(axis=0)) / np.sqrt(len(side)) for side in (rows[positive], rows[~positive])]
        return leading(np.concatenate([*sides, mean_difference(rows, positive)[None]]), 1)[0]
