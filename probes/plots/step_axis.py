"""The axis of every figure over fine-tuning: optimiser steps, logarithmic, with step 0 drawn apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from probes.plots.sheet import Sheet
from probes.plots.style import Ink

_NARROW, _DIGIT, _BETWEEN = 340.0, 6.5, 4.0  # pixels: of a plot on a narrow page, of a digit, between two numbers
TITLE = "optimiser step (log scale, 0 apart)"


@dataclass(frozen=True)
class StepAxis:
    """Optimiser steps on a log axis, with step 0 drawn apart at the left."""

    steps: tuple[int, ...]

    @classmethod
    def of(cls, steps: Iterable[int]) -> StepAxis:
        """The axis that shows these steps."""
        return cls(tuple(sorted({int(step) for step in steps})))

    @property
    def _first(self) -> float:
        """Where the axis of the steps begins; a single step stands at its end."""
        positive = [step for step in self.steps if step > 0]
        return math.log10(positive[0]) - (self._span if len(positive) == 1 else 0.0) if positive else 0.0

    @property
    def _span(self) -> float:
        positive = [step for step in self.steps if step > 0]
        return max(math.log10(positive[-1]) - math.log10(positive[0]), 0.3) if positive else 1.0

    @property
    def zero(self) -> float:
        """Where step 0 is drawn."""
        return self._first - 0.16 * self._span

    @property
    def gap(self) -> float:
        """Where the axis is broken, between 0 and the first step."""
        return self._first - 0.08 * self._span

    @property
    def range(self) -> tuple[float, float]:
        """What the axis spans."""
        return self.zero - 0.05 * self._span, self._first + 1.03 * self._span

    def position(self, step: int) -> float:
        """Where `step` is drawn."""
        return math.log10(step) if step > 0 else self.zero

    def ticks(self, width: float = _NARROW) -> dict[str, Any]:
        """What the x axis spans, and where which step is written: as many as have room, the last one always.

        Args:
            width: of the plot on a narrow page, pixels.
        """
        low, high = self.range
        unit, ticks = width / (high - low), [(self.zero, "0")]
        for step in sorted((step for step in self.steps if step > 0), reverse=True):
            place, word = self.position(step), f"{step:,}"
            room = _DIGIT * (len(word) + len(ticks[-1][1])) / 2 + _BETWEEN
            if len(ticks) == 1 or (ticks[-1][0] - place) * unit >= room:
                ticks.append((place, word))
        places, words = ([tick[part] for tick in ticks] for part in (0, 1))
        return {"range": [low, high], "tickvals": places, "ticktext": words, "tickangle": 0}

    def apply(self, fig: Sheet, ink: Ink) -> None:
        """Give the figure's x axis its ticks, its title and the break behind 0."""
        fig.update_xaxes(**self.ticks(), title={"text": TITLE})
        half = 0.012 * self._span
        fig.add_shape(
            name="axis-break",
            type="line",
            xref="x",
            yref="paper",
            y0=0,
            y1=0,
            x0=self.gap - half,
            x1=self.gap + half,
            line={"color": ink.background, "width": 5},
        )
