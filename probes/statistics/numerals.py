"""How a number is written, in prose, tables and figures alike."""

from __future__ import annotations

import math
import re

_JOINED_PERCENT = re.compile(r"(\d)%")
_MINUS = re.compile(r"(?<![\w.\-–])-(?=\d)")


def decimal(value: float | None, places: int = 2) -> str:
    """A number with a true minus sign; what is not a number is an en dash."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{places}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")  # what rounds to 0 has no sign


def percent(share: float | None, places: int = 0) -> str:
    """A share in per cent, as `19 %`, with a true minus sign; what is not a number is an en dash."""
    return "–" if share is None or not math.isfinite(share) else f"{decimal(100 * share, places)} %"


def typeset(text: str) -> str:
    """Text of an older run with its numbers written as here: `19%` becomes `19 %`, and `-0.66` gets a true minus sign.

    A hyphen that joins words, dates or a range stays; so does what is written as code, in backquotes.
    """
    parts = text.split("`")
    parts[::2] = [_MINUS.sub("−", _JOINED_PERCENT.sub(r"\1 %", part)) for part in parts[::2]]
    return "`".join(parts)
