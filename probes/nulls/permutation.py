"""Level 5: is the motion about harmful prompts? Labels dealt out anew, the difference in units of its standard error.

The statistic is the difference of harmful and harmless means over its Welch standard error, so that classes of
different size and spread do not count as a difference of means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from probes.drift import Grams
from probes.drift.inner_products import Factors, Gram, row_products
from probes.nulls.draws import NullDraws

STATISTIC = "did_studentised"
_AT_ONCE = 1 << 18  # numbers of a table of draws that the processor holds near itself
Labels = Bool[np.ndarray, " prompt"]


@dataclass(frozen=True)
class Permutations:
    """Labels dealt out anew, within pairs where there are pairs, else within groups, else group by group.

    Attributes:
        called: whether a unit is called harmful (1) or not (0), [permutation + 1, unit]; row 0 is the true labels.
        units: means that turn prompts into the units whose labels are dealt out, [unit, prompt]; None where these are
            the prompts themselves, else whole groups.
        blocks: the set of units within which labels change hands.
        arrangements: natural logarithm of how many different ones there are.
    """

    called: Float32[np.ndarray, "row unit"]
    units: Float[np.ndarray, "unit prompt"] | None
    blocks: Int[np.ndarray, " unit"]
    arrangements: float

    @classmethod
    def of(
        cls,
        harmful: Labels,
        groups: Int[np.ndarray, " prompt"] | None,
        pairs: Int[np.ndarray, " prompt"] | None,
        count: int,
        rng: np.random.Generator,
    ) -> Permutations:
        """Deal the labels out `count` times.

        Args:
            harmful: the true labels.
            groups: the topic of each prompt; None without topics.
            pairs: equal for the two prompts of a pair; a prompt that has no partner of the other class counts as
                unpaired. None without pairs.
            count: how many times.
            rng: of them.
        """
        blocks = _blocks(harmful, groups, pairs)
        mixed = _arrangements(harmful, blocks)
        if mixed > 0 or groups is None:
            return cls(_deal(harmful, blocks, count, rng), None, blocks, mixed)
        names, codes = np.unique(groups, return_inverse=True)
        units = (codes == np.arange(names.size)[:, None]).astype(np.float64)
        labels = units @ harmful > 0
        together = np.zeros(names.size, dtype=int)
        units /= units.sum(axis=1, keepdims=True)
        return cls(_deal(labels, together, count, rng), units, together, _arrangements(labels, together))

    def average(self, values: Float[np.ndarray, "prompt ..."]) -> Float[np.ndarray, "unit ..."]:
        """Values of prompts as values of units."""
        return values if self.units is None else self.units @ values

    def average_pairs(self, cross: Gram) -> Gram:
        """Inner products of prompts as inner products of units."""
        if isinstance(cross, Factors):
            return cast("Gram", Factors(self.average(cross.left), self.average(cross.right)))
        return self.average(self.average(cross).T).T

    def exchange(
        self, values: Float[np.ndarray, "prompt more"], rng: np.random.Generator
    ) -> Float[np.ndarray, "prompt more"]:
        """Values of prompts that change hands as the labels do; of whole groups, their means."""
        order = _orders(self.blocks, 1, rng)[0]
        if self.units is None:
            return values[order]
        means = self.units @ values
        return values + (self.units > 0).T @ (means[order] - means)


def _blocks(harmful: np.ndarray, groups: np.ndarray | None, pairs: np.ndarray | None) -> np.ndarray:
    """The set within which a prompt's label may change hands: its pair, else its group, else all prompts."""
    blocks = np.zeros(harmful.size, dtype=int) if groups is None else np.unique(groups, return_inverse=True)[1]
    if pairs is None:
        return blocks
    codes = np.unique(pairs, return_inverse=True)[1]
    whole = (np.bincount(codes) == 2) & (np.bincount(codes, harmful) == 1)
    return np.where(whole[codes], blocks.max() + 1 + codes, blocks)


def _arrangements(labels: np.ndarray, blocks: np.ndarray) -> float:
    """Logarithm of the number of ways to deal out the labels within the blocks."""
    from scipy.special import gammaln

    size, high = np.bincount(blocks), np.bincount(blocks, labels)
    return float((gammaln(size + 1) - gammaln(high + 1) - gammaln(size - high + 1)).sum().round(9))


def _deal(labels: np.ndarray, blocks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    called = labels[_orders(blocks, count + 1, rng)].astype(np.float32)
    called[0] = labels
    return called


def _orders(blocks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random orders of units that leave every unit in its block, [order, unit]."""
    orders = np.empty((count, blocks.size), dtype=int)
    orders[:, np.argsort(blocks, kind="stable")] = np.argsort(blocks + rng.random((count, blocks.size)), axis=1)
    return orders


def welch(
    called: Float32[np.ndarray, "row unit"], values: Float[np.ndarray, "unit ..."]
) -> Float[np.ndarray, "row ..."]:
    """Difference of the means of those called harmful and of the others, over its Welch standard error.

    Args:
        called: labels as of `Permutations.called`.
        values: one number a unit, or a column a set of numbers.
    """
    centred = values - values.mean(axis=0)
    scale = np.abs(centred).max(axis=0)
    centred = (centred / np.where(scale > 0, scale, 1)).astype(np.float32)
    squares = centred**2
    return _welch(called, called @ centred, called @ squares, centred.sum(axis=0), squares.sum(axis=0))


def _welch(called: np.ndarray, high: np.ndarray, high_squares: np.ndarray, total: Any, squares: Any) -> np.ndarray:
    """Welch's t from sums over those called harmful, and over all."""
    count = called[0].sum()
    other_count = called.shape[1] - count
    low, low_squares = total - high, squares - high_squares
    spread = (high_squares - high**2 / count) / (count * (count - 1))
    spread = spread + (low_squares - low**2 / other_count) / (other_count * (other_count - 1))
    floor = np.finfo(np.float32).eps * np.abs(squares) / called.shape[1] ** 2
    return (high / count - low / other_count) / np.sqrt(
        np.maximum(spread, np.maximum(floor, np.finfo(np.float32).tiny))
    )


def studentise_joint(called: Float32[np.ndarray, "row unit"], cross: Gram) -> Float[np.ndarray, " row"]:
    """Welch's t of every permutation where the labels of displacement and reversion change hands together.

    Each unit's displacement is taken along the harmful minus harmless reversion of the *other* units: its own holds
    the noise that both share.

    Args:
        called: labels as of `Permutations.called`.
        cross: displacement (rows) with reversion (columns), of units.
    """
    # A shift common to all rows or columns is in no difference of means; without it float32 is enough.
    if isinstance(cross, Factors):
        left, right = (_scale(rows - rows.mean(axis=0)) for rows in (cross.left, cross.right))
        own = row_products(left, right)
    else:
        centred = cross - cross.mean(axis=0) - cross.mean(axis=1, keepdims=True) + cross.mean()
        np.fill_diagonal(centred, 0)
        centred, own = _scale(centred), None
    count, other_count = called[0].sum(), called.shape[1] - called[0].sum()
    parts = []
    for labels in np.array_split(called, -(-called.size // _AT_ONCE)):
        weights = labels * (1 / count + 1 / other_count) - 1 / other_count
        along = weights @ centred.T if own is None else (weights @ right) @ left.T - weights * own
        along -= along.mean(axis=1, keepdims=True)
        squares = along**2
        sums = row_products(labels, along), row_products(labels, squares), along.sum(axis=1), squares.sum(axis=1)
        parts.append(_welch(labels, *sums))
    return np.concatenate(parts)


def _scale(values: np.ndarray) -> np.ndarray:
    """The same in units of the largest, in float32."""
    return (values / (float(np.abs(values).max()) or 1.0)).astype(np.float32)


def label_permutation(grams: Grams, permutations: Permutations, why_not: str | None = None) -> NullDraws:
    """Labels permuted, for displacement and reversion alike; `why_not` says why they cannot be."""
    if why_not is not None:
        return NullDraws("label_permutation", STATISTIC, None, reason=why_not)
    values = studentise_joint(permutations.called, permutations.average_pairs(grams.cross))
    return NullDraws("label_permutation", STATISTIC, float(values[0]), values[1:])


def label_permutation_crossfit(
    grams: Grams,
    fold: Bool[np.ndarray, " prompt"],
    of_folds: tuple[Permutations, Permutations],
    why_not: str | None = None,
) -> NullDraws:
    """Does the displacement alone depend on the label, along the other fold's harmful minus harmless reversion?

    The joint permutation asks whether labels matter to displacement *or* reversion; where alignment training was
    about harmful prompts, they always matter to the reversion, and a displacement that knows nothing of labels can
    then look extreme. Here the direction keeps its labels, and those of one fold's displacements are permuted along
    the other fold's direction, which is exact. The weaker fold is given.

    Args:
        grams: of both classes.
        fold: which prompts lie in the first fold.
        of_folds: permutations of the first fold's labels, and of the second's.
        why_not: why they cannot be permuted.
    """
    name = "label_permutation_crossfit"
    if why_not is not None:
        return NullDraws(name, STATISTIC, None, reason=why_not)
    contrasts = contrast_folds(grams.harmful, fold)
    if float(contrasts[0] @ grams.back @ contrasts[1]) <= 0:
        why = "the harmful minus harmless reversion does not agree with itself across folds"
        return NullDraws(name, STATISTIC, None, reason=why)
    tests = []
    for own, permutations, contrast in zip((fold, ~fold), of_folds, contrasts[::-1], strict=True):
        values = welch(permutations.called, permutations.average((grams.cross @ contrast)[own]))
        tests.append(NullDraws(name, STATISTIC, float(values[0]), values[1:]))
    return weaker(*tests)


def contrast_folds(harmful: Labels, fold: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the difference between the harmful and the harmless mean in the first fold, and in the second."""
    first, second = (1.0 * (harmful & members) - (~harmful & members) for members in (fold, ~fold))
    size = [np.where(harmful, (harmful & part).sum(), (~harmful & part).sum()) for part in (fold, ~fold)]
    return first / size[0], second / size[1]


def weaker(first: NullDraws, second: NullDraws) -> NullDraws:
    """Of two tests of one question, that with the larger p-value."""
    return first if (first.p_value() or 0.0) >= (second.p_value() or 0.0) else second
