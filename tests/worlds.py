"""Synthetic activations with a planted truth: what aligned model, witness and fine-tuned checkpoints would show.

A prompt's activation is its content, plus where the checkpoint lies, plus noise of that checkpoint on that prompt.
Everything is expressed in the axes of the content's covariance; no statistic here depends on the choice of axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from probes import nulls
from probes.directions.reversion import reversion_vectors, reversions_at_layer
from probes.drift import measure
from probes.statistics import NullResult
from probes.verdict.evidence import Evidence
from probes.verdict.ladder import Verdict, judge

LAYER = 7


def reversion_of(aligned: np.ndarray, witness: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """The reversion direction as a run keeps it, of one layer."""
    return reversion_vectors([aligned], [witness], harmful).raw[0]


@dataclass
class World:
    """Checkpoints over the same prompts.

    Attributes:
        rng: of everything.
        per_class: prompts of each class; with two numbers, harmful and harmless ones.
        spectrum: variances of the content along its axes.
        noise: spread of a checkpoint's own noise on each prompt, in spreads of the content.
        gap: share of the variance of all prompts that lies between the classes.
        tail: degrees of freedom of a heavy-tailed content (multivariate t); 0 is Gaussian.
        topic: prompts in a topic, half of them harmful, in pairs of either class. 0 without topics.
        of_one_class: whether the prompts of a topic are all of one class, and in no pairs.
    """

    rng: np.random.Generator
    per_class: int | tuple[int, int] = 32
    spectrum: np.ndarray = field(default_factory=lambda: np.ones(256))
    noise: float = 0.5
    gap: float = 0.0
    topic: int = 0
    of_one_class: bool = False
    tail: float = 0.0

    def __post_init__(self) -> None:
        high, low = (self.per_class, self.per_class) if isinstance(self.per_class, int) else self.per_class
        self.harmful = np.repeat([True, False], [high, low])
        self.scale = np.sqrt(self.spectrum / self.spectrum.mean())
        ranks = np.arange(high + low) if self.of_one_class else np.r_[np.arange(high), np.arange(low)]
        self.groups = ranks // max(self.topic // (1 if self.of_one_class else 2), 1) if self.topic else None
        self.pairs = ranks if self.topic and not self.of_one_class else None
        self.apart = np.zeros(self.width)
        if self.gap:
            shares = high * low / (high + low) ** 2
            self.apart = np.sqrt(self.gap / (1 - self.gap) * self.width / shares) * self.direction()
        self.content = self.like_content(self.harmful.size) + self.only_harmful(self.apart)

    @property
    def width(self) -> int:
        return self.spectrum.size

    @property
    def count(self) -> int:
        return self.harmful.size

    def direction(self) -> np.ndarray:
        """A unit vector with the covariance of the prompts' content."""
        vector = self.like_content()
        return vector / np.linalg.norm(vector)

    def like_content(self, count: int | None = None) -> np.ndarray:
        """Vectors with the covariance of the prompts' content."""
        shape = (self.width,) if count is None else (count, self.width)
        rows = self.rng.standard_normal(shape) * self.scale
        if not self.tail:
            return rows
        return rows * np.sqrt(self.tail / self.rng.chisquare(self.tail, (*shape[:-1], 1)))

    def checkpoint(self, place: np.ndarray | float, noise: float | None = None) -> np.ndarray:
        """Activations [prompt, width] of a checkpoint that lies at `place` (one vector, or one per prompt)."""
        spread = self.noise if noise is None else noise
        return self.content + place + spread * self.like_content(self.count)

    def only_harmful(self, vector: np.ndarray) -> np.ndarray:
        """The vector on harmful prompts, nothing on harmless ones."""
        return self.harmful[:, None] * vector

    def by_topic(self, size: float) -> np.ndarray:
        """A random vector of this size for each topic, on all of its prompts."""
        assert self.groups is not None
        return size * self.like_content(int(self.groups.max()) + 1)[self.groups]


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
    shams: Sequence[np.ndarray] | None = None,
    bootstraps: int = 0,
    splits: int = 50,
    grouped: bool = True,
    power: bool = False,
    saturated: bool = False,
    capped: bool = True,
) -> tuple[Verdict, dict[str, NullResult]]:
    """Measure, run every test and judge, as the stages of a run do; the power only where it is asked for.

    Where weight noise is saturated, shams that are shorter than the drift cannot be made longer; not capped, the tests
    made of them are left out as if they had no say.
    """
    groups, pairs = (world.groups, world.pairs) if grouped else (None, None)
    seed = int(world.rng.integers(2**31))
    options = {"groups": groups, "splits": splits, "seed": seed}
    reversions = reversions_at_layer(aligned, witness)
    estimates = measure(aligned, reversions, tuned, world.harmful, noise=noise, bootstraps=bootstraps, **options)
    resampling = nulls.Resampling.of(
        world.harmful, groups=groups, pairs=pairs, draws=draws, permutations=draws, seed=seed
    )
    reversion = reversion_of(aligned, witness, world.harmful)
    layer = nulls.LayerNulls(aligned, reversions, reversion, resampling, layer=LAYER, splits=splits)
    drawn = layer.against(tuned)
    moved, absent = None, _absent(world, aligned, tuned, shams or []) if saturated else None
    if shams is not None and absent is None:
        moved = nulls.Shams.of(layer, tuned, (sham[world.harmful] - aligned[world.harmful] for sham in shams))
        drawn |= moved.tests(layer.observe(layer.grams(tuned).only_harmful()))
    strength = nulls.measure_power(layer, tuned, moved).tests if power else {}
    drawn |= {null.name: null for null in absent or ()}
    results = {name: null.result(strength.get(name)) for name, null in drawn.items()}
    if absent is not None and not capped:
        results |= {null.name: replace(results[null.name], defined=False) for null in absent}
    evidence = Evidence("baseline", 0, LAYER, estimates, list(results.values()))
    return judge(evidence), results


def _absent(
    world: World, aligned: np.ndarray, tuned: np.ndarray, shams: Sequence[np.ndarray]
) -> tuple[nulls.NullDraws, ...] | None:
    """The sham tests without a p-value, where too many shams are shorter than the drift."""
    own, *drawn = (np.linalg.norm((rows - aligned)[world.harmful].mean(axis=0)) for rows in (tuned, *shams))
    lengths = np.array(drawn) / own
    return nulls.why_no_reference(np.array([nulls.is_as_far(length) for length in lengths.tolist()]), lengths)
