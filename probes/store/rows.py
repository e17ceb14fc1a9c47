"""Rows of a table as other programs read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A dict a row, with None for what is not defined."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
