"""Pairs of things as a square of numbers in colour, whose cells can be clicked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

CELLS = "cells"  # the trace whose points answer a click: [row, column] in customdata
_AWAY, _TOWARDS = "#0072B2", "#D55E00"
_WITH_NUMBERS = 420  # cells; more would be too small to hold a number
_TOP, _LETTER, _BETWEEN = 84, 6.1, 5.0  # pixels
_NARROW = 330.0  # pixels of the square on a narrow page


def matrix(
    values: Sequence[Sequence[float | None]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    caption: str,
    axes: tuple[str, str],
    limits: tuple[float, float],
    selected: tuple[int | None, int | None] = (None, None),
    tilted: bool = True,
    clickable: bool = False,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the square.

    Args:
        values: [row, column]; None or NaN is not defined.
        rows: names of the rows, from the top.
        columns: names of the columns.
        title: what is shown.
        subtitle: run, layer and direction.
        caption: what a number means.
        axes: titles of the rows' and the columns' axis.
        limits: fixed ends of the colour scale; its middle is the neutral colour.
        selected: (row, column) to be outlined; with None for one of them, the other's whole line.
        tilted: whether the columns' names stand on end.
        clickable: whether cells carry points that answer a click; without, the map itself says what a cell is.
        ink: light or dark page.
    """
    fig = style.figure(title, subtitle, ink, caption=caption, **_size(rows, columns, axes, tilted=tilted))
    shown, colours = [[_finite_or_none(value) for value in row] for row in values], style.INKS[ink]
    fig.add("heatmap", name="map", z=shown, **_look(len(rows), len(columns), limits, colours))
    if len(rows) * len(columns) <= _WITH_NUMBERS:
        fig.data[0].update(_numbers(shown))
    words = [
        [_hover(row, column, value) for column, value in zip(columns, line, strict=True)]
        for row, line in zip(rows, shown, strict=True)
    ]
    if clickable:
        _cells(fig, words, rows, columns)
    else:
        fig.data[0].update(hovertext=words, hoverinfo="text")
    _outline(fig, selected, len(rows), len(columns), colours.text)
    fig.update_yaxes(**_names(rows, axes[0], every=1), range=[len(rows) - 0.5, -0.5])
    fig.update_xaxes(
        **_names(columns, axes[1], every=max(1, math.ceil(_room(columns, tilted=tilted) / _NARROW))),
        tickangle=-90 if tilted else 0,
        range=[-0.5, len(columns) - 0.5],
    )
    fig.update_layout(margin={"r": 20}, hoverdistance=60)
    return fig.figure()


def _size(rows: Sequence[str], columns: Sequence[str], axes: tuple[str, str], *, tilted: bool) -> dict[str, int]:
    """Height and margins, pixels, that hold every row and every name."""
    row_names, column_names = (round(_LETTER * max(map(len, names), default=4)) for names in (rows, columns))
    below = (column_names if tilted else 12) + (44 if axes[1] else 22)
    room = max(16, min(30, 560 // max(1, len(rows))))
    left = (36 if axes[0] else 12) + row_names
    return {"height": _TOP + below + max(120, room * len(rows)), "below": below, "left": left}


def _room(columns: Sequence[str], *, tilted: bool) -> float:
    """Pixels that the columns' names take side by side."""
    letters = 1 if tilted else max(map(len, columns), default=1)
    return len(columns) * (_LETTER * letters + _BETWEEN)


def _look(n_rows: int, n_columns: int, limits: tuple[float, float], colours: style.Ink) -> dict[str, Any]:
    """Places and colours of the cells."""
    return {
        "x": list(range(n_columns)),
        "y": list(range(n_rows)),
        "zmin": limits[0],
        "zmax": limits[1],
        "colorscale": [(0.0, _AWAY), (0.5, colours.middle), (1.0, _TOWARDS)],
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "skip",
        "colorbar": style.colour_bar(colours),
    }


def _numbers(shown: list[list[float | None]]) -> dict[str, Any]:
    return {
        "text": [[style.decimal(value) for value in row] for row in shown],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
    }


def _names(names: Sequence[str], title: str, *, every: int) -> dict[str, Any]:
    """An axis of names, of which every n-th is written."""
    places = list(range(0, len(names), every))
    return {
        "title": {"text": title, "standoff": 4},
        "showline": False,
        "ticks": "",
        "tickvals": places,
        "ticktext": [style.plain(names[place]) for place in places],
    }


def _finite_or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _hover(row: str, column: str, value: float | None) -> str:
    shown = style.decimal(value, 3) if value is not None else "not defined"
    return f"{style.plain(row)} · {style.plain(column)}<br>{shown}"


def _cells(fig: Sheet, words: list[list[str]], rows: Sequence[str], columns: Sequence[str]) -> None:
    """One invisible point a cell, which carries the hover text and the click: a heat map itself cannot be selected."""
    spots = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    fig.add(
        "scatter",
        name=CELLS,
        x=[column for _, column in spots],
        y=[row for row, _ in spots],
        mode="markers",
        marker={"symbol": "square", "size": 24, "color": "rgba(0,0,0,0)", "line": {"width": 0}},
        customdata=[[rows[row], columns[column]] for row, column in spots],
        hovertext=[words[row][column] for row, column in spots],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _outline(fig: Sheet, selected: tuple[int | None, int | None], n_rows: int, n_columns: int, colour: str) -> None:
    row, column = selected
    if row is None and column is None:
        return
    fig.add_shape(
        name="selected",
        type="rect",
        line={"color": colour, "width": 2},
        fillcolor="rgba(0,0,0,0)",
        x0=-0.5 if column is None else column - 0.48,
        x1=n_columns - 0.5 if column is None else column + 0.48,
        y0=-0.5 if row is None else row - 0.47,
        y1=n_rows - 0.5 if row is None else row + 0.47,
    )
