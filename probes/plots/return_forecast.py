"""The return by step that was forecast before a training, with its interval, and the returns that came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.step_axis import StepAxis
from probes.plots.style import InkName

_CAPTION = (
    "Band: 95 % interval of the forecast for one more run, from runs of the same recipe; beyond its dotted line "
    "no run was seen. Points: measured returns, one line a seed. Dashed: the alarm."
)


def return_forecast(
    rows: pd.DataFrame, calibration: Mapping[str, Any], *, arm: str, subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw a forecast against what came.

    Args:
        rows: seed, step, value: measured returns of the arm at the forecast's layer.
        calibration: the document of `attribution.calibration.Calibration`.
        arm: whose training, for the colour.
        subtitle: run, layer.
        ink: light or dark page.
    """
    fig = style.figure("Return: forecast and measured", subtitle, ink, height=380, caption=_CAPTION)
    colours, mark = style.INKS[ink], style.mark_of(arm)
    forecast = pd.DataFrame(calibration["return_by_step"])
    axis = StepAxis.of([*forecast["step"], *rows["step"]])
    places = [axis.position(step) for step in forecast["step"]]
    fig.add(
        "scatter",
        name="interval",
        x=[*places, *places[::-1]],
        y=[*forecast["high"], *forecast["low"][::-1]],
        fill="toself",
        fillcolor=style.fade(colours.muted, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add(
        "scatter",
        name="forecast",
        x=places,
        y=forecast["value"],
        mode="lines",
        line={"color": colours.muted, "width": 2, "dash": "dash"},
        customdata=forecast[["step", "low", "high"]].to_numpy().tolist(),
        hovertemplate="step %{customdata[0]:,}: forecast %{y:.3f} (%{customdata[1]:.3f} to %{customdata[2]:.3f})"
        "<extra></extra>",
        showlegend=False,
    )
    for seed, own in rows[rows["step"] > 0].sort_values("step").groupby("seed"):
        fig.add(
            "scatter",
            name=f"{arm}, seed {seed}",
            x=[axis.position(step) for step in own["step"]],
            y=own["value"],
            mode="lines+markers",
            line={"color": mark.colour, "width": 1.5},
            marker={"color": mark.colour, "size": 7},
            customdata=own["step"].tolist(),
            hovertemplate=f"seed {seed}, step %{{customdata:,}}: return %{{y:.3f}}<extra></extra>",
            showlegend=False,
        )
    fig.add_hline(y=calibration["alarm"], line={"color": colours.text, "width": 1, "dash": "dash"}, layer="below")
    last = axis.position(calibration["last_step"])
    fig.add_vline(x=last, line={"color": colours.rule, "width": 1, "dash": "dot"}, layer="below")
    axis.apply(fig, colours)
    fig.update_yaxes(title={"text": "return fraction"}, rangemode="tozero")
    return fig.figure()
