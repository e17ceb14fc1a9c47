"""Planted displacements: f·v_rev + noise, as long as a run's own displacement and with its prompts' residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from probes.nulls.catalogue import DIRECTION
from probes.nulls.layer import LayerNulls

REPLICATES = 200
SHAM = "sham"


@dataclass(frozen=True)
class Plants:
    """Planted displacements: a move common to all harmful prompts, and residuals with flipped signs.

    Attributes:
        residuals: of the harmful prompts' displacements from their mean.
        signs: of each residual in each replicate.
        moves: the planted mean displacement.
    """

    residuals: Float32[np.ndarray, "harmful d_model"]
    signs: Float32[np.ndarray, "replicate harmful"]
    moves: Float32[np.ndarray, "replicate d_model"]

    def residual_means(self, weights: Float[np.ndarray, " harmful"]) -> Float32[np.ndarray, "replicate d_model"]:
        """Mean residual of the prompts under weights; the planted displacement's is this plus `moves`."""
        return (self.signs * weights.astype(np.float32)) @ self.residuals


class Planting:
    """What is planted at one layer for one checkpoint and one alternative.

    Attributes:
        along: the planted part along the reversion, [d_model].
        across: length of the noise beside it.
    """

    def __init__(self, layer: LayerNulls, tuned: Float[np.ndarray, "prompt d_model"], alignment: float) -> None:
        """Take norm and residuals from a checkpoint's displacement, never its direction.

        Args:
            layer: the tests of the layer.
            tuned: the checkpoint's activations.
            alignment: the declared alternative, in (0, 1).
        """
        self._layer, inside = layer, (tuned - layer.aligned)[layer.harmful]
        self._rng = np.random.default_rng([layer.resampling.seed, 0x50E8])
        mean = inside.mean(axis=0)
        size, units = float(np.linalg.norm(mean)), layer.resampling.sign_units
        signs = self._rng.choice(np.array([-1.0, 1.0], dtype=np.float32), (REPLICATES, units.max() + 1))
        self._residuals, self._signs = (inside - mean).astype(np.float32), signs[:, units]
        self.along = alignment * size * layer.reversion / np.linalg.norm(layer.reversion)
        self.across = float(np.sqrt(1 - alignment**2) * size)

    def like(self, name: str) -> Plants:
        """Plants whose noise has the covariance of this name, within the classes."""
        shape = (REPLICATES, self._layer.harmful.size)
        mixtures = self._rng.standard_normal(shape, dtype=np.float32)
        return self._plants(self._layer.covariances[name].draw(mixtures))

    def by_law(self, shams: Float32[np.ndarray, "sham d_model"] | None) -> dict[str, Plants]:
        """Plants by the law of their noise: of each test that is defined, and of the shams (`own_sham`)."""
        layer, resampling = self._layer, self._layer.resampling
        laws = {name: self.like(name) for name in layer.covariances if layer.references[name].defined}
        if layer.references["random_difference"].defined:
            first, second = resampling.same[:, self._rng.choice(resampling.same.shape[1], REPLICATES)]
            laws["random_difference"] = self._plants(layer.aligned[first] - layer.aligned[second])
        if shams is not None:
            laws[SHAM] = self._plants(shams[own_sham(len(shams))])
        if resampling.few_signs is None:
            laws[DIRECTION] = self._plants(np.zeros((REPLICATES, self.along.size)))
        return laws

    def _plants(self, noise: np.ndarray) -> Plants:
        """The planted part, and noise that has no alignment of its own on the mean: what is declared is the sum's."""
        towards = self.along / np.linalg.norm(self.along)
        length = np.linalg.norm(noise, axis=1, keepdims=True)
        unit = np.divide(noise, length, out=np.zeros(noise.shape), where=length > 0)
        unit -= (unit @ towards).mean() * towards
        size = np.sqrt((unit**2).sum(axis=1).mean()) or 1.0
        return Plants(self._residuals, self._signs, (self.along + self.across / size * unit).astype(np.float32))


def own_sham(count: int) -> Int[np.ndarray, " replicate"]:
    """Which of `count` shams is the noise of a replicate."""
    return np.arange(REPLICATES) % count
