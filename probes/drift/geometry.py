"""Where things lie: planes for trajectories, spectra of activations, and PCA and UMAP maps of prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from probes.drift.inner_products import Factors, Gram
from probes.errors import StatisticsError


def reversion_frame(
    displacements: Float[np.ndarray, "checkpoint d_model"], reversion: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "3 d_model"]:
    """Axes in which trajectories at one layer are drawn: v̂_rev, then the main and second off-axis direction.

    The off-axis directions are the leading right singular vectors of what the displacements have beside v̂_rev,
    each turned so that the largest displacement lies on its positive side; a direction that nothing moves along is 0.

    Args:
        displacements: mean displacement μ_T − μ_S of each checkpoint.
        reversion: v_rev = μ_H − μ_S, any norm but 0.

    Returns:
        Orthonormal rows (or zero rows). Multiply displacements by their transpose for coordinates.

    Raises:
        StatisticsError: the witness stands where the aligned model stands.
    """
    norm = np.linalg.norm(reversion)
    if norm == 0:
        raise StatisticsError("The witness equals the aligned model at this layer, so no direction leads back")
    axis = np.asarray(reversion, dtype=np.float64) / norm
    off_axis = displacements - np.outer(displacements @ axis, axis)
    frame = np.zeros((3, axis.size))
    frame[0] = axis
    _, strengths, rows = np.linalg.svd(off_axis, full_matrices=False)
    floor = 1e-9 * max(float(np.linalg.norm(displacements)), np.finfo(np.float64).tiny)
    for place, (strength, row) in enumerate(zip(strengths[:2], rows[:2], strict=False), start=1):
        if strength > floor:
            along = off_axis @ row
            frame[place] = row * np.sign(along[np.argmax(np.abs(along))])
    return frame


@dataclass(frozen=True)
class Spectrum:
    """How a cloud of activations is spread.

    Attributes:
        variances: along each principal axis, largest first, in squared activation units.
        axes: the leading principal axes, orthonormal rows, as many as were asked for and exist.
    """

    variances: Float[np.ndarray, " component"]
    axes: Float[np.ndarray, "axis d_model"]

    @property
    def participation_ratio(self) -> float:
        """tr(Σ)² / tr(Σ²): in how many directions the cloud is spread, from 1 to the smaller of prompts and width."""
        total = float((self.variances**2).sum())
        return float(self.variances.sum()) ** 2 / total if total else 0.0


def spectrum(gram: Gram, rows: Float[np.ndarray, "prompt d_model"], axes: int = 0) -> Spectrum:
    """Principal axes of activations, from the smaller side: the prompts', or the dimensions' where they are fewer.

    Args:
        gram: their centred Gram matrix (`probes.drift.comparison.gram`).
        rows: the activations.
        axes: how many principal axes to work out.
    """
    small = gram.left.T @ gram.left if isinstance(gram, Factors) else gram
    # without vectors it takes a fifth of the time
    values, vectors = np.linalg.eigh(small) if axes else (np.linalg.eigvalsh(small), np.empty((len(small), 0)))
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
    count = min(axes, int((values > 1e-10 * max(values[0], np.finfo(np.float64).tiny)).sum()))
    leading = vectors[:, :count].T
    if not isinstance(gram, Factors):
        leading = (leading @ (rows - rows.mean(axis=0, dtype=np.float64))) / np.sqrt(values[:count])[:, None]
    return Spectrum(values / max(len(rows) - 1, 1), leading)


Method = Literal["pca", "umap"]
MIN_PROMPTS = 8  # fewer make no map
NEIGHBOURS = 15  # that a map tries to keep, and that its trustworthiness is judged on
_JUDGED = 2000  # fitted rows at most, on which that is judged: all pairs of them are held in memory


@dataclass(frozen=True)
class PromptMap:
    """A map of activations at one layer, fitted once; any checkpoint can be placed in it.

    Attributes:
        method: `pca` or `umap`.
        seed: the same activations and seed give the same map.
        places: (dimensions → coordinates of the fitted rows), for 2 and 3 dimensions.
        trustworthiness: (dimensions → share in [0, 1]) of neighbourhoods that the map kept rather than made up
            (Venna and Kaski, 2001), with `neighbours` neighbours.
        neighbours: that number.
        explained: share of variance along each axis; empty for UMAP.
    """

    method: Method
    seed: int
    places: dict[int, np.ndarray]
    trustworthiness: dict[int, float]
    neighbours: int
    explained: tuple[float, ...]
    _models: dict[int, Any] = field(repr=False)

    @classmethod
    def fit(cls, method: Method, rows: Float[np.ndarray, "prompt d_model"], *, seed: int = 0) -> PromptMap:
        """Fit the map in 2 and in 3 dimensions; a PCA map in 2 is the face of the one in 3.

        Raises:
            StatisticsError: too few prompts, or activations that are not finite or do not vary.
        """
        if len(rows) < MIN_PROMPTS or not np.isfinite(rows).all() or not np.ptp(rows, axis=0).any():
            raise StatisticsError(
                "There is no map of these activations",
                got=f"{len(rows)} prompts",
                expected=f"{MIN_PROMPTS} that differ",
            )
        neighbours = min(NEIGHBOURS, (len(rows) - 1) // 2)
        models = _models(method, rows, neighbours, seed)
        places = {axes: _places(model, axes, rows, fitted=True) for axes, model in models.items()}
        from sklearn.manifold import trustworthiness

        some = slice(None, None, -(-len(rows) // _JUDGED))
        trust = {
            axes: float(trustworthiness(rows[some], positions[some], n_neighbors=neighbours))
            for axes, positions in places.items()
        }
        explained = tuple(float(share) for share in models[3].explained_variance_ratio_) if method == "pca" else ()
        return cls(method, seed, places, trust, neighbours, explained, models)

    def place(self, rows: Float[np.ndarray, "prompt d_model"]) -> dict[int, np.ndarray]:
        """Coordinates of other activations in the map, for 2 and 3 dimensions."""
        return {axes: _places(model, axes, rows, fitted=False) for axes, model in self._models.items()}


def _models(method: Method, rows: np.ndarray, neighbours: int, seed: int) -> dict[int, Any]:
    if method == "pca":
        from sklearn.decomposition import PCA

        model = PCA(3, random_state=seed).fit(rows)
        return {2: model, 3: model}
    import warnings

    import umap
    from threadpoolctl import threadpool_limits

    # numba, which UMAP runs on, sets the OpenMP threads of the whole process when it starts: torch would sum otherwise.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.simplefilter("ignore")  # about its own choices: one thread with a seed, disconnected prompts
        # A seed and one thread: the same map every time.
        return {
            axes: umap.UMAP(
                n_components=axes, n_neighbors=neighbours, random_state=seed, transform_seed=seed, n_jobs=1
            ).fit(rows)
            for axes in (2, 3)
        }


def _places(model: Any, axes: int, rows: np.ndarray, *, fitted: bool) -> np.ndarray:
    places = model.embedding_ if fitted and hasattr(model, "embedding_") else model.transform(rows)
    return np.asarray(places[:, :axes], dtype=np.float32)
