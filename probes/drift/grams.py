"""Inner products between prompts, and the means that splits and bootstraps take of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from probes.drift.inner_products import Factors, Gram, inner_products, row_products
from probes.errors import StatisticsError

MIN_GROUPS = 6
Groups = Shaped[np.ndarray, " prompt"]
Halves = tuple[Float[np.ndarray, "split prompt"], Float[np.ndarray, "split prompt"]]
Redrawn = tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]


@dataclass(frozen=True)
class Grams:
    """Inner products between prompts of displacements (tuned - aligned) and reversions (witness - aligned).

    Attributes:
        moved: displacement with displacement, [prompt, prompt].
        cross: displacement (rows) with reversion (columns).
        back: reversion with reversion.
        harmful: which prompts are harmful.
    """

    moved: Gram
    cross: Gram
    back: Gram
    harmful: Bool[np.ndarray, " prompt"]

    @classmethod
    def of(
        cls,
        aligned: Float[np.ndarray, "prompt d_model"],
        reversions: Float[np.ndarray, "prompt d_model"],
        tuned: Float[np.ndarray, "prompt d_model"],
        harmful: Bool[np.ndarray, " prompt"],
    ) -> Grams:
        """The Gram matrices of one layer; of more prompts than dimensions their factors.

        Args:
            aligned: the aligned model's activations.
            reversions: each prompt's way from aligned to witness, as of `directions.reversion.reversions_at_layer`.
            tuned: the checkpoint's activations.
            harmful: which prompts are harmful.
        """
        return cls.between(tuned - aligned.astype(np.float64), reversions, harmful)

    @classmethod
    def between(
        cls,
        moved: Float[np.ndarray, "prompt d_model"],
        back: Float[np.ndarray, "prompt d_model"],
        harmful: Bool[np.ndarray, " prompt"],
    ) -> Grams:
        """The same from displacements and reversions."""
        return cls(inner_products(moved, moved), inner_products(moved, back), inner_products(back, back), harmful)

    def only_harmful(self) -> Grams:
        """The same inner products between harmful prompts alone."""
        harmful = np.ones(int(self.harmful.sum()), dtype=bool)
        if isinstance(self.cross, Factors):
            return Grams.between(self.cross.left[self.harmful], self.cross.right[self.harmful], harmful)
        keep = np.ix_(self.harmful, self.harmful)
        return Grams(self.moved[keep], self.cross[keep], self.back[keep], harmful)


@dataclass(frozen=True)
class Products:
    """Inner products of mean displacement d and mean reversion v, whole and in halves a, b; one per draw."""

    dd: np.ndarray
    dv: np.ndarray
    vv: np.ndarray
    daa: np.ndarray
    dbb: np.ndarray
    dab: np.ndarray
    vaa: np.ndarray
    vbb: np.ndarray
    vab: np.ndarray
    davb: np.ndarray
    dbva: np.ndarray

    @classmethod
    def of(
        cls,
        grams: Grams,
        first: Float[np.ndarray, "draw prompt"],
        second: Float[np.ndarray, "draw prompt"],
    ) -> Products:
        """Products for the weights of two halves; a half's mean is `weights @ rows`."""
        if isinstance(grams.cross, Factors):  # products of mean displacements and mean reversions
            da, db, va, vb = (half @ rows for rows in (grams.cross.left, grams.cross.right) for half in (first, second))
            daa, dab, dbb = (row_products(*pair) for pair in ((da, da), (da, db), (db, db)))
            vaa, vab, vbb = (row_products(*pair) for pair in ((va, va), (va, vb), (vb, vb)))
            dava, davb, dbva, dbvb = (row_products(start, end) for start in (da, db) for end in (va, vb))
        else:
            daa, dab, _, dbb = _forms(grams.moved, first, second)
            vaa, vab, _, vbb = _forms(grams.back, first, second)
            dava, davb, dbva, dbvb = _forms(grams.cross, first, second)
        # halves may differ by one prompt; the whole mean weighs both halves alike
        return cls(
            dd=(daa + 2 * dab + dbb) / 4,
            dv=(dava + davb + dbva + dbvb) / 4,
            vv=(vaa + 2 * vab + vbb) / 4,
            daa=daa,
            dbb=dbb,
            dab=dab,
            vaa=vaa,
            vbb=vbb,
            vab=vab,
            davb=davb,
            dbva=dbva,
        )

    def crossfit(self) -> np.ndarray:
        """Half of cos(d_a, v_b) + cos(d_b, v_a), per draw."""
        return (cosine(self.davb, self.daa, self.vbb) + cosine(self.dbva, self.dbb, self.vaa)) / 2

    def agreement(self) -> np.ndarray:
        """cos(d_a, d_b), per draw: does the displacement agree with itself?"""
        return cosine(self.dab, self.daa, self.dbb)


def split_weights(
    harmful: Bool[np.ndarray, " prompt"],
    splits: int,
    rng: np.random.Generator,
    groups: Groups | None = None,
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]:
    """Weights of the class means in random halves of each class; in a half, a class's weights sum to 1.

    Args:
        harmful: which prompts are harmful.
        splits: how many.
        rng: of the halves.
        groups: the topic of each prompt; the prompts of one topic then stay together.

    Raises:
        StatisticsError: a class has a single prompt, or its prompts are all of one group.
    """
    if groups is not None:
        codes = group_codes(groups)
        first = _halve_groups(harmful, codes, splits, rng)[:, codes]
        return _class_weights(first, harmful), _class_weights(~first, harmful)
    first, second = np.zeros((splits, harmful.size)), np.zeros((splits, harmful.size))
    for members in (np.flatnonzero(harmful), np.flatnonzero(~harmful)):
        if members.size == 1:
            raise StatisticsError(
                "A class has a single prompt here, which cannot be halved",
                expected="two or more of each class, or none",
                next_step="Give more prompts.",
            )
        order = rng.permuted(np.tile(members, (splits, 1)), axis=1)
        half = (members.size + 1) // 2
        np.put_along_axis(first, order[:, :half], 1 / max(half, 1), axis=1)
        np.put_along_axis(second, order[:, half:], 1 / max(members.size - half, 1), axis=1)
    return first, second


def splits_of_seed(
    harmful: Bool[np.ndarray, " prompt"], splits: int, seed: int, groups: Groups | None = None
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]:
    """The halves that every cross-fitted statistic of a seed shares, as of `split_weights`."""
    return split_weights(harmful, splits, fold_generator(seed), groups)


def fold_generator(seed: int) -> np.random.Generator:
    """The random numbers behind the halves of a seed."""
    return np.random.default_rng(fold_entropy(seed))


def fold_entropy(seed: int) -> tuple[int, int]:
    """What `fold_generator` begins with."""
    return seed, 0xD81F7


def remembered_weights(
    harmful: Bool[np.ndarray, " prompt"],
    splits: int,
    bootstraps: int,
    entropy: tuple[int, ...],
    groups: Groups | None = None,
) -> tuple[Halves, Redrawn]:
    """Weights as of `split_weights`, then as of `bootstrap_weights`, from one generator; they cannot be written to.

    The last ones are kept: all checkpoints and layers of a run have the same, and drawing takes longer than their use.

    Args:
        harmful: which prompts are harmful.
        splits: how many halvings, 0 for none.
        bootstraps: how many draws, 0 for none.
        entropy: what the generator begins with.
        groups: the topic of each prompt.

    Raises:
        StatisticsError: as `split_weights`.
    """
    codes = None if groups is None else tuple(group_codes(groups).tolist())
    return _draw_weights(tuple(harmful.tolist()), splits, bootstraps, entropy, codes)


@functools.lru_cache(maxsize=2)
def _draw_weights(
    harmful: tuple[bool, ...],
    splits: int,
    bootstraps: int,
    entropy: tuple[int, ...],
    codes: tuple[int, ...] | None,
) -> tuple[Halves, Redrawn]:
    mask, groups = np.array(harmful, dtype=bool), None if codes is None else np.array(codes)
    rng = np.random.default_rng(entropy)
    drawn = split_weights(mask, splits, rng, groups), bootstrap_weights(mask, bootstraps, rng, groups)
    for half in (*drawn[0], *drawn[1]):
        half.setflags(write=False)
    return drawn


def bootstrap_weights(
    harmful: Bool[np.ndarray, " prompt"],
    bootstraps: int,
    rng: np.random.Generator,
    groups: Groups | None = None,
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]:
    """Weights as of `split_weights`, with each half's prompts, or groups, drawn again with replacement inside it.

    Drawing inside a half keeps one prompt from standing on both sides of a cross-fitted product.
    """
    if groups is not None:
        codes = group_codes(groups)
        first = _halve_groups(harmful, codes, bootstraps, rng)
        kinds = _kinds(harmful, codes)
        halves = [_redraw_groups(half, kinds, rng)[:, codes] for half in (first, ~first)]
        return _class_weights(halves[0], harmful), _class_weights(halves[1], harmful)
    first, second = split_weights(harmful, bootstraps, rng)
    return _redraw(first, harmful, rng), _redraw(second, harmful, rng)


def group_codes(groups: Groups) -> Int[np.ndarray, " prompt"]:
    """Groups as numbers from 0; a prompt whose group is not known (None or NaN) is a group of its own."""
    names: dict[Any, int] = {}
    return np.array(
        [
            names.setdefault(index if name is None or name != name else ("group", name), len(names))
            for index, name in enumerate(groups.tolist())
        ]
    )


def count_groups(harmful: Bool[np.ndarray, " prompt"], groups: Groups) -> int:
    """In how many groups the prompts of a class lie, of the class that lies in fewer."""
    codes = group_codes(groups)
    return min(np.unique(codes[members]).size for members in (harmful, ~harmful))


def _kinds(harmful: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Of each group: 1 where it holds harmless prompts alone, 2 harmful ones alone, 3 both."""
    return 1 * (np.bincount(codes, ~harmful) > 0) + 2 * (np.bincount(codes, harmful) > 0)


def _halve_groups(harmful: np.ndarray, codes: np.ndarray, splits: int, rng: np.random.Generator) -> np.ndarray:
    """Whether each group lies in the first half, [draw, group]; either half holds prompts of both classes."""
    if count_groups(harmful, codes) < 2:
        raise StatisticsError(
            "The prompts of a class are all of one group, so they cannot be halved",
            expected="two groups or more of each class, six for a test",
            next_step="Give prompts of more topics, or leave the topics out.",
        )
    kinds, sizes = _kinds(harmful, codes), np.bincount(codes)
    first = np.zeros((splits, kinds.size), dtype=bool)
    missing = np.arange(splits)
    while missing.size:
        for kind in (1, 2, 3):
            members = np.flatnonzero(kinds == kind)
            order = rng.permuted(np.tile(members, (missing.size, 1)), axis=1)
            middle = sizes[order].cumsum(axis=1) - sizes[order] / 2
            near = (middle <= sizes[members].sum() / 2) ^ (rng.random((missing.size, 1)) < 0.5)
            first[missing[:, None], order] = near
        held = [half @ (kinds & bit > 0) for half in (first, ~first) for bit in (1, 2)]
        missing = np.flatnonzero(np.min(held, axis=0) == 0)
    return first


def _redraw_groups(half: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each group of a half is drawn, [draw, group]; as many of each kind as the half holds."""
    drawn = np.zeros(half.shape, dtype=int)
    for kind in (1, 2, 3):
        members = half[:, kinds == kind]
        if members.size:
            count = members.sum(axis=1, keepdims=True)
            shares = np.where(count > 0, members / np.maximum(count, 1), 1 / members.shape[1])
            drawn[:, kinds == kind] = rng.multinomial(count[:, 0], shares)
    return drawn


def _class_weights(counts: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """Counts of prompts as weights that sum to 1 in either class."""
    weights = np.zeros(counts.shape)
    for members in (harmful, ~harmful):
        own = counts[:, members]
        weights[:, members] = own / own.sum(axis=1, keepdims=True)
    return weights


def _redraw(weights: np.ndarray, harmful: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros_like(weights)
    for members in (harmful, ~harmful):
        for row, target in zip(weights[:, members], drawn, strict=True):
            count = int((row > 0).sum())
            target[members] = rng.multinomial(count, row) / max(count, 1)
    return drawn


def _forms(gram: Gram, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """aᵀGa, aᵀGb, bᵀGa and bᵀGb of every draw's weights a (`first`) and b."""
    aa, ab, ba, bb = (
        row_products(pulled, half) for pulled in (first @ gram, second @ gram) for half in (first, second)
    )
    return aa, ab, ba, bb


def cosine(product: np.ndarray, first_square: np.ndarray, second_square: np.ndarray) -> np.ndarray:
    """A cosine from its three inner products; NaN where a length is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(
            (first_square > 0) & (second_square > 0), product / np.sqrt(first_square * second_square), np.nan
        )
