"""Mean displacements as arrows, one small picture a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.plots import style
from probes.plots.displacement import plane_limits
from probes.plots.style import InkName

_PANELS, _COLUMNS = 12, 4


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
    rows = -(-len(layers) // _COLUMNS)
    height = 150 + 190 * rows
    caption = "Axes as above, to one scale: along the way back to the right, off it upwards; witness ◆ at (1, 0)."
    base = style.figure(
        "Mean displacement at each layer", subtitle, ink, height=height, caption=caption, below=40, left=30
    )
    grid = make_subplots(
        rows,
        _COLUMNS,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.16 / rows,
        subplot_titles=[f"layer {layer}" + (" ★" if layer == headline else "") for layer in layers],
    )
    colours = style.INKS[ink]
    traces = [_panel(table[table["layer"] == layer], layer) for layer in layers]
    places = [divmod(place, _COLUMNS) for place, panel in enumerate(traces) for _ in panel]
    grid.add_traces(
        [trace for panel in traces for trace in panel],
        rows=[row + 1 for row, _ in places],
        cols=[column + 1 for _, column in places],
    )
    wide, high = plane_limits(table, lowest=None)
    grid.update_xaxes(range=list(wide), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    grid.update_yaxes(range=list(high), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    grid.update_annotations(font={"size": 12, "color": colours.muted})
    return style.dress(grid, base, margin={"t": 104})


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
