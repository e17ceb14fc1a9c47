"""Nulls made from the prompts themselves: differences of real prompts, and flipped signs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from probes.drift import Grams, Groups, group_codes, split_weights, too_few_groups
from probes.drift.inner_products import Gram, squared_distances
from probes.nulls.draws import NullDraws
from probes.nulls.permutation import Permutations, weaker
from probes.statistics import ALPHA

STATISTIC = "alignment_crossfit"
FoldSigns = tuple[Float32[np.ndarray, "draw unit"], Int[np.ndarray, " prompt"]]  # signs of units, and whose they are


@dataclass(frozen=True)
class Resampling:
    """The random numbers of every activation-level null, drawn once and used at every layer and checkpoint.

    Attributes:
        harmful: which prompts are harmful.
        groups: the topic of each prompt as a number; None without topics.
        seed: of everything here.
        mixtures: standard normal numbers for Gaussian draws.
        same: two different prompts of one class for each draw, [2, draw].
        across: two prompts of different classes for each draw, [2, draw].
        fold: which prompts lie in the first fold.
        signs: -1 or 1 for each group of harmful prompts, or each harmful prompt, [draw, unit].
        sign_units: the unit of each harmful prompt.
        labels: permuted labels.
        fold_labels: for either fold, labels permuted inside it.
        too_few_groups: why nothing can be flipped or permuted by group; None where it can.
        few_signs: why the signs of a fold cannot reach p <= alpha; None where they can.
        few_labels: the same of the labels.
    """

    harmful: Bool[np.ndarray, " prompt"]
    groups: Int[np.ndarray, " prompt"] | None
    seed: int
    mixtures: Float32[np.ndarray, "draw prompt"]
    same: Int[np.ndarray, "two draw"]
    across: Int[np.ndarray, "two draw"]
    fold: Bool[np.ndarray, " prompt"]
    signs: Float32[np.ndarray, "draw unit"]
    sign_units: Int[np.ndarray, " harmful"]
    labels: Permutations
    fold_labels: tuple[Permutations, Permutations]
    few_signs: str | None
    few_labels: str | None

    @classmethod
    def of(
        cls,
        harmful: Bool[np.ndarray, " prompt"],
        *,
        groups: Groups | None = None,
        pairs: Groups | None = None,
        draws: int = 10_000,
        permutations: int = 9_999,
        alpha: float = ALPHA,
        seed: int = 0,
    ) -> Resampling:
        """Draw everything for these prompts.

        Args:
            harmful: which prompts are harmful.
            groups: the topic of each prompt; None without topics: then pairs, where there are any, are the groups.
            pairs: equal for the two prompts of a pair; None without pairs.
            draws: of each null.
            permutations: of the labels.
            alpha: the level that a test must be able to reach.
            seed: of everything.
        """
        rng = np.random.default_rng([seed, 0x2A11])
        groups = pairs if groups is None else groups
        few = too_few_groups(harmful, groups)
        codes, couples = (None if names is None else group_codes(names) for names in (groups, pairs))
        fold = split_weights(harmful, 1, rng, groups)[0][0] > 0
        units = np.unique(np.arange(harmful.sum()) if codes is None else codes[harmful], return_inverse=True)[1]
        parts = [
            Permutations.of(harmful[part], _of(codes, part), _of(couples, part), permutations, rng)
            for part in (np.ones_like(fold), fold, ~fold)
        ]
        in_fold = [math.log(2) * np.unique(units[part[harmful]]).size for part in (fold, ~fold)]
        return cls(
            harmful=harmful,
            groups=codes,
            seed=seed,
            mixtures=rng.standard_normal((draws, harmful.size), dtype=np.float32),
            same=_couples_of_one_class(harmful, draws, rng),
            across=_couples_across(harmful, draws, rng),
            fold=fold,
            signs=rng.choice(np.array([-1.0, 1.0], dtype=np.float32), (draws, units.max() + 1)),
            sign_units=units,
            labels=parts[0],
            fold_labels=(parts[1], parts[2]),
            few_signs=few or _few(min(in_fold), alpha),
            few_labels=few or _few(min(part.arrangements for part in parts), alpha),
        )

    @functools.cached_property
    def fold_signs(self) -> tuple[FoldSigns, FoldSigns]:
        """Of the harmful prompts of the first fold, and of the second."""
        first = self.fold[self.harmful]
        return self._signs_of(first), self._signs_of(~first)

    def _signs_of(self, own: np.ndarray) -> FoldSigns:
        names, units = np.unique(self.sign_units[own], return_inverse=True)
        return self.signs[:, names], units


def _of(codes: np.ndarray | None, part: np.ndarray) -> np.ndarray | None:
    return None if codes is None else codes[part]


def _few(arrangements: float, alpha: float) -> str | None:
    if arrangements >= -math.log(alpha):
        return None
    return f"too few groups in a fold: {math.exp(arrangements):.0f} arrangements cannot reach p = {alpha:g}"


def _couples_of_one_class(harmful: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    first, second = rng.integers(harmful.size, size=draws), np.empty(draws, dtype=int)
    for members in (harmful, ~harmful):
        own, mine = np.flatnonzero(members), members[first]
        place = np.searchsorted(own, first[mine])
        second[mine] = own[(place + rng.integers(1, own.size, size=place.size)) % own.size]
    return np.stack([first, second])


def _couples_across(harmful: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    couple = np.stack([rng.choice(np.flatnonzero(members), draws) for members in (harmful, ~harmful)])
    return np.where(rng.random(draws) < 0.5, couple, couple[::-1])


def random_difference(
    name: str,
    gram: Gram,
    along: Float[np.ndarray, " prompt"],
    length: float,
    couples: Int[np.ndarray, "two draw"],
) -> NullDraws:
    """A displacement that is the difference between the aligned model's activations at two real prompts.

    Args:
        name: of the null.
        gram: inner products of the aligned model's activations, centred.
        along: their products with the reversion direction.
        length: of the reversion direction.
        couples: two different prompts for each draw. Two with the same activations have no difference; their
            cosine counts as 1, which can only make the p-value larger.
    """
    (first, second), squared = couples, squared_distances(gram, couples)
    distinct = squared > 1e-12 * gram.diagonal().sum() / len(gram)
    if not distinct.any():
        return NullDraws(name, STATISTIC, None, reason="prompts do not differ here", defined=False)
    lengths = np.sqrt(np.where(distinct, squared, 1.0)) * length
    cosines = np.where(distinct, (along[first] - along[second]) / lengths, 1.0)
    return NullDraws(name, STATISTIC, 0.0, cosines.astype(np.float32))


def sign_flip(grams: Grams, resampling: Resampling) -> NullDraws:
    """Is the return fraction more than random signs of the prompts' motions would give?

    Each harmful prompt's return fraction is taken along the reversion of the *other* fold, and its sign is flipped at
    random, together with those of its group. The two folds are tested apart and the weaker result is given: a
    prompt's noise enters its own motion and the other fold's direction, so the folds' tests are not independent, and
    their maximum is valid regardless.

    Args:
        grams: of harmful prompts alone.
        resampling: the signs.
    """
    name, statistic = "sign_flip", "return_fraction_of_fold"
    if resampling.few_signs is not None:
        return NullDraws(name, statistic, None, reason=resampling.few_signs)
    first = resampling.fold[resampling.harmful]
    agreement = float(grams.back[np.ix_(first, ~first)].sum(axis=0).sum()) / first.sum() / (~first).sum()
    if agreement <= 0:
        why = "the reversion direction does not agree with itself across folds"
        return NullDraws(name, statistic, None, reason=why)
    tests = []
    for own, (signs, units) in zip((first, ~first), resampling.fold_signs, strict=True):
        fractions = grams.cross[np.ix_(own, ~own)].sum(axis=1) / (~own).sum() / agreement
        draws = flip_signs(signs, units, fractions / fractions.size)
        tests.append(NullDraws(name, statistic, float(fractions.mean()), draws))
    return weaker(*tests)


def flip_signs(
    signs: Float32[np.ndarray, "draw unit"],
    units: Int[np.ndarray, " prompt"],
    values: Float[np.ndarray, "prompt ..."],
) -> Float[np.ndarray, "draw ..."]:
    """Sums of values whose signs are flipped unit by unit.

    Args:
        signs: -1 or 1 for each unit.
        units: the unit of each value.
        values: one number a prompt, or a column a set of numbers.
    """
    sums = np.zeros((signs.shape[1], *values.shape[1:]))
    np.add.at(sums, units, values)
    return signs @ sums.astype(np.float32)
