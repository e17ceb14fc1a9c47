"""A page's charts: each with its data table, its downloads, and the size at which it is saved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import camera, one_drawing, playing, state
from app.components import download, file_name, note, picture_name
from app.tables import table
from probes.plots.html_page import to_html
from probes.plots.limits import height_at, height_by_width
from probes.plots.sheet import Sheet
from probes.store import csv_text

# Pixels that a figure is drawn in for each width on paper (89, 120 and 183 mm): its type is then as large in all three.
COLUMNS = {"1": 480, "1.5": 647, "2": 987}
_NARROW_MAP, _DIGIT, _GAP = 330, 5.6, 3  # pixels: of a map on a narrow page, of a digit in a cell, between two numbers
# A plane is no higher than its axes of one scale are on the page's width: above them it would be blank.
_PLANE = """<style>
.st-key-plane-{name} {{ container-type: inline-size; }}
.st-key-plane-{name} .st-key-chart-{name} {{
  --fill: min({height}px, calc({pixels:.1f}px + 100cqw / {aspect:.4f})); height: var(--fill); flex-basis: var(--fill);
}}
</style>"""
_MANY_POINTS = 40_000  # of a picture; so many are drawn at one pixel each, not at the two by two that Plotly would
_DRAGGED = "While you drag this map it moves as it was drawn; points that come into view are drawn when you let go."


def chart(
    figure: Sheet,
    data: pd.DataFrame,
    *,
    name: str,
    alt: str,
    on_select: Callable[[], None] | None = None,
    by: Sequence[str] = ("points",),
    modes: Sequence[str] = ("toImage",),
) -> None:
    """A figure with its data table and its downloads; the picture is saved by the figure's own button.

    `on_select` is called after a selection, which is made `by` points, box or lasso.
    """
    config = {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtons": [list(modes)],
        "toImageButtonOptions": _saving(figure, name),
        "scrollZoom": False,
        "doubleClick": False,
    }
    is_large = _count_points(figure) > _MANY_POINTS
    if is_large:
        config["plotGlPixelRatio"] = 1
    if any(part.startswith("scene") for part in figure.layout):
        camera.keep(figure, name)
    if figure.frames:
        playing.keep(figure, name)
    file = file_name(name)
    more: dict[str, Any] = {"on_select": on_select, "selection_mode": tuple(by)} if on_select else {}
    drawn = one_drawing.to_send(figure, selects=on_select is not None)
    with _frame(figure, name):
        st.plotly_chart(drawn, theme=None, key=chart_key(name), config=config, alt=alt, **more)
    if is_large and "pan2d" in modes and "xaxis2" not in figure.layout:  # `look.PANNING` leaves panels to Plotly
        note(_DRAGGED)
    _offer_data(figure, data, name, file)


def _count_points(figure: Sheet) -> int:
    """How many points of a picture the graphics card draws."""
    return sum(len(trace.get("customdata", ())) for trace in figure.data if trace["type"] == "scattergl")


def _is_dense(figure: Sheet) -> bool:
    """Whether the numbers of a map's cells meet on a narrow page, where `look.CSS` leaves them to the pointer."""
    maps = [trace["text"] for trace in figure.data if trace["type"] == "heatmap" and trace.get("texttemplate")]
    return any(
        len(rows[0]) * (_DIGIT * max(len(word) for row in rows for word in row) + _GAP) > _NARROW_MAP for rows in maps
    )


@contextlib.contextmanager
def _frame(figure: Sheet, name: str) -> Iterator[None]:
    """What a chart stands in where it is drawn otherwise on a narrow page: a dense map, and a plane of one scale."""
    beside = height_by_width(figure)
    if _is_dense(figure):
        with st.container(key=f"dense-{name}"):
            yield
    elif beside is not None:
        with st.container(key=f"plane-{name}"):
            st.html(_PLANE.format(name=name, height=figure.height, pixels=beside[0], aspect=beside[1]))
            yield
    else:
        yield


@st.fragment
def _offer_data(figure: Sheet, data: pd.DataFrame, name: str, file: str) -> None:
    """What was drawn, as a table and as files, sent to the browser only when it is opened."""
    popover = st.popover("Data", type="tertiary", icon=":material/table_rows:", key=f"data-{name}", on_change="rerun")
    if not popover.open:
        return
    with popover:
        table(data, height=380)
        left, right = st.columns(2)
        with left:
            download("Table (CSV)", lambda: csv_text(data), f"{file}.csv", "text/csv", key=f"csv-{name}")
        with right:
            download("Figure (HTML)", lambda: to_html(figure.figure()), f"{file}.html", "text/html", key=f"html-{name}")


def chart_key(name: str) -> str:
    """Under which Streamlit keeps what is selected in a chart."""
    return f"chart-{name}"


def _saving(figure: Sheet, name: str) -> dict[str, Any]:
    """How the figure's own button draws it: size on paper, and name, to which the browser adds the place.

    A PNG and a PDF are made of that SVG: `look.FONTS`, `app.printing`.
    """
    width = COLUMNS.get(state.view("columns") or "2", COLUMNS["2"])
    return {"format": "svg", "filename": picture_name(name), "width": width, "height": height_at(figure, width)}
