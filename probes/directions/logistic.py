"""Logistic regression with an L2 penalty, its weight found by cross-validation."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from probes.directions.estimator import Estimator

STRENGTHS = tuple(10.0**power for power in range(-2, 6))
_FOLDS = 5
_STEPS = 2000


class Logistic(Estimator):
    """Weights of a logistic regression, scikit-learn's, on centred rows of mean square length 1.

    By the representer theorem the weights lie in the span of the rows.

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
        return _fit(_regression(self.strength_), values, positive).coef_[0]

    def _best_strength(self, values: np.ndarray, positive: np.ndarray) -> float:
        folds = min(_FOLDS, int(positive.sum()), int((~positive).sum()))
        if folds < 2:
            return 1.0
        losses = np.zeros(len(STRENGTHS))
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=self.seed).split(values, positive):
            regression = _regression(warm_start=True)  # each strength begins where the last one ended
            for place, strength in enumerate(STRENGTHS):
                regression.C = strength
                logits = _fit(regression, values[train], positive[train]).decision_function(values[test])
                losses[place] += np.logaddexp(0, np.where(positive[test], -logits, logits)).mean()  # log loss
        return STRENGTHS[int(losses.argmin())]


def _regression(strength: float = 1.0, *, warm_start: bool = False) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=_STEPS, tol=1e-6, solver="newton-cholesky", warm_start=warm_start)


def _fit(regression: LogisticRegression, values: np.ndarray, positive: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings(), config_context(assume_finite=True, skip_parameter_validation=True):
        # Classes that can be told apart without error are approached for ever; the direction has long settled.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regression.fit(values, positive)
