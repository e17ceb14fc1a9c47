"""How much of a ranking's sum the first examples hold, from the hardest pull to the hardest push."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.style import InkName

_CAPTION = (
    "Examples from the hardest pull towards the witness to the hardest pull away from it. The line is the sum of the "
    "examples so far; where it falls, examples pull away."
)


def cumulative(rows: pd.DataFrame, *, by: str, arm: str, subtitle: str, ink: InkName = "light") -> go.Figure:
    """Draw the running sum of a ranking.

    Args:
        rows: text, cluster_name and the ranking's column, a row an example.
        by: the ranking: `share`, `effect` or `forecast`.
        arm: whose training, for the colour.
        subtitle: run, layer, trajectory.
        ink: light or dark page.
    """
    fig = style.figure(f"Sum of {by} over ranked examples", subtitle, ink, height=380, caption=_CAPTION)
    ranked = rows.sort_values(by, ascending=False, kind="stable")
    mark = style.mark_of(arm)
    unit = "return fraction" if by != "forecast" and "share" in rows else "no unit"
    names = [style.plain(f"{name}: {text}") for name, text in zip(ranked["cluster_name"], ranked["text"], strict=True)]
    fig.add(
        "scatter",
        name=by,
        x=np.arange(1, len(ranked) + 1),
        y=ranked[by].cumsum(),
        mode="lines",
        line={"color": mark.colour, "width": 2},
        customdata=names,
        hovertemplate="%{x}: %{customdata}<br>sum %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    fig.add_hline(y=0, line={"color": style.INKS[ink].rule, "width": 1}, layer="below")
    fig.update_xaxes(title={"text": "examples, ranked"}, range=[0, len(ranked) + 1])
    fig.update_yaxes(title={"text": f"sum of {by} ({unit})"})
    return fig.figure()
