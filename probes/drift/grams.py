"""Inner products between prompts, and the means that splits and bootstraps take of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probes.errors import StatisticsError

MIN_GROUPS = 6
_TRIES = 100


@dataclass(frozen=True)
class Grams:
    """Inner products between prompts of displacements (tuned - aligned) and reversions (witness - aligned).

    Attributes:
        moved: displacement with displacement, [prompt, prompt].
        cross: displacement (rows) with reversion (columns).
        back: reversion with reversion.
        harmful: which prompts are harmful.
    """

    moved: Float[np.ndarray, "prompt prompt"]
    cross: Float[np.ndarray, "prompt prompt"]
    back: Float[np.ndarray, "prompt prompt"]
    harmful: Bool[np.ndarray, " prompt"]

    @classmethod
    def of(
        cls,
        aligned: Float[np.ndarray, "prompt d_model"],
        witness: Float[np.ndarray, "prompt d_model"],
        tuned: Float[np.ndarray, "prompt d_model"],
        harmful: Bool[np.ndarray, " prompt"],
    ) -> Grams:
        """The Gram matrices of one layer."""
        base = aligned.astype(np.float64)
        moved, back = tuned - base, witness - base
        return cls(moved @ moved.T, moved @ back.T, back @ back.T, harmful)

    def only_harmful(self) -> Grams:
        """The same inner products between harmful prompts alone."""
        keep = np.ix_(self.harmful, self.harmful)
        harmful = np.ones(int(self.harmful.sum()), dtype=bool)
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
        moved, back = grams.moved, grams.back
        daa, dab, dbb = _forms(moved, first, second)
        vaa, vab, vbb = _forms(back, first, second)
        crossed_a, crossed_b = first @ grams.cross, second @ grams.cross
        dava, davb = _dot(crossed_a, first), _dot(crossed_a, second)
        dbva, dbvb = _dot(crossed_b, first), _dot(crossed_b, second)
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
    harmful: Bool[np.ndarray, " prompt"], splits: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]:
    """Weights of the class means in random halves of each class; in a half, a class's weights sum to 1.

    With `groups`, the prompts of one group lie in the same half, whatever their class.
    """
    if groups is not None:
        return _split_groups(harmful, splits, rng, groups)
    first, second = np.zeros((splits, harmful.size)), np.zeros((splits, harmful.size))
    for members in (np.flatnonzero(harmful), np.flatnonzero(~harmful)):
        order = rng.permuted(np.tile(members, (splits, 1)), axis=1)
        half = (members.size + 1) // 2
        np.put_along_axis(first, order[:, :half], 1 / max(half, 1), axis=1)
        np.put_along_axis(second, order[:, half:], 1 / max(members.size - half, 1), axis=1)
    return first, second


def _split_groups(
    harmful: np.ndarray, splits: int, rng: np.random.Generator, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Halves of the groups; drawn again where a half would have none of a class."""
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < MIN_GROUPS:
        raise StatisticsError(
            "There are too few groups", got=len(names), expected=f"at least {MIN_GROUPS}, so that folds can go by group"
        )
    halves = np.zeros((splits, len(names)), dtype=bool)
    for row in halves:
        for _ in range(_TRIES):
            row[:] = False
            row[rng.permutation(len(names))[: (len(names) + 1) // 2]] = True
            inside = row[member]
            if all((inside & of_class).any() and (~inside & of_class).any() for of_class in (harmful, ~harmful)):
                break
        else:
            raise StatisticsError("The groups cannot be halved so that both halves hold both classes")
    first = halves[:, member]
    return _class_weights(first, harmful), _class_weights(~first, harmful)


def _class_weights(inside: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    weights = np.zeros(inside.shape)
    for of_class in (harmful, ~harmful):
        chosen = inside & of_class
        weights += chosen / chosen.sum(axis=1, keepdims=True)
    return weights


def bootstrap_weights(
    harmful: Bool[np.ndarray, " prompt"],
    bootstraps: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> tuple[Float[np.ndarray, "draw prompt"], Float[np.ndarray, "draw prompt"]]:
    """Weights as of `split_weights`, with each half's prompts drawn again with replacement inside that half.

    Drawing inside a half keeps one prompt from standing on both sides of a cross-fitted product.
    """
    first, second = split_weights(harmful, bootstraps, rng, groups)
    if groups is not None:
        return _redrawn_groups(first, harmful, rng, groups), _redrawn_groups(second, harmful, rng, groups)
    return _redraw(first, harmful, rng), _redraw(second, harmful, rng)


def _redrawn_groups(
    weights: np.ndarray, harmful: np.ndarray, rng: np.random.Generator, groups: np.ndarray
) -> np.ndarray:
    """Weights with the groups of each half drawn again with replacement; a draw without a class is drawn once more."""
    names, member = np.unique(groups, return_inverse=True)
    drawn = np.zeros_like(weights)
    for row, target in zip(weights, drawn, strict=True):
        own = np.unique(member[row > 0])
        for _ in range(_TRIES):
            counts = np.bincount(rng.choice(own, len(own)), minlength=len(names))[member]
            totals = [(counts * of_class).sum() for of_class in (harmful, ~harmful)]
            if all(totals):
                break
        for of_class, total in zip((harmful, ~harmful), totals, strict=True):
            target += counts * of_class / max(total, 1)
    return drawn


def _redraw(weights: np.ndarray, harmful: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros_like(weights)
    for members in (harmful, ~harmful):
        for row, target in zip(weights[:, members], drawn, strict=True):
            count = int((row > 0).sum())
            target[members] = rng.multinomial(count, row) / max(count, 1)
    return drawn


def _forms(gram: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pulled = first @ gram
    return _dot(pulled, first), _dot(pulled, second), _dot(second @ gram, second)


def _dot(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", rows, others)


def cosine(product: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A cosine from its three inner products; NaN where a length is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((one > 0) & (other > 0), product / np.sqrt(one * other), np.nan)
