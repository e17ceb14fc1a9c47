"""A page's tables: numbers written our way, and downloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app.components import download, file_name, note
from probes.plots import style
from probes.store import csv_text

_HEAD, _ROW = 38, 35  # pixels of a table's head with its frame, and of a row
ROWS_SHOWN = 2000  # of a table; more would have to be sent to the browser whole
_NUMBERS_IN_FORM = 6000  # in a table; more would take their time
Form = Callable[[float], str]  # how a table writes a number


def table(
    data: pd.DataFrame, *, forms: Mapping[str, Form] | None = None, height: int | None = None, **more: Any
) -> None:
    """A table whose numbers are written our way, and sorted as numbers; a long one shows its first rows.

    `height` is the most that it takes, in pixels; without one, ten rows are seen.
    """
    if height is not None:
        more["height"] = min(height, _HEAD + _ROW * max(1, len(data)))
    st.dataframe(_in_form(data.head(ROWS_SHOWN), forms or {}), hide_index=True, placeholder="–", **more)
    if len(data) > ROWS_SHOWN:
        note(f"The first {ROWS_SHOWN:,} of {len(data):,} rows; the file has them all.")


def _in_form(data: pd.DataFrame, forms: Mapping[str, Form]) -> Any:
    """Fractions with three places where no other form is named, a true minus sign, whole numbers with their commas."""
    numbers = data.select_dtypes("number").columns
    if len(data) * len(numbers) > _NUMBERS_IN_FORM:
        return data
    own = {name: _fraction if data[name].dtype.kind == "f" else "{:,}".format for name in numbers}
    styled = data.style
    # Streamlit asks for nothing else of what pandas would make of each cell, its classes and its styles among it: that
    # took a third of a page's time.
    styled._translate = lambda *_: {"body": _written(data, {**own, **forms})}  # type: ignore[method-assign]
    return styled


def _written(data: pd.DataFrame, forms: Mapping[str, Form]) -> list[list[dict[str, str]]]:
    """Each column's cells that are not shown as they are, under the names that pandas gives them."""
    columns = []
    for place, name in enumerate(data):
        form, column = forms.get(name), data.iloc[:, place]
        gaps = column.isna().tolist()
        if form is None:
            cells = {row: "–" for row, is_gap in enumerate(gaps) if is_gap}
        else:
            values = enumerate(zip(column.tolist(), gaps, strict=True))
            cells = {row: "–" if is_gap else form(value) for row, (value, is_gap) in values}
        columns.append([{"id": f"row{row}_col{place}", "display_value": shown} for row, shown in cells.items()])
    return columns


def _fraction(value: float) -> str:
    return style.decimal(value, 3)


def decimals(places: int) -> Form:
    """How a table writes a number with so many places."""
    return lambda value: style.decimal(value, places)


def data_table(data: pd.DataFrame, *, name: str, forms: Mapping[str, Form] | None = None, **more: Any) -> None:
    """A table that is itself what is looked at, with its download."""
    table(data, forms=forms, **more)
    download(
        "Table (CSV)",
        lambda: csv_text(data),
        f"{file_name(name)}.csv",
        "text/csv",
        key=f"csv-{name}",
        type="tertiary",
        icon=":material/download:",
    )
