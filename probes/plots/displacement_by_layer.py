"""Mean displacements as arrows, one small picture a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.displacement import ALONG, MAIN
from probes.plots.limits import Limits, far_in_plane, leave, plane_limits
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_PANELS, COLUMNS = 12, 4
_ASPECT = 1.15  # of a panel


def multiples(
    table: pd.DataFrame, *, step: int, layers: Sequence[int], subtitle: str, headline: int, ink: InkName = "light"
) -> go.Figure:
    """Draw every trajectory's arrow at one step, one small picture a layer, all to one scale.

    Args:
        table: arm, seed, step, layer, along, across, without roles.
        step: the step.
        layers: which; of more than twelve, use `evenly`.
        subtitle: run and step.
        headline: the layer declared in advance.
        ink: light or dark page.
    """
    table = table[table["step"] == step]
    rows = -(-len(layers) // COLUMNS)
    height = 150 + 190 * rows
    far = far_in_plane(table, ("along", "across"))
    base = style.figure(
        "Mean displacement at each layer", subtitle, ink, height=height, caption=_caption(table, far), below=56, left=52
    )
    grid = small_multiples(rows, [f"layer {layer}" + (" ★" if layer == headline else "") for layer in layers])
    colours = style.INKS[ink]
    traces = [_panel(table[table["layer"] == layer], layer) for layer in layers]
    places = [divmod(place, COLUMNS) for place, panel in enumerate(traces) for _ in panel]
    grid.add_traces(
        [trace for panel in traces for trace in panel],
        rows=[row + 1 for row, _ in places],
        cols=[column + 1 for _, column in places],
    )
    wide, high = plane_limits(table[~table["arm"].isin(far)], whole=False, aspect=_ASPECT)
    grid.update_xaxes(range=list(wide), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    grid.update_yaxes(range=list(high), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    leaving = [table[(table["layer"] == layer) & table["arm"].isin(far)] for layer in layers]
    grid.add_annotations([note for place, rows in enumerate(leaving, 1) for note in _arrows(rows, place, wide, high)])
    for axis in grid.axes("y"):
        axis.update(scaleanchor=axis["anchor"], constrain="domain", constraintoward="top")
    grid.update_xaxes(constrain="domain")
    grid.update_annotations(font={"size": 12, "color": colours.muted})
    name_axes(grid, rows, colours)
    return style.dress(grid, base, margin={"t": 104}).figure()


def _caption(table: pd.DataFrame, far: set[str]) -> str:
    """What the axes are, and how far the arms have come that leave the panels."""
    words = "Both axes to one scale, in units of ‖v‖: to the right along the way back, upwards along the main off-axis "
    words += "direction of that layer. Circle: aligned; diamond: witness, at (1, 0)."
    for arm in style.in_order(far):
        reach = table[table["arm"] == arm]["along"]
        ends = f"{style.decimal(float(reach.min()))} to {style.decimal(float(reach.max()))}"
        words += f" {style.plain(arm)} leaves the panels: {ends} of the way."
    return words


def _arrows(rows: pd.DataFrame, place: int, wide: Limits, high: Limits) -> list[dict[str, Any]]:
    """An arrow in a panel where an arm leaves it."""
    at = {axis: axis if place == 1 else f"{axis}{place}" for axis in ("x", "y")}
    notes = [
        leave([(0.0, 0.0), (row.along, row.across)], wide, high, "", row.arm, "light", one_scale=True)
        for row in rows.itertuples()
    ]
    return [{**note[0], "xref": at["x"], "yref": at["y"]} for note in notes if note]


def small_multiples(rows: int, titles: Sequence[str]) -> Sheet:
    """Empty panels, four a row, with numbers at the outermost axes alone; all are to be given the same limits."""
    grid = Sheet.grid(
        rows,
        COLUMNS,
        titles,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.16 / rows,
    )
    for axis in (*grid.axes("x"), *grid.axes("y")):
        axis.pop("matches", None)  # of two axes that match, Plotly holds only one to the scale of the other letter
    return grid


def name_axes(grid: Sheet, rows: int, colours: style.Ink) -> None:
    """One title for all panels of a side: in each they would not fit."""
    font = {"size": 13, "color": colours.text}
    whole = {"xref": "paper", "yref": "paper", "showarrow": False, "font": font, "name": "axis"}
    below = {"x": 0.5, "y": 0, "yshift": -24, "yanchor": "top", "text": ALONG}
    beside = {"x": 0, "y": 0.5, "xshift": -46, "textangle": -90, "xanchor": "center", "yanchor": "middle"}
    grid.add_annotations([whole | below, whole | beside | {"text": "off-axis (‖v‖)" if rows < 3 else MAIN}])


def _panel(table: pd.DataFrame, layer: int) -> list[dict[str, Any]]:
    """What is drawn at one layer: the roles, and every trajectory's way from the aligned model."""
    roles = {
        "type": "scatter",
        "x": [0, 1],
        "y": [0, 0],
        "mode": "markers",
        "hoverinfo": "skip",
        "marker": {
            "color": [style.mark_of(role).colour for role in ("aligned", "witness")],
            "symbol": ["circle", "diamond"],
            "size": 7,
        },
    }
    ways = [
        {
            "type": "scatter",
            "x": [0, row.along],
            "y": [0, row.across],
            "mode": "lines+markers",
            "line": {"color": mark.colour, "width": 2, "dash": mark.dash},
            "marker": {"color": mark.colour, "symbol": mark.symbol, "size": [0, 7]},
            "hovertemplate": f"{style.plain(row.arm)}, seed {row.seed}, layer {layer}<br>"
            "along %{x:.2f}, off it %{y:.2f}<extra></extra>",
        }
        for row in table.itertuples()
        for mark in [style.mark_of(row.arm)]
    ]
    return [roles, *ways]


def evenly(layers: Sequence[int], *keep: int) -> list[int]:
    """At most twelve of the layers, evenly apart, with those to be kept among them."""
    if len(layers) <= _PANELS:
        return list(layers)
    places = {layers[round(index)] for index in np.linspace(0, len(layers) - 1, _PANELS - len(keep))}
    return sorted(places | {layer for layer in keep if layer in layers})
