"""A statistic over layers and steps as a heat map, whose cells can be clicked."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.limits import far_arms
from probes.plots.sheet import Sheet
from probes.plots.style import InkName
from probes.statistics import statistic_of

Cells = dict[tuple[int, int], tuple[float | None, str | None]]  # (layer, step) -> (value, why it is not defined)
CELLS = "cells"  # the trace whose points answer a click: [layer, step] in customdata
_AWAY, _TOWARDS, _SOME = "#0072B2", "#D55E00", "#2A6F97"
_WITH_NUMBERS = 160  # cells; more would be too small to hold a number
_TOP, _BELOW = 84, 64
_NARROW, _DIGIT = 400.0, 6.5  # pixels: of the map on a narrow page, of a digit


def heatmap(
    rows: pd.DataFrame,
    *,
    statistic: str,
    subtitle: str,
    selected: tuple[int, int] | None = None,
    headline: int | None = None,
    limits: tuple[float, float] | None = None,
    ink: InkName = "light",
) -> go.Figure:
    """Draw layers (rows, the embedding lowest) by steps (columns) of one trajectory.

    Args:
        rows: layer, step, value, reason of one statistic and one arm and seed; layer −1 is the embedding.
        statistic: its key in `probes.statistics`.
        subtitle: run, arm and direction.
        selected: the (layer, step) to be outlined.
        headline: the layer declared in advance, named on the axis.
        limits: of the colours, from `run_limits`, the same for every arm and step; None: of these rows alone.
        ink: light or dark page.
    """
    about, colours = statistic_of(statistic), style.INKS[ink]
    steps = sorted({int(step) for step in rows["step"]})
    layers = sorted({int(layer) for layer in rows["layer"]})
    cell = {(row.layer, row.step): (row.value, _words(row.reason)) for row in rows.itertuples()}
    values = [[_value(cell, layer, step) for step in steps] for layer in layers]
    room = max(20, min(46, 560 // len(layers))) if layers else 46
    limits = limits or run_limits(rows.assign(arm=""), statistic)
    fig = style.figure(
        about.title,
        subtitle,
        ink,
        below=_BELOW,
        height=_TOP + _BELOW + max(160, room * len(layers)),
        caption=f"{about.meaning}\nColour: {about.axis}, {_limits_in_words(limits, values)}",
        left=76,
    )
    fig.add("heatmap", **_map(values, len(steps), limits, about.diverging, colours))
    if len(layers) * len(steps) <= _WITH_NUMBERS:
        fig.data[0].update(
            text=[[style.decimal(value) for value in row] for row in values],
            texttemplate="%{text}",
            textfont={"size": 12},
        )
    _cells(fig, cell, layers, steps, ink)
    if selected is not None and selected[0] in layers and selected[1] in steps:
        _outline(fig, steps.index(selected[1]), layers.index(selected[0]), colours.text)
    fig.update_yaxes(**layer_axis(layers, headline), showline=False, ticks="")
    fig.update_xaxes(**_step_axis(steps), showline=False, ticks="")
    fig.update_layout(margin={"r": 20}, hoverdistance=60)
    return fig.figure()


def _map(
    values: list[list[float | None]], n_steps: int, limits: tuple[float, float], diverging: bool, colours: style.Ink
) -> dict[str, Any]:
    """The coloured cells: [layer, step]."""
    return {
        "name": "map",
        "z": values,
        "x": list(range(n_steps)),
        "y": list(range(len(values))),
        "zmin": limits[0],
        "zmax": limits[1],
        "colorscale": colour_scale(diverging, colours),
        "xgap": 2,
        "ygap": 2,
        "hoverinfo": "skip",
        "colorbar": style.colour_bar(colours),
    }


def layer_axis(layers: list[int], headline: int | None) -> dict[str, Any]:
    """Names of the layers: of many some, and always the headline layer."""
    every = math.ceil(len(layers) / 28) if layers else 1
    shown = [index for index, layer in enumerate(layers) if index % every == 0 or layer == headline]
    return {
        "title": {"text": f"layer ({'residual stream ' if len(layers) > 6 else ''}after the block)"},
        "tickvals": shown,
        "ticktext": [_layer_name(layers[index], headline) for index in shown],
        "range": [-0.5, len(layers) - 0.5],
    }


def _step_axis(steps: list[int]) -> dict[str, Any]:
    """Names of the steps: of many as many as have room on a narrow page, and always the last."""
    words = [f"{step:,}" for step in steps]
    every = math.ceil((_DIGIT * max(map(len, words), default=1) + 6) * len(words) / _NARROW) or 1
    shown = [index for index in range(len(words)) if (len(words) - 1 - index) % every == 0]
    return {
        "title": {"text": "optimiser step after the aligned model"},
        "tickvals": shown,
        "ticktext": [words[index] for index in shown],
        "tickangle": 0,
        "range": [-0.5, len(steps) - 0.5],
    }


def _words(reason: object) -> str | None:
    """A reason as text; a table column without any reason reads as NaN."""
    return reason if isinstance(reason, str) and reason else None


def _value(cell: Cells, layer: int, step: int) -> float | None:
    value = cell.get((layer, step), (None, ""))[0]
    return None if value is None or not math.isfinite(value) else float(value)


def run_limits(rows: pd.DataFrame, statistic: str) -> tuple[float, float]:
    """Limits of the colours for every map of one statistic in a run, centred on 0 where the statistic has two sides.

    A share and an AUROC have limits of their own. One arm far away does not decide the others' colours.

    Args:
        rows: arm, value of every arm, layer and step.
        statistic: its key in `probes.statistics`.
    """
    about = statistic_of(statistic)
    if about.limits is not None and (about.centred or about.limits == (0.0, 1.0)):
        return about.limits
    tops = {str(arm): float(own.abs().max()) for arm, own in rows.dropna(subset=["value"]).groupby("arm")["value"]}
    far = far_arms({arm: [top] for arm, top in tops.items()}, [0.0])
    top = round_up(max((top for arm, top in tops.items() if arm not in far and math.isfinite(top)), default=1.0))
    return (-top if about.diverging else 0.0), top


def round_up(value: float) -> float:
    """To two digits, so that the scale ends at a number that can be written; 1 for nothing at all, or no number."""
    if not 0 < value < math.inf:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit - 1e-9) * unit


def _limits_in_words(limits: tuple[float, float], values: list[list[float | None]]) -> str:
    places = max(2, 1 - math.floor(math.log10(limits[1]))) if limits[1] > 0 else 2
    low, high = (style.decimal(end, places) for end in limits)
    room = 1e-9 * (limits[1] - limits[0])  # the ends were rounded
    inside = (limits[0] - room, limits[1] + room)
    beyond = any(value is not None and not inside[0] <= value <= inside[1] for row in values for value in row)
    more = " Values beyond them have the ends' colours." if beyond else ""
    return f"limits {low} and {high}, the same for every arm and step of the run.{more} – : not defined."


def colour_scale(diverging: bool, colours: style.Ink) -> list[tuple[float, str]]:
    """The colours of a map from its lower limit to its upper one."""
    if diverging:
        return [(0.0, _AWAY), (0.5, colours.middle), (1.0, _TOWARDS)]
    return [(0.0, colours.middle), (1.0, _SOME)]


def _layer_name(layer: int, headline: int | None) -> str:
    name = "embed" if layer == -1 else str(layer)
    return f"<b>{name}</b> ★" if layer == headline else name


def _cells(fig: Sheet, cell: Cells, layers: list[int], steps: list[int], ink: InkName) -> None:
    """One invisible point a cell, which carries the hover text and the click: a heat map itself cannot be selected."""
    spots = [(layer, step) for layer in layers for step in steps]
    fig.add(
        "scatter",
        name=CELLS,
        x=[steps.index(step) for _, step in spots],
        y=[layers.index(layer) for layer, _ in spots],
        mode="markers",
        marker={"symbol": "square", "size": 30, "color": "rgba(0,0,0,0)", "line": {"width": 0}},
        customdata=[[layer, step] for layer, step in spots],
        hovertext=[_hover(spot, cell.get(spot, (None, ""))) for spot in spots],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    if len(spots) > _WITH_NUMBERS:
        return
    for layer, step in spots:
        if _value(cell, layer, step) is None:
            fig.add_annotation(
                name="undefined",
                x=steps.index(step),
                y=layers.index(layer),
                text="–",
                showarrow=False,
                font={"size": 12, "color": style.INKS[ink].muted},
            )


def _hover(spot: tuple[int, int], content: tuple[float | None, str | None]) -> str:
    layer, step = spot
    value, reason = content
    place = f"{'embedding' if layer == -1 else f'layer {layer}'}, step {step}"
    if value is not None and math.isfinite(value):
        return f"{place}<br>{style.decimal(value, 3)}"
    return f"{place}<br>not defined" + (f": {style.plain(reason)}" if reason else "")


def _outline(fig: Sheet, column: int, row: int, colour: str) -> None:
    fig.add_shape(
        name="selected",
        type="rect",
        x0=column - 0.48,
        x1=column + 0.48,
        y0=row - 0.47,
        y1=row + 0.47,
        line={"color": colour, "width": 2},
        fillcolor="rgba(0,0,0,0)",
    )
