"""p-values and powers as they stand in a sentence."""

from __future__ import annotations

from probes.statistics import percent


def p_value(p: float | None) -> str:
    """A p-value in words."""
    if p is None:
        return "no p-value"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def power_of(power: float | None) -> str:
    """A power in words."""
    return "power not known" if power is None else f"power {percent(power)}"
