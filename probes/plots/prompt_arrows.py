"""Displacements prompt by prompt, as arrows in the plane of the way back and the main off-axis direction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.displacement import ALONG, HEIGHT, MAIN
from probes.plots.style import InkName


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
    caption = (
        "Each arrow: one probe prompt, from where it lies in the aligned model to where it lies in the checkpoint. "
        "Filled ends: harmful prompts; open: harmless ones. The cross: the witness's mean over harmful prompts."
    )
    fig = style.figure("Each prompt's way in the plane", subtitle, ink, height=HEIGHT, caption=caption)
    joined = before.merge(after[["prompt", "projection", "across"]], on="prompt", suffixes=("", "_after"))
    mark, colours = style.mark_of(arm), style.INKS[ink]
    for label, opacity in (("harmless", 0.35), ("harmful", 0.8)):
        own = joined[joined["label"] == label]
        gap = np.full(len(own), np.nan)
        x = np.column_stack([own["projection"], own["projection_after"], gap]).ravel()
        y = np.column_stack([own["across"], own["across_after"], gap]).ravel()
        colour = mark.colour if label == "harmful" else colours.muted
        kind = style.flat_points(len(joined))
        ways = {
            "type": kind,
            "name": f"way {label}",
            "x": x,
            "y": y,
            "mode": "lines",
            "hoverinfo": "skip",
            "line": {"color": style.fade(colour, 0.5 * opacity) if colour.startswith("#") else colour, "width": 1},
        }
        ends = {
            "type": kind,
            "name": label,
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
            "hovertext": [style.plain(str(text)[:80]) for text in own["text"]],
            "hovertemplate": f"{label}: along %{{x:.2f}}, across %{{y:.2f}}<br>%{{hovertext}}<extra></extra>",
        }
        fig.add_traces([ways, ends])
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    for place, role in ((0.0, "aligned"), (1.0, "witness")):
        fig.add_scatter(
            name=role,
            x=[place],
            y=[0],
            mode="markers",
            hovertemplate=f"{role}'s mean<extra></extra>",
            marker={"color": style.mark_of(role).colour, "symbol": "cross-thin-open", "size": 16, "line": {"width": 3}},
        )
    fig.update_xaxes(title={"text": ALONG}, nticks=8)
    fig.update_yaxes(title={"text": MAIN}, nticks=8)
    return fig
