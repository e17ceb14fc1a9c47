"""What pictures in space share: a legend of the arms above the scene, which says of an arm outside how far it came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from probes.plots import style
from probes.plots.sheet import Sheet


def name_arms(fig: Sheet, arms: Iterable[str], beyond: Mapping[str, str], top: int) -> None:
    """Name the arms in a legend above the scene, whose names in space would lie on each other.

    Args:
        fig: a figure with one scene, which is turned by the mouse from now on.
        arms: which.
        beyond: what is added to an arm's name, as from `beyond`.
        top: pixels above the scene with a short legend; a long one takes more, and the figure grows by it.
    """
    keys = [_key(arm, style.plain(arm) + beyond.get(arm, "")) for arm in style.in_order(arms)]
    room = style.legend_room([key["name"] for key in keys])
    fig.add_traces(keys)
    fig.update_layout(
        margin={"r": 0, "t": top + room},
        height=fig.height + room,
        dragmode="orbit",
        showlegend=True,
        legend=style.legend_above() | {"traceorder": "normal"},
    )


def beyond(table: pd.DataFrame, far: set[str]) -> dict[str, str]:
    """How far the arms have come that leave the space that is drawn."""
    last = table[table["arm"].isin(far)].sort_values("step").groupby("arm")["along"].last()
    return {str(arm): f" → {style.decimal(along)}, outside" for arm, along in last.items()}


def _key(arm: str, name: str) -> dict[str, Any]:
    mark = style.mark_of(arm)
    return {
        "type": "scatter3d",
        "name": name,
        "x": [None],
        "y": [None],
        "z": [None],
        "mode": "lines+markers",
        "marker": {"color": mark.colour, "symbol": mark.solid, "size": 5},
        "line": {"color": mark.colour, "width": 4, "dash": mark.dash},
    }
