"""Displacements prompt by prompt, as arrows in the plane of the way back and the main off-axis direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import animation, style
from probes.plots.displacement import ALONG, HEIGHT, MAIN, Cone
from probes.plots.prompt_marks import PROMPTS, hover_text
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_CAPTION = (
    "Each arrow: one probe prompt, from where it lies in the aligned model to where it lies in the checkpoint. "
    "Filled ends: harmful prompts; open: harmless ones. Crosses: the aligned model's and the witness's means over "
    "harmful prompts."
)
_CONE_CAPTION = " Dotted: how near to the way back the hardest null brings a mean displacement at that step."


def prompt_arrows(
    before: pd.DataFrame,
    after: pd.DataFrame,
    *,
    arm: str,
    subtitle: str,
    cone: Cone | None = None,
    by_step: Mapping[int, tuple[pd.DataFrame, Cone | None]] | None = None,
    ink: InkName = "light",
) -> go.Figure:
    """Draw how each prompt's activation moved in the plane, from the aligned model to a checkpoint.

    Args:
        before: prompt, label, projection, across, text in the aligned model.
        after: the same in the checkpoint.
        arm: its arm, for the colour.
        subtitle: run, layer, checkpoint.
        cone: the hardest null of the mean displacement there.
        by_step: `after` and `cone` of each step, to be played; None: nothing moves.
        ink: light or dark page.
    """
    shown = [(after, cone), *(by_step or {}).values()]
    caption = _CAPTION + (_CONE_CAPTION if any(edge is not None for _, edge in shown) else "")
    fig = style.figure("Each prompt's way in the plane", subtitle, ink, height=HEIGHT, caption=caption)
    colours, kind, reach = style.INKS[ink], style.flat_points(len(before)), _reach(shown)

    def traces(places: pd.DataFrame, edge: Cone | None) -> list[dict[str, Any]]:
        columns = places[["prompt", "projection", "across"]]
        joined = before.merge(columns, on="prompt", suffixes=("", "_after"))
        return [_edges(edge, reach, colours), *_arrows(joined, arm, kind, colours)]

    fig.add_traces(traces(after, cone))
    moving = list(range(len(fig.data)))
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    for place, role in ((0.0, "aligned"), (1.0, "witness")):
        fig.add("scatter", **_cross(place, role))
    fig.update_xaxes(title={"text": ALONG}, nticks=8)
    fig.update_yaxes(title={"text": MAIN}, nticks=8, scaleanchor="x", constrain="range")
    _fix_axes(fig, before, shown)
    if by_step:
        frames = [{"name": f"{step}", "data": traces(*now), "traces": moving} for step, now in by_step.items()]
        animation.play(fig, frames, list(by_step), ink)
    return fig.figure()


def _arrows(joined: pd.DataFrame, arm: str, kind: str, colours: style.Ink) -> list[dict[str, Any]]:
    parts = []
    for label, colour, opacity in (("harmless", colours.muted, 0.35), ("harmful", style.mark_of(arm).colour, 0.8)):
        own = joined[joined["label"] == label]
        faded = style.fade(colour, 0.5 * opacity) if colour.startswith("#") else colour
        parts += [{"type": kind, **_ways(own, label, faded)}, {"type": kind, **_ends(own, label, colour)}]
    return parts


def _reach(shown: Sequence[tuple[pd.DataFrame, Cone | None]]) -> float:
    """How far any prompt lies along the way back, either way."""
    return max((float(places["projection"].abs().max()) for places, _ in shown if len(places)), default=1.0)


def _edges(cone: Cone | None, reach: float, colours: style.Ink) -> dict[str, Any]:
    """Both edges of the null's cone, as long as the picture is wide; nothing where there is none."""
    x: list[float | None] = []
    y: list[float | None] = []
    if cone is not None:
        along, across = reach * math.cos(cone.angle), reach * math.sin(cone.angle)
        x, y = [along, 0.0, along], [across, 0.0, -across]
    return {
        "type": "scatter",
        "name": "cone",
        "x": x,
        "y": y,
        "mode": "lines",
        "hoverinfo": "skip",
        "line": {"color": colours.muted, "width": 1.4, "dash": "dot"},
    }


def _fix_axes(fig: Sheet, before: pd.DataFrame, shown: Sequence[tuple[pd.DataFrame, Cone | None]]) -> None:
    """The limits hold the prompts of every step: nothing but these moves, and the cone's edges make no axis longer."""
    every = pd.concat([before, *(places for places, _ in shown)])
    for axis, column in (("xaxis", "projection"), ("yaxis", "across")):
        low, high = min(every[column].min(), 0.0), max(every[column].max(), 1.0 if column == "projection" else 0.0)
        room = 0.05 * (high - low)
        fig.update_layout(**{axis: {"range": [low - room, high + room]}})


def _ways(own: pd.DataFrame, label: str, colour: str) -> dict[str, Any]:
    """From where each prompt was to where it came, all of them as one line with gaps."""
    gap = np.full(len(own), np.nan)
    return {
        "name": f"way {label}",
        "x": np.column_stack([own["projection"], own["projection_after"], gap]).ravel(),
        "y": np.column_stack([own["across"], own["across_after"], gap]).ravel(),
        "mode": "lines",
        "hoverinfo": "skip",
        "line": {"color": colour, "width": 1},
    }


def _ends(own: pd.DataFrame, label: str, colour: str) -> dict[str, Any]:
    """Where each prompt came to, with its text under the pointer."""
    return {
        "name": label,
        "meta": PROMPTS,
        "customdata": own["prompt"].tolist(),
        "x": own["projection_after"],
        "y": own["across_after"],
        "mode": "markers",
        "marker": {
            "color": colour,
            "size": 6,
            "symbol": "circle" if label == "harmful" else "circle-open",
            "opacity": 0.9,
            "line": {"width": 1, "color": colour},
        },
        "hovertext": [hover_text(text) for text in own["text"].tolist()],
        "hovertemplate": f"{label}: along %{{x:.2f}}, main off-axis %{{y:.2f}}<br>%{{hovertext}}<extra></extra>",
    }


def _cross(place: float, role: str) -> dict[str, Any]:
    """A role's mean over harmful prompts."""
    return {
        "name": role,
        "x": [place],
        "y": [0],
        "mode": "markers",
        "hovertemplate": f"{role}'s mean<extra></extra>",
        "marker": {
            "color": style.mark_of(role).colour,
            "symbol": "cross-thin-open",
            "size": 16,
            "line": {"width": 3},
        },
    }
