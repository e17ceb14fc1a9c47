"""Trails: how single prompts moved in a map, from the aligned model over the steps of one trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.plots import clouds, style
from probes.plots.style import InkName

_ENDS, _ENDS_IN_SPACE = 9.0, 5.0  # pixels: of an arrow's head, or of its ball
_MARK = 3.0  # of the steps before


def trail(table: pd.DataFrame, axes: int, arm: str, ink: InkName) -> dict[str, Any]:
    """The ways of some prompts as one trace, with gaps between them.

    Args:
        table: prompt, step, and the map's places, of the aligned model (step 0) and of one trajectory's checkpoints.
        axes: 2 or 3.
        arm: of the trajectory, for the colour.
        ink: light or dark page.
    """
    columns, colours = list(clouds.columns_of(axes)), style.INKS[ink]
    ways = [way.sort_values("step") for _, way in table.groupby("prompt", sort=False)]
    gap = pd.DataFrame([dict.fromkeys([*columns, "step"], np.nan)])
    rows = pd.concat([part for way in ways for part in (way, gap)], ignore_index=True) if ways else table
    sizes = [size for way in ways for size in (*_sizes(len(way), _ENDS if axes == 2 else _ENDS_IN_SPACE), 0)]
    colour = style.legible(style.mark_of(arm).colour, colours)
    marker: dict[str, Any] = {"color": colour, "size": sizes, "opacity": 1, "line": {"width": 0}}
    if axes == 2:
        marker |= {"symbol": [mark for way in ways for mark in (*_symbols(len(way)), "circle")], "angleref": "previous"}
    return {
        "type": "scatter" if axes == 2 else "scatter3d",
        "name": f"trails {style.plain(arm)}",
        **dict(zip("xyz", (rows[column] for column in columns), strict=False)),
        "mode": "lines+markers",
        "showlegend": False,
        "customdata": ["" if np.isnan(step) else f"{int(step):,}" for step in rows["step"]],
        "hovertemplate": "step %{customdata}<extra></extra>",
        "line": {"color": colour, "width": 1.6 if axes == 2 else 4},
        "marker": marker,
    }


def _sizes(count: int, end: float) -> list[float]:
    return [_MARK] * (count - 1) + [end]


def _symbols(count: int) -> list[str]:
    return ["circle"] * (count - 1) + ["arrow" if count > 1 else "circle"]
