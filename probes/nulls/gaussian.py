"""Nulls in which the displacement is Gaussian, with a covariance seen in activations.

The tests draw from the sample covariance **within classes**: u = Rᵀz / √(n − 2), z ~ N(0, I), R the activations
centred within each class. Centred over all prompts, the first component would be the gap between the classes, along
which a reversion runs: such a null explains away what is asked about. Ledoit and Wolf's (2004) shrinkage makes a null
rounder than the data, and so too easy to beat; it is for where the covariance is inverted (`Spectrum`).

Everything is worked out on the smaller side: with fewer prompts than dimensions from the prompts' Gram matrix, so that
nothing has the size width x width, and with more of them nothing has the size prompts x prompts.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probes.drift import Grams
from probes.drift.inner_products import Factors, Gram, inner_products, row_products, sum_of_product
from probes.nulls.draws import NullDraws

STATISTIC = "alignment_crossfit"
_RELATIVE_ZERO = 1e-10
_NO_VARIANCE = 1e-20  # of the squared activations: what rounding leaves where all prompts are alike


def isotropic(observed: float, width: int) -> NullDraws:
    """A displacement in a uniformly random direction of `width` dimensions; its law is exact."""
    return NullDraws("isotropic", STATISTIC, observed, width=width)


@dataclass(frozen=True)
class ClassCovariance:
    """The sample covariance of activations within the classes, as draws from it are made.

    Attributes:
        rows: activations, centred within each class; zero where they do not vary.
    """

    rows: Float[np.ndarray, "prompt d_model"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "prompt d_model"], harmful: Bool[np.ndarray, " prompt"]) -> ClassCovariance:
        """Centre the rows within each class."""
        centred, varies = _centre(rows, (harmful, ~harmful))
        centred *= varies
        return cls(centred)

    @functools.cached_property
    def gram(self) -> Gram:
        """The rows' inner products."""
        return inner_products(self.rows, self.rows)

    @property
    def varies(self) -> bool:
        """Whether the prompts of a class differ at all."""
        return bool(self.rows.any())

    @property
    def participation_ratio(self) -> float:
        """tr(Σ)² / tr(Σ²): how many directions carry the variance; the null widens as it falls."""
        return float(self.gram.diagonal().sum() ** 2 / sum_of_product(self.gram, self.gram)) if self.varies else 0.0

    def draw_products(
        self, vectors: Float[np.ndarray, "vector d_model"], mixtures: Float[np.ndarray, "draw prompt"]
    ) -> tuple[Float[np.ndarray, "vector draw"], Float[np.ndarray, " draw"]]:
        """Inner products of draws with vectors, and the draws' squared lengths.

        Args:
            vectors: fixed vectors.
            mixtures: standard normal numbers. A draw is that mixture of the rows, so that the same mixture gives the
                same event at another layer.
        """
        scale = 1 / np.sqrt(len(self.rows) - 2)
        along = (scale * (self.rows @ vectors.T)).astype(np.float32)
        if isinstance(self.gram, Factors):
            drawn = mixtures @ (scale * self.rows).astype(np.float32)
            squared = row_products(drawn, drawn)
        else:
            squared = row_products(mixtures @ (scale**2 * self.gram).astype(np.float32), mixtures)
        return (mixtures @ along).T, np.maximum(squared, np.finfo(np.float32).tiny)

    def cosines(
        self, direction: Float[np.ndarray, " d_model"], mixtures: Float[np.ndarray, "draw prompt"]
    ) -> Float[np.ndarray, " draw"]:
        """Cosines of draws with a direction."""
        products, squared = self.draw_products(direction[None], mixtures)
        return products[0] / np.sqrt(squared) / np.float32(np.linalg.norm(direction))

    def draw(self, mixtures: Float[np.ndarray, "draw prompt"]) -> Float[np.ndarray, "draw d_model"]:
        """The draws themselves."""
        return mixtures @ self.rows / np.sqrt(len(self.rows) - 2)


def covariance(name: str, source: ClassCovariance, cosines: Float[np.ndarray, " draw"] | None) -> NullDraws:
    """A displacement drawn from the covariance within the classes; `cosines` as of `ClassCovariance.cosines`."""
    if cosines is None:
        return NullDraws(name, STATISTIC, None, reason="prompts of one class do not differ here", defined=False)
    note = f"participation ratio {source.participation_ratio:.1f} of {source.rows.shape[1]}"
    return NullDraws(name, STATISTIC, 0.0, cosines, note=note)


@dataclass(frozen=True)
class Spectrum:
    """Covariance of rows of activations, in its own axes, after Ledoit and Wolf's shrinkage.

    Attributes:
        rows: the centred rows.
        gram: their inner products.
        vectors: eigenvectors of the rows' Gram matrix, largest first, [prompt, rank].
        axes: unit vectors of the covariance, of highest variance first; orthogonal to all of them it is `floor`.
        scale: length of the rows along each axis, the square roots of the Gram matrix's eigenvalues, [rank].
        variances: variance along each axis after shrinkage, [rank].
        floor: variance in every direction that no row reaches.
        shrinkage: weight of the identity, in [0, 1].
    """

    rows: Float[np.ndarray, "prompt d_model"]
    gram: Gram
    vectors: Float[np.ndarray, "prompt rank"]
    axes: Float[np.ndarray, "rank d_model"]
    scale: Float[np.ndarray, " rank"]
    variances: Float[np.ndarray, " rank"]
    floor: float
    shrinkage: float

    @classmethod
    def of(
        cls,
        rows: Float[np.ndarray, "prompt d_model"],
        classes: Bool[np.ndarray, " prompt"] | None = None,
        *,
        shrinkage: float | None = None,
    ) -> Spectrum:
        """Decompose the covariance of `rows`, centred here; with `classes`, centred in each class.

        `shrinkage` takes the place of Ledoit and Wolf's weight.
        """
        rows, _ = _centre(rows, [slice(None)] if classes is None else [classes, ~classes])
        count, width = rows.shape
        gram = inner_products(rows, rows)
        values, columns = np.linalg.eigh(rows.T @ rows if isinstance(gram, Factors) else gram)
        keep = np.flatnonzero(values > _RELATIVE_ZERO * values[-1])[::-1][:width]
        values, columns = values[keep], columns[:, keep]
        scale = np.sqrt(values)
        if isinstance(gram, Factors):
            vectors, axes = rows @ columns / scale, columns.T
        else:
            vectors, axes = columns, (columns.T @ rows) / scale[:, None]
        shrinkage = _ledoit_wolf(gram, width) if shrinkage is None else shrinkage
        mean = float(gram.diagonal().sum()) / count / width
        variances = (1 - shrinkage) * values / count + shrinkage * mean
        return cls(rows, gram, vectors, axes, scale, variances, shrinkage * mean, shrinkage)

    @property
    def beyond(self) -> int:
        """Number of dimensions that no row reaches."""
        return self.rows.shape[1] - self.scale.size

    @property
    def participation_ratio(self) -> float:
        """tr(Σ)² / tr(Σ²): how many directions carry the variance."""
        total = self.variances.sum() + self.beyond * self.floor
        return float(total**2 / ((self.variances**2).sum() + self.beyond * self.floor**2))

    def coordinates(self, vectors: Float[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, "prompt rank"]:
        """Vectors along the axes of the covariance; what lies outside the rows' span is not in them."""
        return vectors @ self.axes.T

    def solve(self, vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_model"]:
        """Σ⁻¹ vector; without shrinkage, what no row reaches is left out."""
        along = self.axes @ vector
        inside = np.divide(along, self.variances, out=np.zeros_like(along), where=self.variances > 0) @ self.axes
        return inside + (vector - along @ self.axes) / self.floor if self.floor > 0 else inside

    def cosines(
        self,
        direction: Float[np.ndarray, " d_model"],
        mixtures: Float[np.ndarray, "draw prompt"],
        seed: Sequence[int],
        without: Sequence[int] = (0,),
    ) -> Float[np.ndarray, "variant draw"]:
        """Cosines of `direction` with draws of N(0, Σ), after the axes of highest variance are taken out of both.

        Args:
            direction: the fixed vector.
            mixtures: standard normal numbers. A draw is that mixture of the rows, so that the same mixture
                gives the same event at another layer.
            seed: of the part of the draws that no row reaches.
            without: for each variant, how many of the axes of highest variance are taken out.
        """
        along = self.coordinates(direction[None, :])[0]
        beyond_square = max(float(direction @ direction - along @ along), 0.0) if self.beyond else 0.0
        # float32 is plenty for a random number, and twice as quick
        axes = mixtures @ self.vectors.astype(np.float32)
        outside, size = self._outside(mixtures.shape[0], beyond_square, seed)
        kept_axes = np.arange(along.size)[:, None] >= np.asarray(without)[None, :]
        top = self.variances[0]
        pulls = kept_axes * (np.sqrt(self.variances / top) * along)[:, None]
        products = axes @ pulls.astype(np.float32) + outside[:, None] / np.sqrt(top)
        np.square(axes, out=axes)
        sizes = axes @ (kept_axes * self.variances[:, None] / top).astype(np.float32) + size[:, None] / top
        lengths = (kept_axes * (along**2)[:, None]).sum(axis=0) + beyond_square
        with np.errstate(divide="ignore", invalid="ignore"):
            return (products / np.sqrt(sizes * lengths)).T

    def _outside(self, draws: int, beyond_square: float, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of each draw's part outside the rows' span: its product with the direction, and its squared
        length.
        """
        if self.beyond == 0 or self.floor == 0:
            return np.zeros(draws), np.zeros(draws)
        rng = np.random.default_rng(list(seed))
        towards = rng.standard_normal(draws)
        remainder = rng.chisquare(self.beyond - 1, draws) if self.beyond > 1 else np.zeros(draws)
        return np.sqrt(self.floor * beyond_square) * towards, self.floor * (towards**2 + remainder)

    def reweigh(self, grams: Grams, moved: np.ndarray, back: np.ndarray, weights: np.ndarray, beyond: float) -> Grams:
        """Gram matrices in another metric: `weights` along the axes, `beyond` outside them.

        Args:
            grams: in the ordinary metric.
            moved: the displacements' coordinates.
            back: the reversions' coordinates.
            weights: of each axis.
            beyond: of every direction that no row reaches.
        """
        if isinstance(grams.cross, Factors):
            return Grams.between(
                *(
                    np.hstack([np.sqrt(weights) * along, np.sqrt(beyond) * (rows - along @ self.axes)])
                    for rows, along in ((grams.cross.left, moved), (grams.cross.right, back))
                ),
                grams.harmful,
            )
        extra = weights - beyond
        return Grams(
            beyond * grams.moved + (moved * extra) @ moved.T,
            beyond * grams.cross + (moved * extra) @ back.T,
            beyond * grams.back + (back * extra) @ back.T,
            grams.harmful,
        )


def _centre(rows: np.ndarray, classes: Sequence[np.ndarray | slice]) -> tuple[np.ndarray, bool]:
    """Rows less the mean of their class, in float64, and whether that leaves more than rounding."""
    rows = rows.astype(np.float64)
    whole = float((rows**2).sum())
    for members in classes:
        rows[members] -= rows[members].mean(axis=0)
    return rows, float((rows**2).sum()) > _NO_VARIANCE * whole


def _ledoit_wolf(gram: Gram, width: int) -> float:
    """Ledoit and Wolf's shrinkage from the centred rows' Gram matrix, in place of width x width products.

    Equal to `sklearn.covariance.ledoit_wolf_shrinkage`, which would take minutes at width 4096 over all
    layers.
    """
    count, own = len(gram), gram.diagonal()
    trace, squared = own.sum() / count, sum_of_product(gram, gram) / count**2
    dispersion = (squared - trace**2 / width) / width
    error = ((own**2).sum() / count - squared) / (width * count)
    return 0.0 if error <= 0 or dispersion <= 0 else float(min(error, dispersion) / dispersion)
