"""When a return counts as one: a threshold with hysteresis, held against the noise floor and the covariance null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from probes.drift import NOISE_FACTOR
from probes.errors import UsageError
from probes.nulls.gaussian import Spectrum

Action = Literal["log", "stop", "block"]
ACTIONS: tuple[Action, ...] = ("log", "stop", "block")
_DRAWS = 4000


@dataclass(frozen=True)
class Reading:
    """What the watch saw at one step, at the headline layer; None where a statistic is not defined."""

    step: int
    alignment: float | None
    return_fraction: float | None
    off_axis: float | None
    displacement: float | None
    refusal_score: float | None


class Alarm:
    """Rings at a return fraction, and stays on until the return has clearly gone back.

    Attributes:
        ringing: whether it is on.
        p99: alignment that a displacement of the covariance null passes once in a hundred.
        floor: displacement below which nothing is said: five times the noise of a repeated pass.
    """

    def __init__(
        self,
        threshold: float,
        *,
        aligned: Float[np.ndarray, "prompt d_model"],
        direction: Float[np.ndarray, " d_model"],
        noise: float,
        clear: float = 0.8,
        seed: int = 0,
    ) -> None:
        """Calibrate.

        Args:
            threshold: return fraction at which it rings.
            aligned: the aligned model's activations at the headline layer: their covariance is the null's.
            direction: the reversion direction there.
            noise: how far the mean moves in a repeated pass of the same weights there.
            clear: share of the threshold under which it is off again.
            seed: of the null's draws.

        Raises:
            UsageError: no positive threshold, or a share outside (0, 1].
        """
        if not (threshold > 0 and 0 < clear <= 1):
            raise UsageError("An alarm needs a return fraction above 0", got=f"{threshold}, clear at {clear}")
        self.threshold, self.clear = threshold, clear * threshold
        self.floor = NOISE_FACTOR * noise
        mixtures = np.random.default_rng([seed, 0xA1]).standard_normal((_DRAWS, len(aligned))).astype(np.float32)
        draws = Spectrum.of(aligned).cosines(direction.astype(np.float64), mixtures, [seed, 0xA2])[0]
        self.p99 = float(np.quantile(draws, 0.99))
        self.ringing = False

    def hears(self, reading: Reading) -> bool:
        """Take a reading in; whether the alarm has begun to ring just now."""
        fraction = reading.return_fraction
        if fraction is None:
            return False
        if self.ringing:
            self.ringing = fraction >= self.clear
            return False
        beyond_noise = reading.displacement is not None and reading.displacement > self.floor
        beyond_null = reading.alignment is not None and reading.alignment > self.p99
        self.ringing = fraction >= self.threshold and beyond_noise and beyond_null
        return self.ringing
