"""How a cloud of prompts is spread: the share of variance by principal axis, and its participation ratio."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.labels import EndLabel, label_ends
from probes.plots.style import InkName

_HEIGHT, _TOP, _BOTTOM = 420, 84, 64
_OF = {"activations": "activations", "displacements": "displacements from the aligned model"}
_CAPTION = (
    "Share of the variance over prompts along each principal axis. PR, the participation ratio tr(Σ)² / tr(Σ²), says "
    "in about how many directions the cloud is spread; the fewer, the easier two displacements agree by accident."
)


def spectrum(
    rows: pd.DataFrame, checkpoints: Sequence[tuple[str, str]], *, of: str, subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw the spectra of some checkpoints at one layer.

    Args:
        rows: checkpoint, arm, of, component, share, participation_ratio at one layer.
        checkpoints: (checkpoint, name) of each line.
        of: `activations` or `displacements`.
        subtitle: run and layer.
        ink: light or dark page.
    """
    fig = style.figure(
        f"Spread of the {_OF.get(of, of)}", subtitle, ink, height=_HEIGHT, caption=_CAPTION, below=_BOTTOM
    )
    rows, labels = rows[rows["of"] == of], []
    most = max(0.05, float(rows["share"].max()) if len(rows) else 1.0)
    for checkpoint, name in checkpoints:
        own = rows[rows["checkpoint"] == checkpoint].sort_values("component")
        if own.empty:
            continue
        mark = style.mark_of(str(own["arm"].iloc[0]))
        fig.add(
            "scatter",
            name=name,
            x=own["component"],
            y=own["share"],
            mode="lines+markers",
            line={"color": mark.colour, "width": 1.6, "dash": mark.dash},
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 6},
            customdata=[style.percent(share, 1) for share in own["share"]],
            hovertemplate=f"{style.plain(name)}<br>axis %{{x}}: %{{customdata}}<extra></extra>",
        )
        ratio = float(own["participation_ratio"].iloc[0])
        text = f"{style.plain(name)}: PR {ratio:.1f}"
        labels.append(
            EndLabel(
                float(own["share"].iloc[-1]),
                text,
                style.legible(mark.colour, style.INKS[ink]),
                x=float(own["component"].iloc[-1]),
            )
        )
    limits, across = (0.0, 1.06 * most), (0.0, 1.03 * float(rows["component"].max() if len(rows) else 1))
    fig.update_xaxes(title={"text": "principal axis, by variance"}, range=list(across))
    fig.update_yaxes(title={"text": "share of variance"}, range=list(limits), **style.percent_ticks(limits[1]))
    fig.update_layout(margin={"r": 30 + 7 * max((len(label.text) for label in labels), default=0)})
    label_ends(fig, labels, limits, _HEIGHT - _TOP - _BOTTOM, across)
    return fig.figure()
