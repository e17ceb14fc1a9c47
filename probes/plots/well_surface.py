"""The well of one layer as a surface, with every arm's path above it and the models as pins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.lineage import ROLES
from probes.plots import scenes, style
from probes.plots.displacement import ALONG, MAIN
from probes.plots.style import InkName
from probes.plots.well import SCALES, caption_of, limits_of, title_of, ways
from probes.plots.well_depth import CEILING, Well, make_well

_HEIGHT = 680
_LENGTH = 1.25  # of the axis along, so that on a narrow page no axis is cut
_GRID = 88  # places along: enough for a smooth surface, and light enough to turn
_LIFT = 0.15  # nats that a path lies above the surface
_PIECES = 24  # of a path between two checkpoints, so that it follows the surface
_PIN = CEILING + 0.4  # nats: where the models' marks stand, to be seen from every side


def surface(
    prompts: pd.DataFrame, paths: pd.DataFrame, *, subtitle: str, witness: str = "witness", ink: InkName = "light"
) -> go.Figure:
    """Draw the well of one layer as a surface, with the paths above it; the arguments are those of `well.contour`."""
    wide, high, far = limits_of(prompts, paths, 1.5)
    well = make_well(prompts, wide, high, _GRID)
    fig = style.figure(title_of(well), subtitle, ink, height=_HEIGHT, caption=caption_of(well), below=8, left=0)
    if well is None:
        return fig.figure()
    fig.add(
        "surface",
        name="well",
        x=well.along,
        y=well.across,
        z=well.depth,
        colorscale=SCALES[ink],
        showscale=False,
        hoverinfo="skip",
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
        contours={"z": {"show": True, "start": 0.5, "end": CEILING, "size": 0.5, "color": "#FFFFFF", "width": 1}},
    )
    for arm, seed, path in ways(paths):
        fig.add_traces(_path_above(well, arm, seed, path))
    fig.add_traces(_pins(well, paths, witness, ink))
    scenes.name_arms(fig, set(paths["arm"].unique()) - set(ROLES), scenes.beyond(paths, far), 112)
    shares = (wide[1] - wide[0], high[1] - high[0])
    scene: dict[str, dict[str, Any]] = {
        f"{axis}axis": {"title": {"text": text}} for axis, text in zip("xyz", (ALONG, MAIN, "depth"), strict=True)
    }
    scene["xaxis"]["range"], scene["yaxis"]["range"] = list(wide), list(high)
    scene["zaxis"] |= {"title": {"text": "depth (nats)"}, "range": [-0.2, _PIN + 0.6]}
    ratio = {"x": _LENGTH, "y": _LENGTH * shares[1] / shares[0], "z": 0.36}
    # From so far up that paths are seen to their ends, and from so far down that a basin is seen to be deep.
    camera = {"eye": {"x": -0.05, "y": -0.85, "z": 1.85}, "center": {"x": 0.0, "y": 0.0, "z": -0.2}}
    for axis, ticks in (("x", 6), ("y", 5), ("z", 3)):
        scene[f"{axis}axis"]["nticks"] = ticks
    fig.update_layout(scene={**scene, "aspectmode": "manual", "aspectratio": ratio, "camera": camera})
    return fig.figure()


def _path_above(well: Well, arm: str, seed: int, path: pd.DataFrame) -> list[dict[str, Any]]:
    """A trajectory just above the surface: a line that follows it, and a mark at each checkpoint; cut where it ends."""
    mark, at = style.mark_of(arm), np.arange(len(path), dtype=float)
    between = np.linspace(0.0, len(path) - 1, _PIECES * max(len(path) - 1, 1) + 1)
    line = {name: np.interp(between, at, path[name]) for name in ("along", "across")}
    inside = _inside(well, line["along"], line["across"])
    if not inside.all():
        inside &= np.arange(len(inside)) < int(np.argmin(inside))  # what comes back is not joined to it
    shown = {name: places[inside] for name, places in line.items()}
    marks = path[_inside(well, path["along"].to_numpy(), path["across"].to_numpy())].iloc[1:]
    common = {"type": "scatter3d", "legendgroup": arm, "hoverinfo": "skip"}
    return [
        {
            **common,
            "name": f"path {arm} s{seed}",
            **_lift(well, shown),
            "mode": "lines",
            "showlegend": False,
            "line": {"color": mark.colour, "width": 8, "dash": mark.dash},
        },
        {
            **common,
            "name": f"{arm} s{seed}",
            **_lift(well, marks),
            "mode": "markers",
            "showlegend": False,
            "marker": {
                "color": mark.colour,
                "symbol": mark.solid,
                "size": 5,
                "opacity": 1,
                "line": {"width": 0},
            },
            "customdata": [f"{step:,}" for step in marks["step"]],
            "hoverinfo": None,
            "hovertemplate": f"<b>{style.plain(arm)}</b>, seed {seed}, step %{{customdata}}<br>along %{{x:.3f}}, "
            "main off-axis %{y:.3f}<extra></extra>",
        },
    ]


def _inside(well: Well, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    return (
        (along >= well.along[0]) & (along <= well.along[-1]) & (across >= well.across[0]) & (across <= well.across[-1])
    )


def _lift(well: Well, places: Mapping[str, Any] | pd.DataFrame) -> dict[str, Any]:
    """Places on the surface, lifted off it."""
    along, across = np.asarray(places["along"], dtype=float), np.asarray(places["across"], dtype=float)
    return {"x": along, "y": across, "z": well.depth_at(along, across) + _LIFT}


def _pins(well: Well, paths: pd.DataFrame, witness: str, ink: InkName) -> list[dict[str, Any]]:
    """Each model above the place where it lies, and how deep that is."""
    pins = []
    for row in paths[paths["arm"].isin(ROLES)].itertuples():
        mark, name = style.mark_of(str(row.arm)), witness if row.arm == "witness" else str(row.arm)
        depth = float(well.depth_at([row.along], [row.across])[0])
        pins.append(
            {
                "type": "scatter3d",
                "name": row.arm,
                "x": [row.along] * 2,
                "y": [row.across] * 2,
                "z": [depth, _PIN],
                "mode": "lines+markers+text",
                "text": ["", style.plain(name)],
                "textposition": "top center",
                "textfont": {"size": 14, "color": style.INKS[ink].text},
                "line": {"color": mark.colour, "width": 3},
                "marker": {"color": mark.colour, "symbol": mark.solid, "size": [3, 7], "line": {"width": 0}},
                "hovertemplate": f"<b>{row.arm}</b>, {style.decimal(depth)} nats<extra></extra>",
                "showlegend": False,
            }
        )
    return pins
