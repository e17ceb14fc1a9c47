"""How a number is written, in prose, tables and figures alike."""

from __future__ import annotations

import math


def decimal(value: float | None, places: int = 2) -> str:
    """A number with a true minus sign; what is not a number is an en dash."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{places}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")  # what rounds to 0 has no sign


def percent(share: float | None, places: int = 0) -> str:
    """A share in per cent, as `19 %`, with a true minus sign; what is not a number is an en dash."""
    return "–" if share is None or not math.isfinite(share) else f"{decimal(100 * share, places)} %"
