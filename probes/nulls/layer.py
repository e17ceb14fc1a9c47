"""All activation-level tests of one layer; what does not depend on the checkpoint is done once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from probes.drift import Grams, Products, splits_of_seed
from probes.drift.inner_products import inner_products
from probes.nulls.draws import NullDraws
from probes.nulls.gaussian import ClassCovariance, covariance
from probes.nulls.permutation import label_permutation, label_permutation_crossfit
from probes.nulls.profile import Profile
from probes.nulls.resampling import Resampling, random_difference, sign_flip


class LayerNulls:
    """The tests and the profile of one layer, ready for any number of checkpoints.

    Memory is a few matrices of draws by the smaller of prompts and width and, with fewer prompts than dimensions, of
    prompts by prompts.

    Attributes:
        resampling: the random numbers.
        aligned: the aligned model's activations, [prompt, d_model], float64.
        back: witness − aligned, likewise.
        reversion: the reversion direction.
        splits: weights of the class means in the first halves of the splits, and in the second.
        covariances: within the classes, of the aligned model's activations and of `back`, by the test's name.
        references: the tests whose draws do not depend on the checkpoint, by name; their `observed` means nothing.
    """

    def __init__(
        self,
        aligned: Float[np.ndarray, "prompt d_model"],
        reversions: Float[np.ndarray, "prompt d_model"],
        reversion: Float[np.ndarray, " d_model"],
        resampling: Resampling,
        *,
        layer: int = 0,
        splits: int = 50,
    ) -> None:
        """Draw from the covariances.

        Args:
            aligned: the aligned model's activations.
            reversions: witness − aligned of each prompt, as of `directions.reversion.reversions_at_layer`.
            reversion: the reversion direction of all harmful prompts, not normalised.
            resampling: random numbers, the same object for every layer.
            layer: its index, which seeds what the layers do not share.
            splits: as for `drift.measure`, whose folds are used again (same seed, same folds).
        """
        self.resampling, self.harmful, self.reversion = resampling, resampling.harmful, reversion
        self.aligned = aligned.astype(np.float64)
        self.back = reversions
        self._back_gram = inner_products(self.back, self.back)
        self.splits = splits_of_seed(self.harmful, splits, resampling.seed, resampling.groups)
        self.covariances = {
            "covariance_aligned": ClassCovariance.of(self.aligned, self.harmful),
            "covariance_difference": ClassCovariance.of(self.back, self.harmful),
        }
        self.references = self._references()
        self._seed = (resampling.seed, 0x5EC7, layer + 1)

    @cached_property
    def _profile(self) -> Profile:
        shared, back = self.resampling, self.back[self.harmful]
        drawn = self.halves, shared.mixtures, shared.across, self._seed
        return Profile(self.aligned, back, self.reversion, *drawn)

    @property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the harmful prompts in the halves of the splits."""
        first, second = self.splits
        return first[:, self.harmful], second[:, self.harmful]

    def _references(self) -> dict[str, NullDraws]:
        mixtures, source = self.resampling.mixtures, self.covariances["covariance_aligned"]
        drawn = [
            covariance(name, own, own.cosines(self.reversion, mixtures) if own.varies else None)
            for name, own in self.covariances.items()
        ]
        along, length = source.rows @ self.reversion, float(np.linalg.norm(self.reversion))
        drawn.append(random_difference("random_difference", source.gram, along, length, self.resampling.same))
        return {null.name: null for null in drawn}

    def grams(self, tuned: Float[np.ndarray, "prompt d_model"]) -> Grams:
        """Inner products of a checkpoint's displacements and of the reversion."""
        moved = tuned - self.aligned
        inner = inner_products(moved, moved), inner_products(moved, self.back)
        return Grams(*inner, self._back_gram, self.harmful)

    def observe(self, inside: Grams) -> float:
        """The cross-fitted alignment, from Gram matrices of the harmful prompts; as `drift.measure` gives it."""
        return float(Products.of(inside, *self.halves).crossfit().mean())

    def test_towards(self, grams: Grams) -> dict[str, NullDraws]:
        """The activation-level tests of level 4 for one checkpoint, by name."""
        inside = grams.only_harmful()
        observed = self.observe(inside)
        drawn = [replace(null, observed=observed) if null.defined else null for null in self.references.values()]
        return {null.name: null for null in (sign_flip(inside, self.resampling), *drawn)}

    def test(self, grams: Grams) -> dict[str, NullDraws]:
        """Every activation-level test for one checkpoint, by name: those towards the witness, then of specificity."""
        shared = self.resampling
        specific = [
            label_permutation(grams, shared.labels, shared.few_labels),
            label_permutation_crossfit(grams, shared.fold, shared.fold_labels, shared.few_labels),
        ]
        return self.test_towards(grams) | {null.name: null for null in specific}

    def against(self, tuned: Float[np.ndarray, "prompt d_model"]) -> dict[str, NullDraws]:
        """Every activation-level test, then the profile, for one checkpoint, by name, in the order of showing.

        The caller has run `drift.check` on these activations.
        """
        grams = self.grams(tuned)
        inside, moved = grams.only_harmful(), (tuned - self.aligned)[self.harmful]
        lines = self._profile.against(self.observe(inside), inside, moved)
        return self.test(grams) | {null.name: null for null in lines}
