"""All activation-level nulls of one layer; what does not depend on the checkpoint is done once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from probes.drift import Grams, Products, check, split_weights
from probes.nulls.draws import NullDraws
from probes.nulls.gaussian import TOP, Spectrum, covariance, isotropic, top_removed, whitened
from probes.nulls.resampling import (
    Resampling,
    label_permutation,
    label_permutation_crossfit,
    random_difference,
    sign_flip,
    squared_lengths,
)
from probes.statistics import NullResult


class LayerNulls:
    """The nulls of one layer, ready for any number of checkpoints.

    Memory is a few prompts x prompts and draws x prompts matrices; nothing has the size draws x width.
    """

    def __init__(
        self,
        aligned: Float[np.ndarray, "prompt d_model"],
        witness: Float[np.ndarray, "prompt d_model"],
        resampling: Resampling,
        *,
        layer: int = 0,
        splits: int = 50,
    ) -> None:
        """Decompose the covariances and draw from them.

        Args:
            aligned: the aligned model's activations.
            witness: the witness's.
            resampling: random numbers, the same object for every layer.
            layer: its index, which seeds what the layers do not share.
            splits: as for `drift.measure`, whose folds are used again (same seed, same folds).
        """
        self._shared, self._harmful = resampling, resampling.harmful
        self._aligned = aligned.astype(np.float64)
        self._back = witness - self._aligned
        self._back_gram = self._back @ self._back.T
        direction = self._back[self._harmful].mean(axis=0)
        rng = np.random.default_rng([resampling.seed, 0xD81F7])
        first, second = split_weights(self._harmful, splits, rng, resampling.groups)
        self._halves = (first[:, self._harmful], second[:, self._harmful])
        self.spectrum = Spectrum.of(self._aligned)
        differences = Spectrum.of(self._back, self._harmful)
        self.participation_ratios = {
            "covariance_aligned": self.spectrum.participation_ratio,
            "covariance_difference": differences.participation_ratio,
        }
        seed = (resampling.seed, 0x5EC7, layer + 1)
        self._cosines = self.spectrum.cosines(direction, resampling.mixtures, (*seed, 0), (0, *TOP))
        self._difference = differences.cosines(direction, resampling.mixtures, (*seed, 1))[0]
        along, length = self.spectrum.rows @ direction, float(np.linalg.norm(direction))
        self._differences = random_difference(0.0, self.spectrum.gram, along, length, resampling.pairs)
        self._back_axes = self.spectrum.coordinates(self._back[self._harmful])
        self._back_lengths = squared_lengths(self._back_gram, resampling.labels)

    def against(self, tuned: Float[np.ndarray, "prompt d_model"]) -> dict[str, NullDraws]:
        """Every activation-level null for one checkpoint, by name, in the order in which they are shown.

        The caller has run `drift.check` on these activations.
        """
        moved = tuned - self._aligned
        grams = Grams(moved @ moved.T, moved @ self._back.T, self._back_gram, self._harmful)
        inside, axes = grams.only_harmful(), self.spectrum.coordinates(moved[self._harmful])
        observed = float(Products.of(inside, *self._halves).crossfit().mean())
        found = [
            isotropic(observed, tuned.shape[1]),
            covariance("covariance_aligned", observed, self._cosines[0]),
            covariance("covariance_difference", observed, self._difference),
            whitened(self.spectrum, inside, axes, self._back_axes, self._halves),
            *(
                top_removed(count, self.spectrum, inside, axes, self._back_axes, self._halves, cosines)
                for count, cosines in zip(TOP, self._cosines[1:], strict=True)
            ),
            replace(self._differences, observed=observed),
            sign_flip(grams, self._shared),
            label_permutation(grams, self._shared, self._back_lengths),
            label_permutation_crossfit(grams, self._shared),
        ]
        return {null.name: null for null in found}


def activation_nulls(
    aligned: Float[np.ndarray, "prompt d_model"],
    witness: Float[np.ndarray, "prompt d_model"],
    tuned: Float[np.ndarray, "prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    draws: int = 10_000,
    permutations: int = 9_999,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> list[NullResult]:
    """Every activation-level null of one checkpoint at one layer.

    For more than one checkpoint or layer, use `LayerNulls`, which shares what can be shared.

    Args:
        aligned: the aligned model's activations.
        witness: the witness's activations on the same prompts.
        tuned: the checkpoint's activations on the same prompts.
        harmful: which prompts are harmful.
        draws: of each null.
        permutations: of the labels.
        seed: of everything random.
        groups: the topic of each prompt; None where prompts are independent.

    Raises:
        StatisticsError: see `drift.check`.
    """
    check(aligned, witness, tuned, harmful)
    resampling = Resampling.of(harmful, draws=draws, permutations=permutations, seed=seed, groups=groups)
    found = LayerNulls(aligned, witness, resampling).against(tuned)
    return [null.result() for null in found.values()]
