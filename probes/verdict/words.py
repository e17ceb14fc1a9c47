"""Numbers as they stand in a sentence."""

from __future__ import annotations

MINUS = "−"


def percent(share: float) -> str:
    """A share as a percentage: `19 %`."""
    return f"{100 * share:.0f} %".replace("-", MINUS)


def number(value: float) -> str:
    """Two decimals, with a true minus sign."""
    return f"{value:.2f}".replace("-", MINUS)


def p_value(p: float | None) -> str:
    """A p-value in words."""
    if p is None:
        return "no p-value"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def power_of(power: float | None) -> str:
    """A power in words."""
    return "power not known" if power is None else f"power {percent(power)}"
