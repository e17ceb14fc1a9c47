"""When a return counts as one: a threshold with hysteresis, the noise floor, and the ladder's tests that cost nothing.

Those are the tests of level 4 that need no further forward pass, at alpha divided by the number of planned
measurements, so that a training which never falls back rings with a probability of at most alpha. The shams are left
out, and named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from probes.directions.reversion import reversions_at_layer
from probes.drift import NOISE_FACTOR
from probes.errors import UsageError
from probes.nulls import NO_FURTHER_PASS, SHAMS, LayerNulls, Resampling
from probes.run import Run
from probes.store import ALIGNED

Action = Literal["log", "stop", "block"]
ACTIONS: tuple[Action, ...] = ("log", "stop", "block")
_DRAWS, _MOST_DRAWS = 10_000, 100_000
_FURTHER_PASS = "it needs further forward passes"


@dataclass(frozen=True)
class Reading:
    """What the watch saw at one step, at the headline layer; None where a statistic is not defined."""

    step: int
    alignment: float | None
    return_fraction: float | None
    off_axis: float | None
    displacement: float | None
    refusal_score: float | None


@dataclass(frozen=True)
class Hearing:
    """What the tests say of one reading.

    Attributes:
        level: at which each is made: alpha over the number of planned measurements.
        p_values: of the tests that were made, by name.
        left_out: why the others were not, by name.
    """

    level: float
    p_values: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def beyond(self) -> bool:
        """Whether every test that could be made rejects; where none could, the threshold alone decides."""
        return all(p <= self.level for p in self.p_values.values())

    @property
    def sentence(self) -> str:
        """Which tests it is beyond, at which level, and which were left out."""
        shams = "" if not set(SHAMS) <= set(self.left_out) else f" ({_FURTHER_PASS})"
        missing = f"left out: {', '.join(self.left_out)}{shams}"
        if not self.p_values:
            return f"held against no test; {missing}"
        return f"beyond {', '.join(self.p_values)} at p ≤ {self.level:.2g}; {missing}"


class AlarmTests:
    """The tests of level 4 that need no further forward pass, at the headline layer of a run."""

    def __init__(self, run: Run, measurements: int) -> None:
        """Draw what every measurement is held against.

        Args:
            run: holds aligned and witness.
            measurements: how many are planned.
        """
        layer, settings = run.headline_layer, run.settings
        self.level = settings.alpha / max(measurements, 1)
        draws = min(max(_DRAWS, math.ceil(1 / self.level)), _MOST_DRAWS)
        resampling = Resampling.of(
            run.harmful,
            groups=run.groups,
            pairs=run.pairs,
            draws=draws,
            permutations=1,
            alpha=self.level,
            seed=settings.seed,
        )
        unit, norm = run.direction("reversion").at(layer)
        aligned = run.activations(ALIGNED, layer)
        reversions = reversions_at_layer(aligned, run.activations("witness", layer))
        self._layer = LayerNulls(aligned, reversions, norm * unit, resampling, layer=layer, splits=settings.splits)

    def hear(self, tuned: Float[np.ndarray, "prompt d_model"]) -> Hearing:
        """Hold a model's activations at the headline layer against every test."""
        results = [null.result() for null in self._layer.test_towards(self._layer.grams(tuned)).values()]
        left_out = {result.name: str(result.reason) for result in results if result.p is None}
        left_out |= {
            result.name: f"{result.draws} draws are too few"
            for result in results
            if result.p is not None and (result.draws + 1) * self.level < 1
        }
        p_values = {result.name: result.p for result in results if result.p is not None and result.name not in left_out}
        assert {*p_values, *left_out} == set(NO_FURTHER_PASS)
        return Hearing(self.level, p_values, left_out | dict.fromkeys(SHAMS, _FURTHER_PASS))


class Alarm:
    """Rings at a return fraction that is beyond noise and tests, and stays on until it has clearly gone back.

    Attributes:
        ringing: whether it is on.
        floor: displacement below which nothing is said: five times the noise of a repeated pass.
        heard: what the tests said when they were last asked; None before.
    """

    def __init__(self, threshold: float, *, noise: float, clear: float = 0.8) -> None:
        """Set it.

        Args:
            threshold: return fraction at which it rings.
            noise: how far the mean moves in a repeated pass of the same weights at the headline layer.
            clear: share of the threshold under which it is off again.

        Raises:
            UsageError: no positive threshold, or a share outside (0, 1].
        """
        if not (threshold > 0 and 0 < clear <= 1):
            raise UsageError("An alarm needs a return fraction above 0", got=f"{threshold}, clear at {clear}")
        self.threshold, self.clear = threshold, clear * threshold
        self.floor = NOISE_FACTOR * noise
        self.ringing = False
        self.heard: Hearing | None = None

    def hears(self, reading: Reading, hear: Callable[[], Hearing]) -> bool:
        """Take a reading in; whether the alarm has begun to ring just now.

        Args:
            reading: what was seen.
            hear: asks the tests; called only where everything else holds.
        """
        fraction = reading.return_fraction
        if fraction is None:
            return False
        if self.ringing:
            self.ringing = fraction >= self.clear
            return False
        if fraction >= self.threshold and reading.displacement is not None and reading.displacement > self.floor:
            self.heard = hear()
            self.ringing = self.heard.beyond
        return self.ringing

    def sentence(self, reading: Reading) -> str:
        """Why it rings."""
        assert self.heard is not None
        return (
            f"Return fraction {reading.return_fraction:.3f} at step {reading.step} (alarm at {self.threshold:g}), "
            f"{self.heard.sentence}."
        )

    def document(self) -> dict[str, Any]:
        """The tests behind it, as they stand in `alarm.json`."""
        assert self.heard is not None
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self.heard).items()}


def count_measurements(last: int, due: Callable[[int], bool], save_every: int | None) -> int:
    """How many measurements of a training model are planned after step 0.

    Args:
        last: its last step, which is always measured.
        due: whether a step is measured.
        save_every: steps between checkpoints, which are measured too; None where none is saved by steps.
    """
    steps = {step for step in range(1, last + 1) if due(step)} | {last}
    return len(steps if not save_every else steps | set(range(save_every, last + 1, save_every)))
