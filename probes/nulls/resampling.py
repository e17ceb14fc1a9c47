"""Nulls made from the prompts themselves: differences of real prompts, flipped signs, permuted labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from probes.drift import Grams, split_weights
from probes.nulls.draws import NullDraws


@dataclass(frozen=True)
class Resampling:
    """The random numbers of every activation-level null, drawn once and used at every layer and checkpoint.

    Attributes:
        harmful: which prompts are harmful.
        seed: of everything here.
        mixtures: standard normal numbers for Gaussian draws.
        pairs: two different prompts for each draw, [2, draw].
        signs: -1 or 1 for each harmful prompt.
        labels: contrasts of permuted labels; row 0 is the true one. A row is 1/count on the prompts called
            harmful and -1/count on the others.
        fold: which prompts lie in the first fold.
        fold_labels: for either fold, contrasts of labels permuted inside it; row 0 is the true one.
        groups: the topic of each prompt; None where prompts are independent.
    """

    harmful: Bool[np.ndarray, " prompt"]
    seed: int
    mixtures: Float[np.ndarray, "draw prompt"]
    pairs: Int[np.ndarray, "two draw"]
    signs: Float[np.ndarray, "draw harmful"]
    labels: Float[np.ndarray, "permutation prompt"]
    fold: Bool[np.ndarray, " prompt"]
    fold_labels: tuple[np.ndarray, np.ndarray]
    groups: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        harmful: Bool[np.ndarray, " prompt"],
        *,
        draws: int = 10_000,
        permutations: int = 9_999,
        seed: int = 0,
        groups: np.ndarray | None = None,
    ) -> Resampling:
        """Draw everything for these prompts.

        With `groups`, folds and sign flips go by group, and labels are permuted within groups that hold both labels,
        the groups' labels else.
        """
        rng = np.random.default_rng([seed, 0x2A11])
        count = harmful.size
        one = rng.integers(count, size=draws)
        other = (one + rng.integers(1, count, size=draws)) % count
        fold = split_weights(harmful, 1, rng, groups)[0][0] > 0
        return cls(
            harmful,
            seed,
            mixtures=rng.standard_normal((draws, count), dtype=np.float32),
            pairs=np.stack([one, other]),
            signs=_signs(harmful, draws, rng, groups),
            labels=_contrasts(harmful, permutations, rng, groups),
            fold=fold,
            fold_labels=(
                _contrasts(harmful[fold], permutations, rng, None if groups is None else groups[fold]),
                _contrasts(harmful[~fold], permutations, rng, None if groups is None else groups[~fold]),
            ),
            groups=groups,
        )


def _signs(harmful: np.ndarray, draws: int, rng: np.random.Generator, groups: np.ndarray | None) -> np.ndarray:
    """−1 or 1 for each harmful prompt; one for all prompts of a group."""
    values = np.array([-1.0, 1.0], dtype=np.float32)
    if groups is None:
        return rng.choice(values, (draws, int(harmful.sum())))
    names, member = np.unique(groups[harmful], return_inverse=True)
    return rng.choice(values, (draws, len(names)))[:, member]


def _contrasts(
    harmful: np.ndarray, permutations: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    labels = np.tile(harmful, (permutations + 1, 1))
    called = rng.permuted(labels, axis=1) if groups is None else _permute_in_groups(labels, rng, groups)
    called[0] = harmful
    # Whole groups change their label where no group holds both, so the classes' sizes may change with it.
    positive = called.sum(axis=1, keepdims=True)
    return np.where(called, 1 / positive, -1 / (harmful.size - positive)).astype(np.float32)


def _permute_in_groups(labels: np.ndarray, rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """Labels permuted within each group; where every group has one label alone, the groups' labels permuted."""
    names, member = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(member == place) for place in range(len(names))]
    if any(len(set(labels[0, chosen])) > 1 for chosen in members):
        for chosen in members:
            labels[:, chosen] = rng.permuted(labels[:, chosen], axis=1)
        return labels
    of_group = np.tile(np.array([labels[0, chosen[0]] for chosen in members]), (len(labels), 1))
    return rng.permuted(of_group, axis=1)[:, member]


def random_difference(
    observed: float,
    gram: Float[np.ndarray, "prompt prompt"],
    along: Float[np.ndarray, " prompt"],
    length: float,
    pairs: Int[np.ndarray, "two draw"],
) -> NullDraws:
    """A displacement that is the difference between the aligned model's activations at two real prompts.

    Args:
        observed: the checkpoint's `alignment_crossfit`.
        gram: inner products of the aligned model's activations, centred.
        along: their products with the reversion direction.
        length: of the reversion direction.
        pairs: two different prompts for each draw. Two with the same activations have no difference; their
            cosine counts as 1, which can only make the p-value larger.
    """
    one, other = pairs
    squared = np.maximum(np.diag(gram)[one] + np.diag(gram)[other] - 2 * gram[one, other], 0)
    distinct = squared > 1e-12 * np.trace(gram) / gram.shape[0]
    lengths = np.sqrt(np.where(distinct, squared, 1.0)) * length
    cosines = np.where(distinct, (along[one] - along[other]) / lengths, 1.0)
    return NullDraws("random_difference", "alignment_crossfit", observed, cosines)


def sign_flip(grams: Grams, resampling: Resampling) -> NullDraws:
    """Is the return fraction more than chance signs of the prompts' motions would give?

    Each harmful prompt's return fraction is taken along the reversion of the *other* fold, and its sign is
    flipped at random. The two folds are tested apart and the weaker result is given: a prompt's noise enters
    its own motion and the other fold's direction, so the folds' tests are not independent, and their maximum
    is valid regardless.
    """
    harmful, fold = resampling.harmful, resampling.fold
    both = [fold & harmful, ~fold & harmful]
    agreement = float(grams.back[np.ix_(both[0], both[1])].mean())
    if agreement <= 0:
        why = "the reversion direction does not agree with itself across folds"
        return NullDraws("sign_flip", "return_fraction", None, reason=why)
    tests = []
    for own, other in (both, both[::-1]):
        fractions = grams.cross[np.ix_(own, other)].mean(axis=1) / agreement
        draws = resampling.signs[:, own[harmful]] @ (fractions / fractions.size).astype(np.float32)
        tests.append(NullDraws("sign_flip", "return_fraction", float(fractions.mean()), draws))
    return weaker(*tests)


def label_permutation(
    grams: Grams, resampling: Resampling, back: Float[np.ndarray, " permutation"] | None = None
) -> NullDraws:
    """Is the motion about harmful prompts? Labels permuted, for displacement and reversion alike.

    Args:
        grams: of both classes.
        resampling: the permutations.
        back: `squared_lengths` of the reversion, where they are at hand: they do not depend on the
            checkpoint.
    """
    labels = resampling.labels
    moved, cross = squared_lengths(grams.moved, labels), _forms(grams.cross, labels)
    back = squared_lengths(grams.back, labels) if back is None else back
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = cross / np.sqrt(moved * back)
    if not np.isfinite(cosines).all():
        why = "the harmful minus harmless displacement is zero"
        return NullDraws("label_permutation", "did_alignment", None, reason=why)
    return NullDraws("label_permutation", "did_alignment", float(cosines[0]), cosines[1:])


def squared_lengths(
    gram: Float[np.ndarray, "prompt prompt"], contrasts: Float[np.ndarray, "permutation prompt"]
) -> Float[np.ndarray, " permutation"]:
    """Squared lengths of the contrasts' mean vectors."""
    return np.maximum(_forms(gram, contrasts), 0)


def _forms(gram: np.ndarray, contrasts: np.ndarray) -> np.ndarray:
    """c' G c for each contrast c. The matrix is centred first (c sums to 0), so that float32 is enough."""
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean()
    scale = float(np.abs(centred).max()) or 1.0
    pulled = contrasts @ (centred / scale).astype(np.float32)
    return np.einsum("ij,ij->i", pulled, contrasts).astype(np.float64) * scale


def label_permutation_crossfit(grams: Grams, resampling: Resampling) -> NullDraws:
    """Does the displacement alone depend on the label, along the other fold's harmful minus harmless
    reversion?

    The joint permutation of `label_permutation` asks whether labels matter to displacement *or* reversion;
    where alignment training was about harmful prompts, they always matter to the reversion, and a
    displacement that knows nothing of labels can then look extreme. Here the direction keeps its labels, and
    those of one fold's displacements are permuted along the other fold's direction, which is exact. The
    weaker fold is given.
    """
    harmful, fold = resampling.harmful, resampling.fold
    sign = np.where(harmful, 1.0, -1.0)
    contrast = [
        sign * mask * np.where(harmful, 1 / (mask & harmful).sum(), 1 / (mask & ~harmful).sum())
        for mask in (fold, ~fold)
    ]
    name, statistic = "label_permutation_crossfit", "did_return_fraction"
    agreement = float(contrast[0] @ grams.back @ contrast[1])
    if agreement <= 0:
        why = "the harmful minus harmless reversion does not agree with itself across folds"
        return NullDraws(name, statistic, None, reason=why)
    tests = []
    for own, labels, other in (
        (fold, resampling.fold_labels[0], contrast[1]),
        (~fold, resampling.fold_labels[1], contrast[0]),
    ):
        along = grams.cross[own] @ other / agreement
        values = labels @ (along - along.mean()).astype(np.float32)
        tests.append(NullDraws(name, statistic, float(values[0]), values[1:]))
    return weaker(*tests)


def weaker(one: NullDraws, other: NullDraws) -> NullDraws:
    """Of two tests of one question, the one with the larger p-value."""
    return one if (one.p_value() or 0.0) >= (other.p_value() or 0.0) else other
