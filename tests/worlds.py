"""Synthetic activations with a planted truth: what aligned model, witness and fine-tuned checkpoints would show.

A prompt's activation is its content, plus where the checkpoint lies, plus noise of that checkpoint on that prompt.
Everything is expressed in the axes of the content's covariance; no statistic here depends on the choice of axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from probes import nulls
from probes.drift import measure
from probes.verdict.ladder import Evidence, Verdict, judge

LAYER = 7


@dataclass
class World:
    """Checkpoints over the same prompts."""

    rng: np.random.Generator
    per_class: int = 32
    spectrum: np.ndarray = field(default_factory=lambda: np.ones(256))
    noise: float = 0.5

    def __post_init__(self) -> None:
        self.harmful = np.repeat([True, False], self.per_class)
        self.scale = np.sqrt(self.spectrum / self.spectrum.mean())
        self.content = self.like_content(2 * self.per_class)

    @property
    def width(self) -> int:
        return self.spectrum.size

    def like_content(self, count: int | None = None) -> np.ndarray:
        """Vectors with the covariance of the prompts' content."""
        shape = (self.width,) if count is None else (count, self.width)
        return self.rng.standard_normal(shape) * self.scale

    def checkpoint(self, place: np.ndarray | float, noise: float | None = None) -> np.ndarray:
        """Activations [prompt, width] of a checkpoint that lies at `place` (one vector, or one per prompt)."""
        spread = self.noise if noise is None else noise
        return self.content + place + spread * self.like_content(2 * self.per_class)

    def only_harmful(self, vector: np.ndarray) -> np.ndarray:
        """The vector on harmful prompts, nothing on harmless ones."""
        return self.harmful[:, None] * vector


def power_law(width: int, exponent: float = 1.0) -> np.ndarray:
    """A spectrum that falls as rank^-exponent."""
    return np.arange(1, width + 1, dtype=float) ** -exponent


def verdict_of(
    world: World,
    aligned: np.ndarray,
    witness: np.ndarray,
    tuned: np.ndarray,
    *,
    draws: int = 199,
    noise: float | None = None,
    shams: list[np.ndarray] | None = None,
    sham_witnesses: list[np.ndarray] | None = None,
    bootstraps: int = 0,
    splits: int = 50,
) -> tuple[Verdict, dict[str, nulls.NullDraws]]:
    """Measure, run every null and judge, as the stages of a run do."""
    estimates = measure(aligned, witness, tuned, world.harmful, noise=noise, bootstraps=bootstraps, splits=splits)
    resampling = nulls.Resampling.of(
        world.harmful, draws=draws, permutations=draws, seed=int(world.rng.integers(2**31))
    )
    found = nulls.LayerNulls(aligned, witness, resampling, layer=LAYER, splits=splits).against(tuned)
    observed = estimates["alignment_crossfit"].value
    if shams is not None and observed is not None:
        cosines = nulls.sham_drift_cosines(aligned, witness, shams, world.harmful, splits=splits)
        found["sham_drift"] = nulls.sham_drift(observed, cosines)
    if sham_witnesses is not None and observed is not None:
        cosines = nulls.sham_witness_cosines(aligned, sham_witnesses, tuned, world.harmful, splits=splits)
        found["sham_witness"] = nulls.sham_witness(observed, cosines)
    evidence = Evidence("baseline", 0, LAYER, estimates, [null.result() for null in found.values()])
    return judge(evidence), found
