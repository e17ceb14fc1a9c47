"""Logistic regression with an L2 penalty, its weight found by cross-validation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from sklearn.model_selection import StratifiedKFold

from probes.directions.estimator import Estimator

STRENGTHS = tuple(10.0**power for power in range(-2, 6))
_FOLDS = 5
_STEPS = 2000
_TOLERANCE = 1e-6
_DECREASE = 2.0**-11  # of the loss, in units of what the gradient promises, with which a step is taken
_HALVINGS = 21
_SMALLEST = 1e-12  # curvature along the intercept, which has no penalty


class Logistic(Estimator):
    """Weights of a logistic regression on centred rows of mean square length 1; its intercept has no penalty.

    By the representer theorem the weights lie in the span of the rows. They are found by Newton's method, as
    scikit-learn's `newton-cholesky` does it, and equal it to seven digits, without its checks of each small problem.

    Attributes:
        strength_: inverse weight of the penalty (scikit-learn's C), as given or as found.
    """

    says = "logistic regression, cross-validated"

    def __init__(self, *, strength: float | None = None, winsorise: float | None = None, seed: int = 0) -> None:
        """Choose options.

        Args:
            strength: C; None takes the one of `STRENGTHS` with the least log loss in five-fold cross-validation.
            winsorise: as of `Estimator`.
            seed: of the folds.
        """
        super().__init__(winsorise=winsorise, seed=seed)
        self.strength = strength

    def _find(self, rows: np.ndarray, positive: np.ndarray, pairs: np.ndarray | None) -> np.ndarray:
        del pairs
        centred = rows - rows.mean(axis=0)
        spread = float(np.sqrt((centred**2).sum(axis=1).mean()))
        if spread == 0:
            return np.zeros(rows.shape[1])
        values = centred / spread
        self.strength_ = self.strength if self.strength is not None else self._best_strength(values, positive)
        return _weights(values, positive, self.strength_)[:-1]

    def _best_strength(self, values: np.ndarray, positive: np.ndarray) -> float:
        folds = min(_FOLDS, int(positive.sum()), int((~positive).sum()))
        if folds < 2:
            return 1.0
        losses = np.zeros(len(STRENGTHS))
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(values, positive):
            weights = None  # each strength begins where the last one ended
            for place, strength in enumerate(STRENGTHS):
                weights = _weights(values[train], positive[train], strength, weights)
                logits = values[test] @ weights[:-1] + weights[-1]
                losses[place] += np.logaddexp(0, np.where(positive[test], -logits, logits)).mean()  # log loss
        return STRENGTHS[int(losses.argmin())]


def _weights(
    values: np.ndarray, positive: np.ndarray, strength: float, start: np.ndarray | None = None
) -> Float[np.ndarray, " coordinate_and_intercept"]:
    """Weights and intercept of the least mean log loss + |weights|² / (2 · strength · rows).

    Classes that can be told apart without error are approached for ever; the direction has long settled.
    """
    rows = np.column_stack([values, np.ones(len(values))])
    penalty = np.full(rows.shape[1], 1 / (strength * len(rows)))
    penalty[-1] = 0.0
    signs = np.where(positive, 1.0, -1.0)

    def loss(margins: np.ndarray, weights: np.ndarray) -> float:
        return float(np.logaddexp(0, -margins).mean() + penalty @ weights**2 / 2)

    weights, decrement = np.zeros(rows.shape[1]) if start is None else start, np.inf
    margins = signs * (rows @ weights)
    for _ in range(_STEPS):
        wrong = expit(-margins)  # the chance that is given to the other class
        gradient = penalty * weights - (signs * wrong) @ rows / len(rows)
        if max(np.abs(gradient).max(), decrement / 2) <= _TOLERANCE:
            break
        curvature = (rows.T * (wrong * (1 - wrong) / len(rows))) @ rows
        curvature.flat[:: len(penalty) + 1] += np.maximum(penalty, _SMALLEST)  # its diagonal
        step = np.linalg.solve(curvature, -gradient)
        decrement, along, before = -float(gradient @ step), signs * (rows @ step), loss(margins, weights)
        for share in 0.5 ** np.arange(_HALVINGS):
            if loss(margins + share * along, weights + share * step) <= before - share * _DECREASE * decrement:
                break
        else:
            break  # no step makes it less: rounding is reached
        weights, margins = weights + share * step, margins + share * along
    return weights
