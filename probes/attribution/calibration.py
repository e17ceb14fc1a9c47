"""Return units for a forecast: the returns by step of a few short runs of the same recipe, and how far runs scatter.

Between the steps that all runs have, log return goes straight in log step, through the mean over runs. What a further
run may do is a variance between runs, which shifts its whole curve, and one from step to step, by the analysis of
variance; the interval is Student's, with Satterthwaite's degrees of freedom (two runs that differ throughout say little
of a third). Behind the last step it reaches from a return that stays to one that goes on rising as it did between the
last two. Of three runs or more, each is held out once, and the interval that the others give is held against it. Runs
may come in groups of equal size that share a history: a further one is then of another history, and whole histories
are held out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

_FEWEST_STEPS = 2
_ABOVE_ZERO = 0.8  # of all returns: fewer are no curve that has a logarithm
_AHEAD = 4  # times the last step seen, up to which is forecast
_LEVEL = 0.95
RUNS, HISTORIES = "runs", "histories"
Curve = Mapping[int, float]  # return by step


@dataclass(frozen=True)
class HeldOut:
    """Returns of runs that were held out, one after the other, and how many of them lay within the interval."""

    returns: int
    inside: int

    @property
    def coverage(self) -> float:
        """Their share."""
        return self.inside / self.returns


@dataclass(frozen=True)
class Calibration:
    """A return curve.

    Attributes:
        steps: that all runs have.
        means: of log return at each.
        margin: half the width of the interval of one more run, in log return.
        runs: how many, or how many groups of them.
        of: what was counted: `runs` or `histories`.
        alarm: the return fraction that is asked about.
        held_out: of three runs or more.
    """

    steps: tuple[int, ...]
    means: tuple[float, ...]
    margin: float
    runs: int
    alarm: float
    held_out: HeldOut | None = None
    of: str = RUNS

    @property
    def last(self) -> int:
        """The last step seen."""
        return self.steps[-1]

    def at(self, step: int) -> tuple[float, float, float]:
        """Low, value and high of the return of one more run at a step (95 %)."""
        place = math.log(step)
        logs = [math.log(known) for known in self.steps]
        flat = float(np.interp(place, logs, self.means))
        trend = flat
        if step < self.steps[0]:
            flat = trend = self.means[0] + (place - logs[0]) * _slope(logs, self.means, 0)
        if step > self.last:
            trend = flat + (place - logs[-1]) * max(_slope(logs, self.means, -2), 0.0)
        low, value, high = flat - self.margin, (flat + trend) / 2, trend + self.margin
        return math.exp(low), math.exp(value), math.exp(high)

    @property
    def every_step(self) -> range:
        """Every step that is forecast, up to four times the last one seen."""
        return range(1, _AHEAD * self.last + 1)

    @property
    def shown_steps(self) -> list[int]:
        """Steps that are written down: 1, 2, 5, 10 …"""
        decades = (digit * 10**decade for decade in range(9) for digit in (1, 2, 5))
        return [step for step in decades if step in self.every_step]

    @property
    def alarm_step(self) -> int | None:
        """The first step at which the return is forecast to reach the alarm; None where no forecast step does."""
        return next((step for step in self.every_step if self.at(step)[1] >= self.alarm), None)

    @property
    def budget(self) -> int | None:
        """The last step up to which the interval stays under the alarm; None where not even the first does."""
        first = next((step for step in self.every_step if self.at(step)[2] >= self.alarm), self.every_step[-1] + 1)
        return first - 1 or None

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        by_step = [
            dict(zip(("step", "low", "value", "high"), (step, *self.at(step)), strict=True))
            for step in self.shown_steps
        ]
        held_out = self.held_out
        return {
            "alarm": self.alarm,
            "alarm_step": self.alarm_step,
            "budget": self.budget,
            "runs": self.runs,
            "of": self.of,
            "last_step": self.last,
            "held_out": held_out and {"returns": held_out.returns, "coverage": held_out.coverage},
            "return_by_step": by_step,
        }


def calibrate(curves: Sequence[Curve], alarm: float) -> tuple[Calibration | None, str | None]:
    """Take the return curve from several runs, each a return by step.

    Returns:
        The calibration; or None, and why there is none.
    """
    return _calibrate([[curve] for curve in curves], alarm, RUNS)


def calibrate_histories(groups: Sequence[Sequence[Curve]], alarm: float) -> tuple[Calibration | None, str | None]:
    """The same for one run of a further history: groups of runs, as many in each, and each group of another history."""
    return _calibrate(groups, alarm, HISTORIES)


def _calibrate(groups: Sequence[Sequence[Curve]], alarm: float, of: str) -> tuple[Calibration | None, str | None]:
    curves = [curve for group in groups for curve in group]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[step] for step in shared] for curve in curves]
    above = int(np.sum(np.array(values) > 0))
    if above < _ABOVE_ZERO * len(curves) * len(shared):
        return None, f"not calibrated: only {above} of {len(curves) * len(shared)} measured returns are above 0"
    steps = [step for step, column in zip(shared, zip(*values, strict=True), strict=True) if min(column) > 0]
    if len(steps) < _FEWEST_STEPS:
        return None, "not calibrated: the runs have returns above 0 at fewer than two common steps"
    calibration = dataclasses.replace(_fit(groups, steps, alarm), of=of)
    return (_with_held_out(calibration, groups) if len(groups) > 2 else calibration), None


def _fit(groups: Sequence[Sequence[Curve]], steps: Sequence[int], alarm: float) -> Calibration:
    from scipy.stats import t

    logs = np.log(np.array([[[curve[step] for step in steps] for curve in group] for group in groups]))
    variance, freedom = _scatter(logs.reshape(len(groups), -1))
    margin = float(t.ppf((1 + _LEVEL) / 2, freedom)) * math.sqrt(variance * (1 + 1 / len(groups)))
    return Calibration(tuple(steps), tuple(logs.mean(axis=(0, 1)).tolist()), margin, len(groups), alarm)


def _scatter(logs: Float[np.ndarray, "run step"]) -> tuple[float, float]:
    """The variance of one run at one step about the mean curve, and its degrees of freedom.

    A group of runs is one here, with the steps of all of them.
    """
    runs, steps = logs.shape
    deviations = logs - logs.mean(axis=0)
    shifts = deviations.mean(axis=1, keepdims=True)
    between = steps * float(np.square(shifts).sum()) / (runs - 1)
    within = float(np.square(deviations - shifts).sum()) / ((runs - 1) * (steps - 1))
    parts = between / steps, (1 - 1 / steps) * within
    variance = sum(parts)
    if variance == 0:
        return 0.0, 1.0
    freedom = variance**2 / (parts[0] ** 2 / (runs - 1) + parts[1] ** 2 / ((runs - 1) * (steps - 1)))
    return variance, freedom


def _with_held_out(calibration: Calibration, groups: Sequence[Sequence[Curve]]) -> Calibration:
    """With each group held out once."""
    returns = inside = 0
    for place, group in enumerate(groups):
        others_fit = _fit([*groups[:place], *groups[place + 1 :]], calibration.steps, calibration.alarm)
        for step in calibration.steps:
            low, _, high = others_fit.at(step)
            returns += len(group)
            inside += sum(low <= curve[step] <= high for curve in group)
    return dataclasses.replace(calibration, held_out=HeldOut(returns, inside))


def _slope(places: Sequence[float], values: Sequence[float], first: int) -> float:
    second = first + 1
    return (values[second] - values[first]) / (places[second] - places[first])
