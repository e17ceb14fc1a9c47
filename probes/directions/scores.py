"""How well a direction tells two classes apart: AUROC with its interval, separation, accuracy, calibration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit
from scipy.stats import norm, rankdata

_BINS = 10
_HALVINGS = 60


def auroc(scores: Float[np.ndarray, "row probe"], positive: Bool[np.ndarray, " row"]) -> Float[np.ndarray, " probe"]:
    """Chance that a positive row scores above a negative one, ties counted half; NaN where a class is empty."""
    above, below = int(positive.sum()), int((~positive).sum())
    if not (above and below):
        return np.full(scores.shape[1], np.nan)
    ranks = rankdata(scores, axis=0)
    areas = (ranks[positive].sum(axis=0) - above * (above + 1) / 2) / (above * below)
    return np.where(np.isfinite(scores).all(axis=0), areas, np.nan)


def auroc_interval(
    values: Float[np.ndarray, " probe"],
    positive: int | Int[np.ndarray, " probe"],
    negative: int | Int[np.ndarray, " probe"],
    level: float = 0.95,
) -> tuple[Float[np.ndarray, " probe"], Float[np.ndarray, " probe"]]:
    """Interval of an AUROC from its value and the class sizes (Newcombe, Stat. Med. 2006, part 2, method 5).

    NaN where the value is. Both ends solve |θ̂ − θ| = z √V(θ) with V the variance of Hanley and McNeil for balanced
    classes, so that it stays within [0, 1] and has a width at a perfect score too.
    """
    z, star = norm.ppf(0.5 + level / 2), (np.asarray(positive) + negative) / 2 - 1
    known = np.isfinite(values)

    def margin(theta: np.ndarray) -> np.ndarray:
        spread = 1 + star * (1 - theta) / (2 - theta) + star * theta / (1 + theta)
        return z * np.sqrt(theta * (1 - theta) * spread / (np.asarray(positive, dtype=float) * negative))

    def end(bound: float) -> np.ndarray:
        near, far = values.astype(np.float64), np.full(len(values), bound)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            inside = np.abs(values - middle) <= margin(middle)
            near, far = np.where(inside, middle, near), np.where(inside, far, middle)
        return np.where(known, near, np.nan)

    return end(0.0), end(1.0)


def separation(scores: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"]) -> float:
    """d′: gap of the class means in units of the pooled standard deviation; NaN where there is no spread."""
    high, low = scores[positive], scores[~positive]
    spread = np.sqrt((high.var(ddof=1) + low.var(ddof=1)) / 2) if min(len(high), len(low)) > 1 else 0.0
    return float((high.mean() - low.mean()) / spread) if spread > 0 else float("nan")


def chance(
    projections: Float[np.ndarray, " row"], slope: float, threshold: float, prior: float
) -> Float[np.ndarray, " row"]:
    """Chance of the positive class in [0, 1], of two normal distributions of one spread.

    Args:
        projections: of the rows.
        slope: gap of the means ÷ variance; infinite where the classes have no spread, negative where the positive
            class lies below.
        threshold: halfway between the means.
        prior: log of the positive rows ÷ the negative ones.
    """
    beyond = projections - threshold
    if not np.isfinite(slope):
        return np.where(beyond == 0, expit(prior), (beyond * np.sign(slope) > 0).astype(np.float64))
    return expit(slope * beyond + prior)


def calibration_error(chance: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"]) -> float:
    """Expected calibration error over ten equal bins (Naeini et al., 2015): 0 is calibrated, in [0, 1]."""
    bins = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, weights=chance - positive)).sum() / len(chance))
