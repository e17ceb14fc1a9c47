"""Rows of a table as other programs read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict a row, with None for what is not defined."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def csv_cell(value: Any) -> Any:
    """A value as a cell of a CSV file that a spreadsheet may open: text that it would run as a formula is quoted by '.

    Numbers stay numbers, also those that are written as text.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def csv_text(frame: pd.DataFrame) -> str:
    """A table as a CSV file, no cell of which is a formula (`csv_cell`)."""
    safe = frame.apply(lambda column: column if column.dtype.kind in "biufc" else column.map(csv_cell))
    return safe.rename(columns=csv_cell).to_csv(index=False)


def jsonl_text(frame: pd.DataFrame) -> str:
    """A table as one JSON object a line, with null for what is not defined."""
    return "".join(json.dumps(row, ensure_ascii=False, default=float) + "\n" for row in records(frame))
