"""All prompts at a layer in one map, 2-D or 3-D: checkpoints by colour, harmful filled, harmless open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.lineage import NO_WITNESS, ROLES
from probes.plots import animation, clouds, prompt_marks, style
from probes.plots.clouds import Drawing
from probes.plots.sheet import Sheet
from probes.plots.style import InkName
from probes.plots.trails import trail

AT_MOST = 200_000  # points in one picture; more are thinned evenly in every checkpoint and class
_IN_SPACE = 40_000
_HEIGHT, _HEIGHT_3D = 600, 680
_GRID = 60
_TOP = 118  # pixels: room above the map for two lines of a legend


def manifold(
    table: pd.DataFrame,
    about: dict[str, Any],
    *,
    drawing: Drawing,
    subtitle: str,
    witness: str,
    whole: pd.DataFrame | None = None,
    trails: pd.DataFrame | None = None,
    ink: InkName = "light",
) -> go.Figure:
    """Draw a map.

    Args:
        table: checkpoint, arm, seed, step, prompt, label, text, x and y, or x3, y3, z3, of the checkpoints to be shown;
            perhaps `hover`, what stands under the pointer, and what colours are by: flip, topic, projection.
        about: the map's description: method, fitted_on, trustworthiness, neighbours, explained, seed.
        drawing: how.
        subtitle: run and layer.
        witness: the witness's label.
        trails: the places of one trajectory at all of its steps and of the aligned model, for `drawing.trails`;
            None: the table's.
        whole: the map's places of every checkpoint, which fix the axes whatever is shown; None: the table's.
        ink: light or dark page.
    """
    limits = {axis: _limits((table if whole is None else whole)[axis]) for axis in clouds.columns_of(drawing.axes)}
    table = thin(table, _IN_SPACE if drawing.axes == 3 else AT_MOST)
    if drawing.colour in clouds.BY_PROMPT:
        table = prompt_marks.colour_prompts(table, drawing.colour, ink)
    method = str(about["method"]).upper()
    fig = style.figure(
        f"{method} map of the prompts",
        subtitle,
        ink,
        height=_HEIGHT_3D if drawing.axes == 3 else _HEIGHT,
        caption=_caption(about, drawing, witness),
        left=20,
        below=44 if drawing.axes == 2 else 8,
    )
    fixed = table["arm"].isin(ROLES)
    steps = sorted({int(step) for step in table[~fixed]["step"]})
    shown = table[fixed] if drawing.moving and steps else table
    clouds.draw(fig, shown, drawing, steps, ink, witness)
    if drawing.contours and drawing.axes == 2:
        _contours(fig, shown, ink)
    if _has_arrow(about, drawing):
        _arrow(fig, table, drawing.axes, ink)
    _names(fig, table, drawing, witness, ink)
    _axes(fig, limits, drawing.axes, method, about)
    paths = _paths(table if trails is None else trails, drawing)
    if drawing.moving and steps:
        _add_frames(fig, table[~fixed], paths, drawing, steps, ink, witness)
    elif paths is not None:
        _stand_back(fig)
        fig.add_traces([trail(paths[1], drawing.axes, paths[0], ink)])
    return fig.figure()


def _stand_back(fig: Sheet) -> None:
    """Let the clouds be the ground on which trails are seen."""
    for trace in fig.data:
        if trace.get("meta") == prompt_marks.PROMPTS:
            trace["marker"]["opacity"] = 0.3


def _paths(table: pd.DataFrame, drawing: Drawing) -> tuple[str, pd.DataFrame] | None:
    """The arm whose steps are drawn as trails, and its places and the aligned model's of the prompts with a trail."""
    arms = [arm for arm in style.in_order(set(table["arm"].unique())) if arm not in ROLES]
    if not drawing.trails or not arms:
        return None
    rows = table[table["arm"].isin(["aligned", arms[0]]) & table["prompt"].isin(drawing.trails)]
    seeds = rows[rows["arm"] == arms[0]]["seed"]
    return arms[0], rows[(rows["arm"] == "aligned") | (rows["seed"] == seeds.min())]


def _has_arrow(about: dict[str, Any], drawing: Drawing) -> bool:
    """Only where a mean of places is a place: UMAP's islands have none between them."""
    return drawing.arrow and about["method"] == "pca"


def thin(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, taken evenly from every checkpoint and class."""
    if len(table) <= most:
        return table
    every = -(-len(table) // most)
    return table[table.groupby(["checkpoint", "label"]).cumcount() % every == 0]


def _limits(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _caption(about: dict[str, Any], drawing: Drawing, witness: str) -> str:
    roles = "the aligned model" + ("" if witness == NO_WITNESS else " and the witness")
    fitted = "every checkpoint" if about.get("fit") == "all" else roles
    share = about["trustworthiness"].get(str(drawing.axes))
    parts = [
        f"Fitted once on {fitted}; every checkpoint is placed in that map, so pictures can be compared.",
        f"Trustworthiness {share:.3f} ({about['neighbours']} neighbours; 1: every neighbour in the map is a true one).",
        "Filled: harmful prompts; open: harmless ones.",
    ]
    if drawing.contours and drawing.axes == 2:
        parts.append("Lines: around the densest half of each checkpoint's harmful prompts.")
    if _has_arrow(about, drawing):
        parts.append("Arrow: the way back, from the aligned model's mean harmful prompt to the witness's.")
    if drawing.trails:
        parts.append("Trails: single prompts, from the aligned model over the steps to the arrow's head.")
    if about["method"] == "umap":
        parts.append("UMAP keeps neighbours, not distances: how far two clouds lie apart, and which way, means little.")
    return " ".join(parts)


def _contours(fig: Sheet, table: pd.DataFrame, ink: InkName) -> None:
    """The line around the densest half of each checkpoint's harmful prompts."""
    harmful = table[table["label"] == "harmful"]
    last = harmful.groupby("arm")["step"].transform("max")
    harmful = harmful[harmful["step"] == last]
    for arm, cloud in harmful.groupby("arm"):
        density = _density(cloud[["x", "y"]].to_numpy(float))
        if density is None:
            continue
        x, y, z, half = density
        fig.add(
            "contour",
            name=f"density {arm}",
            x=x,
            y=y,
            z=z,
            showscale=False,
            showlegend=False,
            hoverinfo="skip",
            autocontour=False,
            contours={"start": half, "end": half, "size": 1, "coloring": "none", "showlabels": False},
            line={"color": style.legible(style.mark_of(str(arm)).colour, style.INKS[ink]), "width": 1.6},
        )


def _density(places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """A kernel density on a grid, and the level above which half of the points lie."""
    from scipy.stats import gaussian_kde

    if len(places) < 8 or not np.ptp(places, axis=0).all():
        return None
    try:
        kernel = gaussian_kde(places.T)
    except np.linalg.LinAlgError:  # all on one line
        return None
    low, high = places.min(axis=0), places.max(axis=0)
    room = 0.3 * (high - low)
    x, y = (np.linspace(low[axis] - room[axis], high[axis] + room[axis], _GRID) for axis in (0, 1))
    z = kernel(np.stack([part.ravel() for part in np.meshgrid(x, y)])).reshape(_GRID, _GRID)
    return x, y, z, float(np.median(kernel(places.T)))


def _arrow(fig: Sheet, table: pd.DataFrame, axes: int, ink: InkName) -> None:
    columns = list(clouds.columns_of(axes))
    ends = table[table["arm"].isin(["aligned", "witness"]) & (table["label"] == "harmful")]
    means = ends.groupby("arm", observed=True)[columns].mean()
    if not {"aligned", "witness"} <= set(means.index):
        return
    start, end = means.loc["aligned", columns], means.loc["witness", columns]
    colour = style.INKS[ink].text
    if axes == 2:
        fig.add_annotation(
            name="v_rev",
            x=end["x"],
            y=end["y"],
            ax=start["x"],
            ay=start["y"],
            xref="x",
            yref="y",
            axref="x",
            ayref="y",
            showarrow=True,
            arrowhead=3,
            arrowsize=1.2,
            arrowwidth=1.8,
            arrowcolor=colour,
            text="",
        )
        return
    path: dict[str, Any] = {axis: [start[column], end[column]] for axis, column in zip("xyz", columns, strict=True)}
    fig.add(
        "scatter3d",
        name="v_rev",
        **path,
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        line={"color": colour, "width": 5},
    )
    tip: dict[str, Any] = {axis: [end[column]] for axis, column in zip("xyz", columns, strict=True)}
    turn: dict[str, Any] = {axis: [end[column] - start[column]] for axis, column in zip("uvw", columns, strict=True)}
    fig.add(
        "cone",
        name="tip",
        **tip,
        **turn,
        anchor="tip",
        showscale=False,
        hoverinfo="skip",
        sizemode="absolute",
        sizeref=0.08 * float(np.linalg.norm([value[0] for value in turn.values()])),
        colorscale=[(0, colour), (1, colour)],
    )


def _names(fig: Sheet, table: pd.DataFrame, drawing: Drawing, witness: str, ink: InkName) -> None:
    """A legend of what is shown, in the one order; names in the picture would cover points."""
    entries = clouds.legend(table, drawing, witness, ink)
    for name, colour, symbol in entries:
        fig.add_traces(
            [
                clouds.nowhere(drawing.axes)
                | {
                    "name": style.plain(name),
                    "showlegend": True,
                    "marker": {"color": colour, "size": 9, "symbol": symbol, "line": {"width": 1, "color": colour}},
                }
            ]
        )
    room = style.legend_room([name for name, _, _ in entries])
    fig.update_layout(
        showlegend=True,
        legend=style.legend_above() | {"font": {"size": 13}, "bgcolor": "rgba(0,0,0,0)"},
        margin={"t": _TOP + room},
        height=fig.height + room,
    )


def _axes(fig: Sheet, limits: dict[str, tuple[float, float]], axes: int, method: str, about: dict[str, Any]) -> None:
    explained = about.get("explained") or []
    titles = [
        f"{method} {place + 1}"
        + (f" ({style.percent(explained[place])} of variance)" if place < len(explained) else "")
        for place in range(axes)
    ]
    if axes == 2:
        quiet: dict[str, Any] = {"showticklabels": False, "ticks": "", "title": {"standoff": 4}}
        fig.update_xaxes(range=list(limits["x"]), **quiet)
        fig.update_yaxes(range=list(limits["y"]), scaleanchor="x" if method == "PCA" else None, **quiet)
        fig.update_xaxes(title={"text": titles[0]})
        fig.update_yaxes(title={"text": titles[1]})
        fig.update_layout(margin={"l": 40}, dragmode="pan")
        return
    scene = {
        f"{axis}axis": {"range": list(limits[column]), "title": {"text": title}, "showticklabels": False}
        for axis, column, title in zip("xyz", clouds.columns_of(3), titles, strict=True)
    }
    fig.update_layout(
        scene={**scene, "aspectmode": "data" if method == "PCA" else "cube"}, dragmode="orbit", margin={"r": 0}
    )


def _add_frames(
    fig: Sheet,
    tuned: pd.DataFrame,
    paths: tuple[str, pd.DataFrame] | None,
    drawing: Drawing,
    steps: list[int],
    ink: InkName,
    witness: str,
) -> None:
    """A cloud for each arm, seed and class that takes the places of one step after another."""
    slots = [
        (arm, seed, label)
        for arm in style.in_order(set(tuned["arm"].unique()))
        for seed in sorted(set(tuned[tuned["arm"] == arm]["seed"]))
        for label in ("harmless", "harmful")
    ]

    kind = "scatter3d" if drawing.axes == 3 else style.flat_points(len(tuned))

    def places(step: int) -> list[dict[str, Any]]:
        traces = []
        for arm, seed, label in slots:
            own = tuned[(tuned["arm"] == arm) & (tuned["seed"] == seed) & (tuned["label"] == label)]
            now = own[own["step"] == step]
            name = clouds.name_of(arm, step, witness)
            traces.append(clouds.points(now, label, name, arm, step, drawing, steps, ink, kind))
        for trace in traces:
            trace["marker"]["opacity"] = 0.9
        if paths is not None:
            traces.append(trail(paths[1][paths[1]["step"] <= step], drawing.axes, paths[0], ink))
        return traces

    first = len(fig.data)
    fig.add_traces(places(steps[-1]))
    traces = list(range(first, len(fig.data)))
    frames = [{"name": f"{step}", "data": places(step), "traces": traces} for step in steps]
    animation.play(fig, frames, steps, ink)
