"""BaRA's ranks as a map of modules by layer: what its gates leave open, or how harmful and harmless prompts differ."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.heatmap import colour_scale, layer_axis, round_up
from probes.plots.style import InkName

Rank = Literal["open", "difference"]
_TITLES: dict[Rank, str] = {"open": "Rank by module", "difference": "Active rank: harmful minus harmless"}
_CAPTIONS: dict[Rank, str] = {
    "open": "Expected number of rank-one terms that the global gate leaves open, of {terms} at most.",
    "difference": "Expected number of active terms at the last token, mean over harmful prompts minus that "
    "over harmless ones; up to 32 prompts of a kind.",
}
_TOP, _BELOW = 84, 64


def module_ranks(
    rows: pd.DataFrame, rank: Rank, *, subtitle: str, headline: int | None = None, ink: InkName = "light"
) -> go.Figure:
    """Draw layers (rows) by modules (columns) of one checkpoint.

    Args:
        rows: layer, module, terms, open, difference.
        rank: which of the two is drawn.
        subtitle: run and checkpoint.
        headline: the layer declared in advance, named on the axis.
        ink: light or dark page.
    """
    colours = style.INKS[ink]
    parts = rows.assign(part=rows["module"].str.rpartition(".")[2])
    names, layers = list(dict.fromkeys(parts["part"])), sorted({int(layer) for layer in parts["layer"]})
    cells = parts.groupby(["layer", "part"])[rank].mean().dropna().to_dict()  # experts of one block share a name
    values = [[cells.get((layer, name)) for name in names] for layer in layers]
    top = float(rows["terms"].max()) if rank == "open" else round_up(float(rows["difference"].abs().max()))
    fig = style.figure(
        _TITLES[rank],
        subtitle,
        ink,
        below=_BELOW,
        height=_TOP + _BELOW + max(160, max(20, min(46, 560 // max(1, len(layers)))) * len(layers)),
        caption=_CAPTIONS[rank].format(terms=int(rows["terms"].max())),
        left=76,
    )
    fig.add(
        "heatmap",
        name="map",
        z=values,
        x=list(range(len(names))),
        y=list(range(len(layers))),
        zmin=0.0 if rank == "open" else -top,
        zmax=top,
        colorscale=colour_scale(rank == "difference", colours),
        xgap=2,
        ygap=2,
        text=[["–" if value is None else style.decimal(value) for value in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 12},
        hovertemplate="%{x}, layer %{y}: %{text}<extra></extra>",
        colorbar=style.colour_bar(colours),
    )
    fig.update_yaxes(**layer_axis(layers, headline), showline=False, ticks="")
    fig.update_xaxes(
        title={"text": "module"}, tickvals=list(range(len(names))), ticktext=names, showline=False, ticks=""
    )
    fig.update_layout(margin={"r": 20})
    return fig.figure()
