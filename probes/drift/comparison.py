"""Comparing two checkpoints of one lineage: subspaces, representations, and how far the weights went where.

Nothing here searches for a match between bases: checkpoints of one lineage share theirs, and `basis_check` says
when two models do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import linalg

from probes.drift.geometry import spectrum
from probes.drift.inner_products import Gram, inner_products, sum_of_product
from probes.errors import StatisticsError

LEADING = 10  # leading directions of per-prompt variation whose angles are compared
_FEWEST = 4  # prompts, for a debiased similarity
_RELATIVE_ZERO = 1e-10
_BASIS_GAIN = 0.5


@dataclass(frozen=True)
class Overlap:
    """How much of one subspace lies in another.

    Attributes:
        value: ‖Q1ᵀQ2‖²_F / min(k1, k2), in [0, 1]: 1 where the smaller lies inside the larger.
        random: its mean for random subspaces, max(k1, k2) / d.
        angles: principal angles in radians, largest first.
    """

    value: float
    random: float
    angles: tuple[float, ...]


@dataclass(frozen=True)
class BasisCheck:
    """Whether raw differences between two checkpoints' activations mean anything.

    Attributes:
        raw: ‖X - Y‖² / (‖X‖² + ‖Y‖²) of the centred activations: 0 for the same, about 1 for unrelated ones.
        rotated: the same after the rotation that brings Y nearest to X (orthogonal Procrustes).
        shared: whether the bases are the same: rotating does not take away more than half of a difference
            that is there.
    """

    raw: float
    rotated: float
    shared: bool


@dataclass(frozen=True)
class TensorDrift:
    """How far one weight matrix went, and how much of that lies where alignment had moved it.

    Attributes:
        frobenius: ‖θ_T - θ_S‖_F.
        spectral: its largest singular value.
        relative: frobenius over ‖θ_S‖_F.
        inside: share of the squared Frobenius norm inside the column span of θ_H - θ_S, in [0, 1]; None where
            alignment did not move this tensor, or where the tensor did not move since.
        random: what `inside` would be for a drift in random directions, rank / rows.
    """

    frobenius: float
    spectral: float
    relative: float
    inside: float | None
    random: float


@dataclass(frozen=True)
class Portrait:
    """What of a checkpoint at one layer is compared with any other: worked out once, whatever the number of pairs.

    Attributes:
        displacement: mean activation over the harmful prompts, less that of the aligned model.
        gram: centred Gram matrix of all prompts.
        hsic: its debiased HSIC with itself; 0 where the prompts do not differ, or are fewer than four.
        axes: the ten leading directions in which prompts differ, orthonormal rows; fewer where fewer exist.
    """

    displacement: Float[np.ndarray, " d_model"]
    gram: Gram
    hsic: float
    axes: Float[np.ndarray, "axis d_model"]

    @classmethod
    def of(
        cls,
        rows: Float[np.ndarray, "prompt d_model"],
        harmful: Bool[np.ndarray, " prompt"],
        aligned: Float[np.ndarray, " d_model"],
    ) -> Portrait:
        """The portrait from a checkpoint's activations; `aligned` is the aligned model's mean over harmful prompts."""
        inner = gram(rows)
        hsic = _unbiased_hsic(inner, inner) if len(rows) >= _FEWEST else 0.0
        return cls(mean_displacement(rows, harmful, aligned), inner, hsic, spectrum(inner, rows, LEADING).axes)


def mean_displacement(
    rows: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    aligned: Float[np.ndarray, " d_model"],
) -> Float[np.ndarray, " d_model"]:
    """Mean activation over the harmful prompts, less that of the aligned model; float64."""
    return rows[harmful].mean(axis=0, dtype=np.float64) - aligned


@dataclass(frozen=True)
class LayerComparison:
    """Two checkpoints at one layer; a number that is not defined is None.

    Attributes:
        distance: ‖μ_end − μ_start‖ over harmful prompts, in units of ‖v_rev‖.
        cosine: that of their displacements from the aligned model.
        cka: debiased linear CKA over all prompts.
        overlap: of their ten leading directions of variation.
    """

    distance: float | None
    cosine: float | None
    cka: float | None
    overlap: Overlap | None


def compare_layers(start: Portrait, end: Portrait, reversion: float) -> LayerComparison:
    """Compare two checkpoints at one layer; `reversion` is ‖v_rev‖ there, from the same prompts."""
    lengths = float(np.linalg.norm(start.displacement) * np.linalg.norm(end.displacement))
    distance = float(np.linalg.norm(end.displacement - start.displacement))
    own = start.hsic * end.hsic  # not above 0 where a layer does not vary over prompts
    return LayerComparison(
        distance=distance / reversion if reversion else None,
        cosine=float(start.displacement @ end.displacement) / lengths if lengths else None,
        cka=_unbiased_hsic(start.gram, end.gram) / float(np.sqrt(own)) if own > 0 else None,
        overlap=_overlap_of_bases(start.axes.T, end.axes.T) if len(start.axes) and len(end.axes) else None,
    )


def overlap(first: Float[np.ndarray, "k_first d_model"], second: Float[np.ndarray, "k_second d_other"]) -> Overlap:
    """Principal angles and overlap of the subspaces that the rows span.

    Raises:
        StatisticsError: the rows are of different widths, not finite, or all zero.
    """
    _same_width(first, second)
    return _overlap_of_bases(orthonormal(first), orthonormal(second))


def _overlap_of_bases(first: Float[np.ndarray, "d k_first"], second: Float[np.ndarray, "d k_second"]) -> Overlap:
    """The same from orthonormal columns."""
    angles = linalg.subspace_angles(first, second)
    least, most = sorted((first.shape[1], second.shape[1]))
    value = float((np.cos(angles) ** 2).sum() / least)
    return Overlap(min(value, 1.0), most / len(first), tuple(float(angle) for angle in angles))


def linear_cka(
    first: Float[np.ndarray, "prompt d_first"],
    second: Float[np.ndarray, "prompt_second d_second"],
    *,
    debiased: bool = True,
) -> float:
    """Similarity of two representations of the same prompts, whatever their bases.

    Linear centred kernel alignment (Kornblith et al., arXiv 1905.00414); `debiased` uses the unbiased HSIC of
    Song et al. (2012), which the number of dimensions does not push up: needed with fewer prompts than dimensions.

    Returns:
        1 for equal representations up to rotation and scale, about 0 for unrelated ones; debiased, it may be a
        little below 0.

    Raises:
        StatisticsError: fewer than 4 prompts, not the same number of prompts, or representations that do not vary.
    """
    if first.shape[0] != second.shape[0] or first.shape[0] < _FEWEST:
        raise StatisticsError(
            "These representations cannot be compared",
            got=f"{first.shape[0]} and {second.shape[0]} prompts",
            expected="the same prompts in both, 4 or more",
        )
    k, g, hsic = gram(first), gram(second), _unbiased_hsic if debiased else sum_of_product
    own = hsic(k, k) * hsic(g, g)
    if not own > 0:
        raise StatisticsError("A representation does not vary over the prompts", expected="prompts that differ")
    return float(hsic(k, g) / np.sqrt(own))


def selectivity(
    first: Float[np.ndarray, "prompt d_model"],
    second: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
) -> float:
    """(1 − CKA on harmful prompts) / (1 − CKA on harmless ones) of two checkpoints at one layer (arXiv 2608.23497).

    Above 1 the two differ more in how they tell harmful prompts apart than in how they tell harmless ones. Biased CKA,
    which is at most 1, so that the ratio has a sign; infinite where harmless prompts differ in nothing.

    Raises:
        StatisticsError: as `linear_cka`, of either class.
    """
    unlike = [1.0 - linear_cka(first[part], second[part], debiased=False) for part in (harmful, ~harmful)]
    return unlike[0] / unlike[1] if unlike[1] > _RELATIVE_ZERO else np.inf


def basis_check(
    first: Float[np.ndarray, "prompt d_model"], second: Float[np.ndarray, "prompt_second d_second"]
) -> BasisCheck:
    """Do two checkpoints write in the same basis? Raw differences, and every statistic of drift, need that they do.

    With fewer prompts than dimensions a rotation can fit much by accident, so what counts is how little of the
    difference a rotation takes away, not how small the rest is.

    Raises:
        StatisticsError: the widths or the prompts differ, or the activations are not finite.
    """
    _same_width(first, second)
    if first.shape[0] != second.shape[0]:
        raise StatisticsError(
            "Activations of different prompts cannot be compared",
            got=f"{first.shape[0]} and {second.shape[0]} prompts",
        )
    x, y = (rows - rows.mean(axis=0, dtype=np.float64) for rows in (first, second))
    total = float((x**2).sum() + (y**2).sum())
    if total == 0:
        raise StatisticsError("The activations do not vary over the prompts", expected="prompts that differ")
    raw = float(((x - y) ** 2).sum()) / total
    rotated = max(0.0, 1 - 2 * _nuclear_norm_of_product(x, y) / total)
    return BasisCheck(raw, rotated, raw < _BASIS_GAIN or raw - rotated < _BASIS_GAIN * raw)


def weight_drift(
    aligned: Float[np.ndarray, "*shape"],
    tuned: Float[np.ndarray, "*shape"],
    witness: Float[np.ndarray, "*shape"] | None = None,
) -> TensorDrift:
    """How far a tensor went from the aligned model, and the share of it inside the span of θ_H - θ_S.

    The share uses the exact projector V(VᵀV)⁺Vᵀ on the columns of V = θ_H - θ_S (the VVᵀ/‖V‖ of Safe LoRA,
    arXiv 2405.16833, is no projector). A tensor with one axis counts as one column; with more than two, the axes
    after the first are taken together. Columns of V below 1e-10 of its largest singular value are rounding.

    Raises:
        StatisticsError: the tensors are not finite.
    """
    base = matrix_of(aligned)
    moved = matrix_of(tuned) - base
    if not np.isfinite(moved).all():
        raise StatisticsError("The weights are not finite", next_step="Find out which checkpoint is damaged.")
    frobenius, size = float(np.linalg.norm(moved)), float(np.linalg.norm(base))
    spectral = float(np.linalg.norm(moved, 2)) if frobenius else 0.0
    inside, rank = None, 0
    if witness is not None:
        back = matrix_of(witness) - base
        if back.any():
            basis = orthonormal(back.T)
            rank = basis.shape[1]
            inside = float(((basis.T @ moved) ** 2).sum() / frobenius**2) if frobenius else None
    return TensorDrift(frobenius, spectral, frobenius / size if size else np.inf, inside, rank / base.shape[0])


def matrix_of(tensor: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "row column"]:
    """A tensor as float64 columns: one axis is one column, the axes after the first are taken together."""
    return tensor.astype(np.float64).reshape(tensor.shape[0] if tensor.ndim else 1, -1)


def _same_width(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise StatisticsError(
            "Vectors of different widths live in different spaces", got=f"{first.shape[1]} and {second.shape[1]}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise StatisticsError("A vector is not finite", expected="numbers only")


def orthonormal(rows: Float[np.ndarray, "row d"], *, floor: float = 0.0) -> Float[np.ndarray, "d rank"]:
    """Orthonormal columns that span the rows; singular values at or below `floor` are taken for rounding.

    Raises:
        StatisticsError: all rows are zero.
    """
    _, sizes, axes = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    if not sizes[0] > 0:
        raise StatisticsError("All vectors are zero, so they span nothing", expected="at least one that is not")
    return axes[sizes > max(_RELATIVE_ZERO * sizes[0], floor)].T


def gram(rows: Float[np.ndarray, "prompt d_model"]) -> Gram:
    """Inner products of the prompts' activations about their mean, in float64."""
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    return inner_products(centred, centred)


def _unbiased_hsic(k: Gram, g: Gram) -> float:
    """Song et al. (2012), equation 5, of matrices without their diagonals.

    The common factor 1 / n(n-3) is left out, as CKA divides it away.
    """
    count = len(k)
    k_diagonal, g_diagonal = k.diagonal(), g.diagonal()
    k_sums, g_sums = k.sum(axis=0) - k_diagonal, g.sum(axis=0) - g_diagonal
    product = sum_of_product(k, g) - float(k_diagonal @ g_diagonal)
    product += k_sums.sum() * g_sums.sum() / (count - 1) / (count - 2)
    return float(product - 2 * (k_sums @ g_sums) / (count - 2))


def _nuclear_norm_of_product(x: np.ndarray, y: np.ndarray) -> float:
    """‖XᵀY‖_*: what the best rotation reaches. From the small side: singular values of Rx Ryᵀ with X = Qx... ."""
    (_, small_x), (_, small_y) = np.linalg.qr(x.T), np.linalg.qr(y.T)
    return float(np.linalg.svd(small_x @ small_y.T, compute_uv=False).sum())
