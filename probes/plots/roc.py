"""How well a score tells harmful from harmless prompts: one curve a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from probes.plots import style
from probes.plots.labels import EndLabel, label_ends
from probes.plots.style import InkName

_HEIGHT, _TOP, _BOTTOM = 460, 84, 64
_CAPTION = (
    "For every threshold on the projection: the share of harmful prompts above it against the share of harmless ones. "
    "AUROC: the probability that a harmful prompt lies further along the direction than a harmless one; 0.5 tells "
    "nothing, below 0.5 the harmless ones lie further."
)


def roc(
    table: pd.DataFrame, checkpoints: Sequence[tuple[str, str]], *, subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw the curves.

    Args:
        table: checkpoint, arm, label, projection at one layer.
        checkpoints: (checkpoint, name) of each curve.
        subtitle: run, layer and direction.
        ink: light or dark page.
    """
    fig = style.figure(
        "Harmful against harmless prompts", subtitle, ink, height=_HEIGHT, caption=_CAPTION, below=_BOTTOM
    )
    colours, labels = style.INKS[ink], []
    fig.add(
        "scatter",
        name="diagonal",
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        hoverinfo="skip",
        line={"color": colours.rule, "width": 1, "dash": "dot"},
    )
    for checkpoint, name in checkpoints:
        rows = table[(table["checkpoint"] == checkpoint) & table["projection"].notna()]
        if rows["label"].nunique() < 2:
            continue
        false, true, area = curve(rows["projection"].to_numpy(float), (rows["label"] == "harmful").to_numpy())
        mark = style.mark_of(str(rows["arm"].iloc[0]))
        fig.add(
            "scatter",
            name=name,
            x=false,
            y=true,
            mode="lines",
            line={"color": mark.colour, "width": 2.2, "dash": mark.dash},
            hovertemplate=f"{style.plain(name)}<br>%{{y:.2f}} of harmful, %{{x:.2f}} of harmless<extra></extra>",
        )
        middle = float(np.interp(0.5, false, true))  # a curve is named at its own height in the middle
        text = f"{style.plain(name)}: AUROC {area:.2f}"
        labels.append(EndLabel(middle, text, style.legible(mark.colour, colours), x=0.5))
    fig.update_xaxes(title={"text": "share of harmless prompts above the threshold"}, range=[-0.01, 1.01])
    fig.update_yaxes(title={"text": "share of harmful prompts above it"}, range=[-0.01, 1.02])
    fig.update_layout(margin={"r": 30 + 7 * max((len(label.text) for label in labels), default=0)})
    label_ends(fig, labels, (0.0, 1.0), _HEIGHT - _TOP - _BOTTOM, (-0.01, 1.01))
    return fig.figure()


def curve(
    scores: Float[np.ndarray, " prompt"], positive: Bool[np.ndarray, " prompt"]
) -> tuple[np.ndarray, np.ndarray, float]:
    """False and true positive rates for falling thresholds, from (0, 0) to (1, 1), and the area under them."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores fall together
    hits, misses = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    true = np.concatenate([[0.0], hits / positive.sum()])
    false = np.concatenate([[0.0], misses / (~positive).sum()])
    return false, true, float(np.trapezoid(true, false))
