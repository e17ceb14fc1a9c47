"""Draws of a null beside the observed value: p-value, limit, the maximum over layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import stats

from probes.errors import StatisticsError
from probes.statistics import FEW_DRAWS, NullResult

_NEARLY_ONE = 1 - 1e-12
_TIE = 1e-6  # draws are float32: of two that are equal, one may come out a little lower
_NO_DRAWS = np.empty(0)


@dataclass(frozen=True)
class NullDraws:
    """One statistic, and the same statistic under a null.

    Draw k of one null means the same random event at every layer and every checkpoint (the same permutation,
    the same sham, the same mixture of prompts), which is what makes `max_over_layers` joint.

    Attributes:
        name: the null.
        statistic: what is compared.
        observed: its value; None or NaN where it is not defined.
        draws: the null's values; empty where the law is exact.
        width: for an exact law, the dimension in which the displacement is isotropic.
        reason: why there is no p-value.
        defined: as of `NullResult`.
        note: as of `NullResult`.
    """

    name: str
    statistic: str
    observed: float | None
    draws: Float[np.ndarray, " draw"] = field(default_factory=lambda: _NO_DRAWS)
    width: int | None = None
    reason: str | None = None
    defined: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if not np.isfinite(self.draws).all():
            raise StatisticsError(
                f"The null {self.name} has draws that are not finite",
                got=f"{int((~np.isfinite(self.draws)).sum())} of {self.draws.size}",
                next_step="A sham whose displacement is zero is no sham; make it again with a larger norm.",
            )

    @property
    def why_not(self) -> str | None:
        """Why there is no p-value; None where there is one."""
        if self.reason is None and (self.observed is None or not np.isfinite(self.observed)):
            return f"{self.statistic} is not defined"
        if self.reason is None and self.width is None and self.draws.size == 0:
            return "there are no draws"
        return self.reason

    def result(self, power: float | None = None) -> NullResult:
        """The record: p-value and limit."""
        size, p = int(self.draws.size), self.p_value()
        if p is None:
            return NullResult(
                self.name, self.statistic, None, None, None, size, self.why_not, self.defined, note=self.note
            )
        return NullResult(self.name, self.statistic, self.observed, self._limit(), p, size, power=power, note=self.note)

    def _limit(self) -> float:
        if self.width is not None:
            return cosine_quantile(0.99, self.width)
        return float(self.draws.max() if self.draws.size < FEW_DRAWS else np.quantile(self.draws, 0.99))

    def p_value(self) -> float | None:
        """One-sided p-value; None where there is none."""
        if self.why_not is not None or self.observed is None:
            return None
        if self.width is not None:
            return cosine_tail(self.observed, self.width)
        reached = self.draws >= self.observed - _TIE * abs(self.observed)
        return (1 + int(np.count_nonzero(reached))) / (self.draws.size + 1)


def cosine_tail(cosine: float, width: int) -> float:
    """P(cos >= cosine) for a uniformly random direction and a fixed one; c√(d-1)/√(1-c²) ~ t with d-1
    degrees.
    """
    clipped = min(max(cosine, -_NEARLY_ONE), _NEARLY_ONE)
    return float(stats.t.sf(clipped * np.sqrt((width - 1) / (1 - clipped**2)), width - 1))


def cosine_quantile(probability: float, width: int) -> float:
    """The cosine below which a uniformly random direction falls with this probability."""
    t = stats.t.ppf(probability, width - 1)
    return float(t / np.sqrt(width - 1 + t**2))


def max_over_layers(nulls: Sequence[NullDraws]) -> list[float | None]:
    """P-values of every layer against the largest statistic over all layers, for one null and one checkpoint.

    Layers are first put on one scale, each by the mean and spread of its own draws and observed value
    together (so that the observed one is treated like a draw). An exact law, which says nothing of how
    layers hang together, is corrected by Bonferroni.

    Returns:
        One p-value per layer, None where that layer has none.
    """
    layers = [index for index, null in enumerate(nulls) if null.why_not is None]
    adjusted: list[float | None] = [None] * len(nulls)
    if not layers:
        return adjusted
    if nulls[layers[0]].width is not None:
        for index in layers:
            adjusted[index] = min(1.0, len(layers) * (nulls[index].p_value() or 0.0))
        return adjusted
    table = np.stack([np.append(nulls[index].draws, nulls[index].observed or 0.0) for index in layers])
    spread = table.std(axis=1, keepdims=True)
    table = (table - table.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    largest = np.sort(table[:, :-1].max(axis=0))
    reached = largest.size - np.searchsorted(largest, table[:, -1], side="left")
    for index, count in zip(layers, reached, strict=True):
        adjusted[index] = float((1 + count) / (largest.size + 1))
    return adjusted
