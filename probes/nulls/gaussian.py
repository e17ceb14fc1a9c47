"""Nulls in which the displacement is Gaussian: in every direction alike, or with a covariance seen in
activations.

The covariance is Ledoit and Wolf's (2004) shrinkage of the sample covariance towards a multiple of the
identity. It is never formed: with fewer prompts than dimensions it is known from the eigenvectors of the
prompts' Gram matrix, and is the same in every direction outside their span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probes.drift import MIN_RELIABILITY, Grams, Products
from probes.nulls.draws import NullDraws

STATISTIC = "alignment_crossfit"
TOP = (1, 3, 10, 50)
_RELATIVE_ZERO = 1e-10


def isotropic(observed: float, width: int) -> NullDraws:
    """A displacement in a uniformly random direction of `width` dimensions; its law is exact."""
    return NullDraws("isotropic", STATISTIC, observed, width=width)


@dataclass(frozen=True)
class Spectrum:
    """Ledoit-Wolf covariance of rows of activations, in its own axes.

    Attributes:
        rows: the centred rows.
        gram: their inner products.
        vectors: eigenvectors of the rows' Gram matrix, largest first, [prompt, rank].
        scale: length of the rows along each axis, the square roots of the Gram matrix's eigenvalues, [rank].
        variances: variance along each axis after shrinkage, [rank].
        floor: variance in every direction that no row reaches.
        shrinkage: Ledoit-Wolf weight of the identity, in [0, 1].
    """

    rows: Float[np.ndarray, "prompt d_model"]
    gram: Float[np.ndarray, "prompt prompt"]
    vectors: Float[np.ndarray, "prompt rank"]
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

        Centring in each class is for differences witness - aligned: there the gap between the classes is the
        reversion that is asked about, and a null that holds it as its loudest direction would explain away
        every reversion that is specific to harmful prompts. `shrinkage` takes the place of Ledoit and Wolf's weight.
        """
        rows = rows.astype(np.float64)
        for members in [slice(None)] if classes is None else [classes, ~classes]:
            rows[members] -= rows[members].mean(axis=0)
        count, width = rows.shape
        gram = rows @ rows.T
        values, vectors = np.linalg.eigh(gram)
        keep = np.flatnonzero(values > _RELATIVE_ZERO * values[-1])[::-1][:width]
        shrinkage = _ledoit_wolf(gram, width) if shrinkage is None else shrinkage
        mean = float(np.trace(gram)) / count / width
        variances = (1 - shrinkage) * values[keep] / count + shrinkage * mean
        return cls(rows, gram, vectors[:, keep], np.sqrt(values[keep]), variances, shrinkage * mean, shrinkage)

    @property
    def beyond(self) -> int:
        """Number of dimensions that no row reaches."""
        return self.rows.shape[1] - self.scale.size

    @property
    def participation_ratio(self) -> float:
        """tr(Σ)² / tr(Σ²): how many directions carry the variance; the null widens as it falls."""
        total = self.variances.sum() + self.beyond * self.floor
        return float(total**2 / ((self.variances**2).sum() + self.beyond * self.floor**2))

    def coordinates(self, vectors: Float[np.ndarray, "prompt d_model"]) -> Float[np.ndarray, "prompt rank"]:
        """Vectors along the axes of the covariance; what lies outside the rows' span is not in them."""
        return (vectors @ self.rows.T) @ self.vectors / self.scale

    @property
    def axes(self) -> Float[np.ndarray, "rank d_model"]:
        """Unit vectors of the covariance, loudest first; orthogonal to all of them it is `floor` everywhere."""
        return (self.vectors.T @ self.rows) / self.scale[:, None]

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " d_model"]:
        """One draw of N(0, Σ)."""
        axes = self.axes
        outside = rng.standard_normal(self.rows.shape[1]) * np.sqrt(self.floor)
        inside = rng.standard_normal(self.scale.size) * np.sqrt(self.variances)
        return inside @ axes + outside - (axes @ outside) @ axes

    def solved(self, vector: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_model"]:
        """Σ⁻¹ vector; without shrinkage, what no row reaches is left out."""
        axes = self.axes
        along = axes @ vector
        inside = np.divide(along, self.variances, out=np.zeros_like(along), where=self.variances > 0) @ axes
        return inside + (vector - along @ axes) / self.floor if self.floor > 0 else inside

    def cosines(
        self,
        direction: Float[np.ndarray, " d_model"],
        mixtures: Float[np.ndarray, "draw prompt"],
        seed: Sequence[int],
        without: Sequence[int] = (0,),
    ) -> Float[np.ndarray, "variant draw"]:
        """Cosines of `direction` with draws of N(0, Σ), after the loudest axes are taken out of both.

        Args:
            direction: the fixed vector.
            mixtures: standard normal numbers. A draw is that mixture of the rows, so that the same mixture
                gives the same event at another layer.
            seed: of the part of the draws that no row reaches.
            without: for each variant, how many of the loudest axes are taken out.
        """
        along = self.coordinates(direction[None, :])[0]
        rest = max(float(direction @ direction - along @ along), 0.0) if self.beyond else 0.0
        # float32 is plenty for a random number, and twice as quick
        axes = mixtures @ self.vectors.astype(np.float32)
        outside, size = self._outside(mixtures.shape[0], rest, seed)
        kept = np.arange(along.size)[:, None] >= np.asarray(without)[None, :]
        top = self.variances[0]
        pulls = kept * (np.sqrt(self.variances / top) * along)[:, None]
        products = axes @ pulls.astype(np.float32) + outside[:, None] / np.sqrt(top)
        np.square(axes, out=axes)
        sizes = axes @ (kept * self.variances[:, None] / top).astype(np.float32) + size[:, None] / top
        lengths = (kept * (along**2)[:, None]).sum(axis=0) + rest
        with np.errstate(divide="ignore", invalid="ignore"):
            return (products / np.sqrt(sizes * lengths)).T

    def _outside(self, draws: int, rest: float, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Of each draw's part outside the rows' span: its product with the direction, and its squared
        length.
        """
        if self.beyond == 0 or self.floor == 0:
            return np.zeros(draws), np.zeros(draws)
        rng = np.random.default_rng(list(seed))
        towards = rng.standard_normal(draws)
        others = rng.chisquare(self.beyond - 1, draws) if self.beyond > 1 else np.zeros(draws)
        return np.sqrt(self.floor * rest) * towards, self.floor * (towards**2 + others)

    def reweighed(self, grams: Grams, moved: np.ndarray, back: np.ndarray, weights: np.ndarray, beyond: float) -> Grams:
        """Gram matrices in another metric: `weights` along the axes, `beyond` outside them.

        Args:
            grams: in the ordinary metric.
            moved: the displacements' coordinates.
            back: the reversions' coordinates.
            weights: of each axis.
            beyond: of every direction that no row reaches.
        """
        extra = weights - beyond
        return Grams(
            beyond * grams.moved + (moved * extra) @ moved.T,
            beyond * grams.cross + (moved * extra) @ back.T,
            beyond * grams.back + (back * extra) @ back.T,
            grams.harmful,
        )


def covariance(name: str, observed: float, cosines: Float[np.ndarray, " draw"]) -> NullDraws:
    """A displacement drawn from N(0, Σ); `cosines` as of `Spectrum.cosines`."""
    return NullDraws(name, STATISTIC, observed, cosines)


def whitened(
    spectrum: Spectrum,
    grams: Grams,
    moved: np.ndarray,
    back: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
) -> NullDraws:
    """cos(Σ^-½ d, Σ^-½ v), cross-fitted; where d ~ N(0, Σ), the whitened d has no preferred direction:
    exact.
    """
    if spectrum.beyond and spectrum.floor <= 0:
        singular = "the covariance has no inverse: more dimensions than prompts, and no shrinkage"
        return NullDraws("whitened", "alignment_whitened", None, reason=singular)
    # multiplied through by the largest variance, so that no weight is huge
    top = spectrum.variances[0]
    beyond = top / spectrum.floor if spectrum.beyond else 0.0
    metric = spectrum.reweighed(grams, moved, back, top / spectrum.variances, beyond)
    observed, why = _judged(metric, halves, "whitening")
    return NullDraws("whitened", "alignment_whitened", observed, width=spectrum.rows.shape[1], reason=why)


def top_removed(
    count: int,
    spectrum: Spectrum,
    grams: Grams,
    moved: np.ndarray,
    back: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    cosines: Float[np.ndarray, " draw"],
) -> NullDraws:
    """The cross-fitted cosine without the `count` loudest axes of Σ, against draws of N(0, Σ) without them.

    Not defined where that would take out more than a sixteenth of the width or half of the axes that the
    prompts reach (that is no longer taking out a few loud directions), or where what is left of the
    reversion direction does not agree with itself across folds.
    """
    name, statistic = f"top_{count}_removed", f"alignment_top_{count}_removed"
    width, rank = spectrum.rows.shape[1], spectrum.scale.size
    if count > min(width // 16, rank // 2):
        too_many = f"{count} of {width} dimensions, {rank} of them reached by prompts, are more than a few"
        return NullDraws(name, statistic, None, reason=too_many)
    metric = spectrum.reweighed(grams, moved, back, (np.arange(rank) >= count).astype(float), 1.0)
    observed, why = _judged(metric, halves, f"taking out the {count} loudest directions")
    return NullDraws(name, statistic, observed, cosines if why is None else np.empty(0), reason=why)


def _judged(metric: Grams, halves: tuple[np.ndarray, np.ndarray], doing: str) -> tuple[float | None, str | None]:
    products = Products.of(metric, *halves)
    agreement = float((products.vab / np.sqrt(products.vaa * products.vbb)).mean())
    if not agreement >= MIN_RELIABILITY:
        return (
            None,
            f"after {doing}, the reversion does not agree with itself across folds ({agreement:.2f})",
        )
    return float(products.crossfit().mean()), None


def _ledoit_wolf(gram: np.ndarray, width: int) -> float:
    """Ledoit and Wolf's shrinkage from the centred rows' Gram matrix, in place of width x width products.

    Equal to `sklearn.covariance.ledoit_wolf_shrinkage`, which would take minutes at width 4096 over all
    layers.
    """
    count = gram.shape[0]
    trace, squared = np.trace(gram) / count, (gram**2).sum() / count**2
    dispersion = (squared - trace**2 / width) / width
    error = ((np.diag(gram) ** 2).sum() / count - squared) / (width * count)
    return 0.0 if error <= 0 or dispersion <= 0 else float(min(error, dispersion) / dispersion)
