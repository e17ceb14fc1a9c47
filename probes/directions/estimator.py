"""The interface of every method that finds a direction: `fit(activations, labels) -> self`, and then `direction_`.

What holds for all of them is settled here: float64, an order of the rows that does not depend on the order in which
they came (but for controls that deal by prompt), the guard against massive activations, the unit length, and the sign
(towards the positive class).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from sklearn.base import BaseEstimator

from probes.directions.scores import chance
from probes.errors import StatisticsError

ContrastName = Literal["prompts", "selected", "models", "displacements", "drift", "responses"]
Rows = Float[np.ndarray, "prompt d_model"]
Labels = Bool[np.ndarray, " prompt"]
_RELATIVE_ZERO = 1e-12
_TO_SIGMA = 1.4826  # median absolute deviation of a normal distribution → its standard deviation


class Estimator(BaseEstimator):
    """Finds one direction between two classes of activations.

    Attributes:
        says: what it is, in one sentence.
        contrast: which activations it is fitted on; see `probes.directions.contrast`.
        control: whether it is one that is not to find anything.
        spanned: whether it lies in the span of the rows and depends on their inner products alone, so that it may be
            found in as many coordinates as there are rows.
        drawn: whether it is drawn without a look at the classes. It then keeps the sign of its draw: turned towards
            the positive class it would be no draw any more, and a guard along it would push against nothing.
        dealt: whether every prompt is dealt something at random, a weight or a label, in the order in which prompts
            come. Rows are then left in that order: one that the rows decide changes with their rounding, and the
            draw with it.
        direction_: unit vector, towards the positive class unless `drawn`, [d_model], float64.
        norm_: gap between the class means along it, in the activations' own units; ≥ 0.
        raw_norm_: length of the vector that the method itself gave.
        threshold_: projection halfway between the class means.
        spread_: pooled standard deviation of the projections within the classes.
        line_: slope, threshold and prior log odds, which turn a projection into a chance (`scores.chance`).
    """

    says: ClassVar[str]
    contrast: ClassVar[ContrastName] = "prompts"
    control: ClassVar[bool] = False
    spanned: ClassVar[bool] = True
    drawn: ClassVar[bool] = False
    dealt: ClassVar[bool] = False

    def __init__(self, *, winsorise: float | None = None, seed: int = 0) -> None:
        """Choose options.

        Args:
            winsorise: clip each coordinate to so many typical spreads about its median (the function of that name);
                None leaves the activations as they are. A model with massive activations needs it; 3 is a good
                choice.
            seed: of whatever is drawn.
        """
        self.winsorise = winsorise
        self.seed = seed

    def fit(
        self,
        activations: Num[np.ndarray, "prompt d_model"],
        labels: Num[np.ndarray, " prompt"] | Labels,
        pairs: Int[np.ndarray, " prompt"] | None = None,
    ) -> Estimator:
        """Find the direction.

        Args:
            activations: one row a prompt.
            labels: true (or 1) for the positive class.
            pairs: equal numbers for two prompts that belong together, one of each class; only methods that look at
                differences of pairs use it, and without it they take every pair.

        Returns:
            Itself, fitted.

        Raises:
            StatisticsError: a class is empty, a number is not finite, or the classes do not differ.
        """
        rows, positive = _as_rows(activations, labels)
        if self.winsorise is not None:
            rows = winsorise(rows, self.winsorise)
        order = np.arange(len(rows)) if self.dealt else _order(rows)
        rows, positive = rows[order], positive[order]
        apart = mean_difference(rows, positive)
        if np.linalg.norm(apart) <= _RELATIVE_ZERO * np.abs(rows).max():
            raise StatisticsError("The classes do not differ, so no direction lies between them")
        vector = np.asarray(self._find(rows, positive, None if pairs is None else np.asarray(pairs)[order]))
        self.raw_norm_ = float(np.linalg.norm(vector))
        if not (np.isfinite(self.raw_norm_) and self.raw_norm_ > 0):
            raise StatisticsError("The method finds no direction", got=f"length {self.raw_norm_}")
        unit = vector / self.raw_norm_
        gap = float(apart @ unit)
        self.direction_ = -unit if gap < 0 and not self.drawn else unit
        self.norm_ = abs(gap)
        self._place_threshold(rows @ self.direction_, positive)
        return self

    def project(self, activations: Num[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, " prompt"]:
        """⟨h, direction_⟩ of each prompt, in the activations' own units."""
        return np.asarray(activations, dtype=np.float64) @ self.direction_

    def probability(self, activations: Num[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, " prompt"]:
        """Chance of the positive class where it is as frequent as it was among the fitted rows."""
        return chance(self.project(activations), *self.line_)

    def _find(self, rows: Rows, positive: Labels, pairs: Int[np.ndarray, " prompt"] | None) -> np.ndarray:
        """The vector, of any length and sign."""
        raise NotImplementedError

    def _place_threshold(self, projections: np.ndarray, positive: np.ndarray) -> None:
        high, low = projections[positive], projections[~positive]
        self.threshold_ = float(high.mean() + low.mean()) / 2
        freedom = max(1, len(projections) - 2)
        self.spread_ = float(np.sqrt((((high - high.mean()) ** 2).sum() + ((low - low.mean()) ** 2).sum()) / freedom))
        side = -1.0 if self.drawn and high.mean() < low.mean() else 1.0
        slope = side * (self.norm_ / self.spread_**2 if self.spread_ else float("inf"))
        self.line_ = (slope, self.threshold_, float(np.log(len(high) / len(low))))


def winsorise(rows: Rows, limit: float) -> Rows:
    """Rows with every coordinate clipped to `limit` typical spreads about its own median.

    The spread of a coordinate is its median absolute deviation, as a standard deviation; the typical one is the median
    over coordinates. So a coordinate that is a thousand times louder than the rest (massive activations, Sun et al.,
    arXiv 2402.17762) keeps its sign and no more weight than a loud ordinary one.

    Raises:
        StatisticsError: the limit is not positive, or more than half of the coordinates never change.
    """
    if not limit > 0:
        raise StatisticsError("A limit of spreads must be positive", got=limit)
    centre = np.median(rows, axis=0)
    typical = float(np.median(_TO_SIGMA * np.median(np.abs(rows - centre), axis=0)))
    if typical == 0:
        raise StatisticsError("More than half of the coordinates do not change from prompt to prompt")
    return centre + np.clip(rows - centre, -limit * typical, limit * typical)


def mean_difference(rows: Rows, positive: Labels) -> Float[np.ndarray, " d_model"]:
    """Mean of the positive rows minus that of the others."""
    return rows[positive].mean(axis=0) - rows[~positive].mean(axis=0)


def leading(rows: Float[np.ndarray, "row d_model"], count: int) -> Float[np.ndarray, "axis d_model"]:
    """The first `count` right singular vectors of rows (not centred), by the smaller of the two Gram matrices."""
    if rows.shape[1] <= rows.shape[0]:
        return np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :count].T
    values, vectors = np.linalg.eigh(rows @ rows.T)
    nonzero = np.flatnonzero(values > 1e-12 * max(values[-1], 1e-300))[::-1][:count]
    return (vectors[:, nonzero].T @ rows) / np.sqrt(values[nonzero])[:, None]


def differences(
    rows: Rows, positive: Labels, pairs: Int[np.ndarray, " prompt"] | None
) -> Float[np.ndarray, "pair d_model"]:
    """Positive minus negative of each pair; without pairs, of each positive row minus the mean of the negative ones.

    Raises:
        StatisticsError: a pair lacks one of its two.
    """
    if pairs is None:
        return rows[positive] - rows[~positive].mean(axis=0)
    high, low = (np.flatnonzero(positive), np.flatnonzero(~positive))
    high, low = high[np.argsort(pairs[high])], low[np.argsort(pairs[low])]
    if len(np.unique(pairs)) != len(high) or not np.array_equal(pairs[high], pairs[low]):
        raise StatisticsError("Each pair needs one prompt of either class")
    return rows[high] - rows[low]


def _as_rows(activations: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, positive = np.asarray(activations, dtype=np.float64), np.asarray(labels).astype(bool)
    if not (positive.any() and (~positive).any()):
        raise StatisticsError(
            "A direction lies between two classes", got=f"{int(positive.sum())} positive of {len(rows)}"
        )
    if not np.isfinite(rows).all():
        raise StatisticsError("Activations are not finite", got=f"{int((~np.isfinite(rows)).sum())} numbers")
    return rows, positive


def _order(rows: np.ndarray) -> np.ndarray:
    """An order that the rows themselves decide, so that sums and folds do not depend on the order they came in."""
    return np.argsort(rows @ np.random.default_rng(0).standard_normal(rows.shape[1]), kind="stable")
