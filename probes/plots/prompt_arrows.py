"""Displacements prompt by prompt, as arrows in the plane of the way back and the main off-axis direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.displacement import ALONG, HEIGHT, MAIN
from probes.plots.prompt_marks import PROMPTS, hover_text
from probes.plots.style import InkName

_CAPTION = (
    "Each arrow: one probe prompt, from where it lies in the aligned model to where it lies in the checkpoint. "
    "Filled ends: harmful prompts; open: harmless ones. The cross: the witness's mean over harmful prompts."
)


def prompt_arrows(
    before: pd.DataFrame, after: pd.DataFrame, *, arm: str, subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw how each prompt's activation moved in the plane, from the aligned model to a checkpoint.

    Args:
        before: prompt, label, projection, across, text in the aligned model.
        after: the same in the checkpoint.
        arm: its arm, for the colour.
        subtitle: run, layer, checkpoint.
        ink: light or dark page.
    """
    fig = style.figure("Each prompt's way in the plane", subtitle, ink, height=HEIGHT, caption=_CAPTION)
    joined = before.merge(after[["prompt", "projection", "across"]], on="prompt", suffixes=("", "_after"))
    kind, colours = style.flat_points(len(joined)), style.INKS[ink]
    for label, colour, opacity in (
        ("harmless", colours.muted, 0.35),
        ("harmful", style.mark_of(arm).colour, 0.8),
    ):
        own = joined[joined["label"] == label]
        faded = style.fade(colour, 0.5 * opacity) if colour.startswith("#") else colour
        fig.add_traces([{"type": kind, **_ways(own, label, faded)}, {"type": kind, **_ends(own, label, colour)}])
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    for place, role in ((0.0, "aligned"), (1.0, "witness")):
        fig.add_scatter(**_cross(place, role))
    fig.update_xaxes(title={"text": ALONG}, nticks=8)
    fig.update_yaxes(title={"text": MAIN}, nticks=8, scaleanchor="x", constrain="range")
    return fig


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
        "customdata": list(own["prompt"]),
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
        "hovertext": [hover_text(text) for text in own["text"]],
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
