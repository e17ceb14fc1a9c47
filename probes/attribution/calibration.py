"""Return units for a forecast: a power law through the returns by step of a few short runs of the same recipe.

return(t) = c tᵇ, by least squares in logarithms over all runs, with the interval for one more run. The returns of one
run are not independent of each other, so that with few runs the interval is narrower than its 95 %. It says nothing of
another recipe, nor of steps far behind the last one that was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_FEWEST = 5  # points of all runs together
_AHEAD = 4  # times the last step seen, up to which is forecast
_LEVEL = 0.95


@dataclass(frozen=True)
class Calibration:
    """A return curve.

    Attributes:
        scale: c.
        power: b.
        spread: residual standard deviation of log return.
        points: how many returns it is fitted to.
        center: mean of log step.
        width: Σ (log step − center)².
        last: the last step seen.
        alarm: the return fraction that is asked about.
    """

    scale: float
    power: float
    spread: float
    points: int
    center: float
    width: float
    last: int
    alarm: float

    def at(self, step: int) -> tuple[float, float, float]:
        """Low, value and high of the return of one more run at a step (95 %)."""
        from scipy.stats import t

        ahead = (math.log(step) - self.center) ** 2 / self.width
        error = self.spread * math.sqrt(1 + 1 / self.points + ahead)
        margin = float(t.ppf((1 + _LEVEL) / 2, self.points - 2)) * error
        value = self.scale * step**self.power
        return value * math.exp(-margin), value, value * math.exp(margin)

    @property
    def steps(self) -> list[int]:
        """Steps that are forecast: 1, 2, 5, 10 … up to four times the last one seen."""
        decades = (digit * 10**decade for decade in range(9) for digit in (1, 2, 5))
        return [step for step in decades if step <= _AHEAD * self.last]

    @property
    def alarm_step(self) -> int | None:
        """The first step at which the return is forecast to reach the alarm; None where no forecast step does."""
        steps = range(1, _AHEAD * self.last + 1)
        return next((step for step in steps if self.at(step)[1] >= self.alarm), None)

    @property
    def budget(self) -> int | None:
        """The last step whose upper limit stays under the alarm; None where not even the first does."""
        safe = [step for step in range(1, _AHEAD * self.last + 1) if self.at(step)[2] < self.alarm]
        return safe[-1] if safe else None

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        by_step = [
            dict(zip(("step", "low", "value", "high"), (step, *self.at(step)), strict=True)) for step in self.steps
        ]
        return {"alarm": self.alarm, "alarm_step": self.alarm_step, "budget": self.budget, "return_by_step": by_step}


def calibrate(curves: Sequence[Mapping[int, float]], alarm: float) -> tuple[Calibration | None, str | None]:
    """Fit the return curve of several runs, each a return by step.

    Returns:
        The calibration; or None, and why there is none.
    """
    points = [(step, value) for curve in curves for step, value in curve.items()]
    positive = [(step, value) for step, value in points if value > 0]
    if len(positive) < max(_FEWEST, math.ceil(0.8 * len(points))):
        return None, f"not calibrated: only {len(positive)} of {len(points)} measured returns are above 0"
    if any(len(curve) < 2 for curve in curves):
        return None, "not calibrated: a run has returns at fewer than two steps"
    steps, values = (np.log(np.array(column, dtype=np.float64)) for column in zip(*positive, strict=True))
    center = float(steps.mean())
    width = float(np.square(steps - center).sum())
    power = float(((steps - center) * (values - values.mean())).sum() / width)
    offset = float(values.mean() - power * center)
    residuals = values - offset - power * steps
    spread = float(np.sqrt(np.square(residuals).sum() / (len(values) - 2)))
    last = max(step for step, _ in positive)
    return Calibration(math.exp(offset), power, spread, len(values), center, width, last, alarm), None
