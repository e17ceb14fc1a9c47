"""Each arm's path through the plane of the reversion direction and the main off-axis directions, in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import MIRROR, ROLES
from probes.plots import animation, labels, scenes, style
from probes.plots.limits import Limits, far_in_plane, far_names, leave, make_room_above, one_scale, plane_limits
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_HEIGHT, _HEIGHT_3D = 560, 490
_LIFTS = (-20.0, 20.0)  # pixels from a role's mark up to its name: below it, else above; the witness's the other way
_RIGHT = 24.0  # pixels right of the plot
_SEEN = 1.55  # diagonal of the box, drawn with a volume of 1, that is seen whole from a distance of 1
_ROOM = {"along": 0.16, "across": 0.10, "third": 0.10}  # of the span, on either side
_ASPECT = 2.2  # of the plot on a wide page
_ALONG = "along the way back (return fraction)"
_ACROSS = "main off-axis direction (units of ‖v‖)"
_CAPTION = (
    "Mean displacement of harmful prompts from the aligned model (origin), in units of the distance to the witness, "
    "which lies at (1, 0). Across: the direction in which all trajectories together leave the axis most. "
    "Markers grow with the optimiser step."
)
_WHOLE = "off-axis length (units of ‖v‖)"
_CAPTION_WHOLE = (
    "Mean displacement of harmful prompts from the aligned model (origin): along the way back, and the length of all "
    "that lies at right angles to it, both in units of the distance to the witness, which lies at (1, 0). The angle "
    "to the axis is the alignment's own."
)


def plane(
    table: pd.DataFrame,
    *,
    subtitle: str,
    witness: str = "witness",
    step: int | None = None,
    whole: bool = False,
    moving: bool = False,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the paths in two dimensions, with equal scales.

    Args:
        table: arm, seed, step, along, across of one layer; roles at step 0.
        subtitle: run, layer and direction.
        witness: the witness's label.
        step: a step to be ringed on every path.
        whole: `across` is the length of all that lies off the axis, not the part along its main direction.
        moving: add a play button over the steps.
        ink: light or dark page.
    """
    title = "Return fraction against what lies off it" if whole else "Paths away from the aligned model"
    caption = _CAPTION_WHOLE if whole else _caption(table)
    fig = style.figure(title, subtitle, ink, height=_HEIGHT, caption=caption)
    colours = style.INKS[ink]
    far = far_in_plane(table, ("along", "across"))
    near = table[~table["arm"].isin(far)]
    wide, high = plane_limits(near, whole=whole, aspect=_ASPECT)
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    fig.add_vline(x=0, line={"color": colours.rule, "width": 1}, layer="below")
    lines = []
    for arm, seed, path in _paths(table):
        lines.append(len(fig.data))
        fig.add_traces([_path_in_plane(arm, seed, path, whole=whole)])
        reached = path[path["step"] == step]
        if len(reached) and not moving:
            _ring(fig, float(reached["along"].iloc[0]), float(reached["across"].iloc[0]), colours.muted)
    fig.add_traces(_roles_in_plane(table, ink))
    fig.add_annotations(_leaving(table[table["arm"].isin(far)], (wide, high), ink))
    make_room_above(fig)
    lasts = [(arm, path.iloc[-1]) for arm, _, path in _paths(near)]
    ends = [(arm, float(last["along"]), float(last["across"])) for arm, last in lasts]
    _names(fig, table, ends, witness, (wide, high), ink)
    fig.update_xaxes(title={"text": _ALONG}, range=list(wide), nticks=8)
    fig.update_yaxes(title={"text": _WHOLE if whole else _ACROSS}, range=list(high), nticks=8)
    one_scale(fig)
    if moving:
        animation.grow(fig, lines, _steps(table), ink)
    return fig.figure()


def _caption(table: pd.DataFrame) -> str:
    return _CAPTION + (" The mirror begins at the witness." if (table["arm"] == MIRROR).any() else "")


def _path_in_plane(arm: str, seed: int, path: pd.DataFrame, *, whole: bool) -> dict[str, Any]:
    """One run's path from its beginning on, with marks that grow with the step."""
    mark = style.mark_of(arm)
    along, across, steps = _from_start(arm, path, ("along", "across"))
    return {
        "type": "scatter",
        "name": f"{arm} s{seed}",
        "x": along,
        "y": across,
        "mode": "lines+markers",
        "legendgroup": arm,
        "line": {"color": mark.colour, "dash": mark.dash, "width": mark.width, "shape": "spline", "smoothing": 0.4},
        "marker": {"color": mark.colour, "symbol": mark.symbol, "size": [0, *_sizes(len(path))], "opacity": 0.9},
        "customdata": steps,
        "hovertemplate": f"<b>{style.plain(arm)}</b>, seed {seed}, step %{{customdata}}"
        f"<br>along %{{x:.3f}}, {'off it' if whole else 'main off-axis'} %{{y:.3f}}<extra></extra>",
    }


def _role_marker(role: str, size: int, ink: InkName) -> dict[str, Any]:
    mark = style.mark_of(role)
    return {"color": mark.colour, "symbol": mark.symbol, "size": size, "line": style.edge(mark, ink)}


def _roles_in_plane(table: pd.DataFrame, ink: InkName) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "name": role,
            "x": [along],
            "y": [across],
            "mode": "markers",
            "marker": _role_marker(role, 16, ink),
            "hovertemplate": f"<b>{role}</b><br>along %{{x:.3f}}<extra></extra>",
        }
        for role, along, across in _roles(table, ("along", "across"))
    ]


def _leaving(table: pd.DataFrame, limits: tuple[Limits, Limits], ink: InkName) -> list[dict[str, Any]]:
    """Where the paths of arms far away leave the plot; seeds of one arm share a name."""
    names = far_names(table.sort_values("step").groupby(["arm", "seed"], as_index=False).last())
    notes = []
    for arm, seed, path in _paths(table):
        along, across, _ = _from_start(arm, path, ("along", "across"))
        notes += leave(list(zip(along, across, strict=True)), *limits, names[arm, seed], arm, ink, one_scale=True)
    return notes


def space(
    table: pd.DataFrame,
    *,
    subtitle: str,
    witness: str = "witness",
    step: int | None = None,
    moving: bool = False,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the paths in three dimensions; the arguments are those of `plane`, the table also has `third`."""
    title = "Paths away from the aligned model, in space"
    far = far_in_plane(table, ("along", "across", "third"))
    near = table[~table["arm"].isin(far)]
    fig = style.figure(title, subtitle, ink, height=_HEIGHT_3D, caption=_caption(table), below=8, left=0)
    colours = style.INKS[ink]
    fig.add(
        "scatter3d",
        name="way back",
        x=[0, 1],
        y=[0, 0],
        z=[0, 0],
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        line={"color": colours.muted, "width": 2, "dash": "dash"},
    )
    first = len(fig.data)
    paths = _paths(table)
    fig.add_traces([_path_in_space(arm, seed, path, marked=None if moving else step) for arm, seed, path in paths])
    lines = list(range(first, first + len(paths)))
    fig.add_traces(_roles_in_space(table, witness, ink))
    scenes.name_arms(fig, {arm for arm, _, _ in paths}, scenes.beyond(table, far), 118)
    fig.update_layout(
        scene={
            "xaxis": {"title": {"text": "along the way back"}},
            "yaxis": {"title": {"text": "main off-axis"}},
            "zaxis": {"title": {"text": "second off-axis"}},
            "aspectmode": "data",
            "camera": _camera(near),
        },
    )
    for axis, column in (("xaxis", "along"), ("yaxis", "across"), ("zaxis", "third")):
        fig.update_layout(scene={axis: {"range": list(_span(near, column))}})  # the same in every frame
    if moving:
        animation.grow(fig, lines, _steps(table), ink)
    return fig.figure()


def _camera(table: pd.DataFrame) -> dict[str, Any]:
    """So far away that the box and its axes' names are seen whole on a narrow page, and aimed below its middle."""
    spans = [_span(table, column) for column in ("along", "across", "third")]
    lengths = [high - low for low, high in spans]
    away = math.hypot(*lengths) / math.prod(lengths) ** (1 / 3) / _SEEN  # Plotly draws every box with a volume of 1
    eye = {"x": 0.55 * away, "y": -1.75 * away, "z": 0.85 * away}
    return {"eye": eye, "center": {"x": 0.0, "y": 0.0, "z": -0.1}}


def _path_in_space(arm: str, seed: int, path: pd.DataFrame, *, marked: int | None) -> dict[str, Any]:
    """One run's path from its beginning on, with a larger mark at a step."""
    mark = style.mark_of(arm)
    along, across, third, steps = _from_start(arm, path, ("along", "across", "third"))
    sizes = [0.0, *(size * 0.55 for size in _sizes(len(path)))]
    if marked in steps[1:]:
        sizes[steps.index(marked)] += 5
    return {
        "type": "scatter3d",
        "name": f"{arm} s{seed}",
        "x": along,
        "y": across,
        "z": third,
        "mode": "lines+markers",
        "showlegend": False,
        "line": {"color": mark.colour, "width": 4, "dash": mark.dash},
        "marker": {"color": mark.colour, "symbol": mark.solid, "size": sizes, "line": {"width": 0}},
        "customdata": steps,
        "hovertemplate": f"<b>{style.plain(arm)}</b>, seed {seed}, step %{{customdata}}<br>along %{{x:.3f}}, "
        "main off-axis %{y:.3f}, second %{z:.3f}<extra></extra>",
    }


def _roles_in_space(table: pd.DataFrame, witness: str, ink: InkName) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter3d",
            "name": role,
            "x": place[:1],
            "y": place[1:2],
            "z": place[2:],
            "mode": "markers+text",
            "text": ["  " + (style.plain(witness) if role == "witness" else role)],
            "textposition": "middle right",
            "textfont": {"size": 13, "color": style.legible(style.mark_of(role).colour, style.INKS[ink])},
            "marker": _role_marker(role, 8, ink),
            "hovertemplate": f"<b>{role}</b><br>along %{{x:.3f}}<extra></extra>",
            "showlegend": False,
        }
        for role, *place in _roles(table, ("along", "across", "third"))
    ]


def _steps(table: pd.DataFrame) -> list[int]:
    return [0, *sorted({int(step) for step in table["step"] if step > 0})]


def _paths(table: pd.DataFrame) -> list[tuple[str, int, pd.DataFrame]]:
    arms = style.in_order(set(table["arm"].unique()) - set(ROLES))[::-1]
    return [
        (arm, int(seed), path.sort_values("step"))
        for arm in arms
        for seed, path in table[table["arm"] == arm].groupby("seed")
    ]


def _from_start(arm: str, path: pd.DataFrame, columns: Sequence[str]) -> tuple[list, ...]:
    """Each coordinate as a list that begins where the training did, and the steps, which begin at 0.

    That is the aligned model, at the origin, and for the mirror the witness, at 1 along the way back.
    """
    start = [1.0 if arm == MIRROR and place == 0 else 0.0 for place in range(len(columns))]
    coordinates = ([first, *map(float, path[column])] for first, column in zip(start, columns, strict=True))
    return (*coordinates, [0, *map(int, path["step"])])


def _sizes(count: int) -> list[float]:
    return [6 + 8 * (rank + 1) / count for rank in range(count)]


def _roles(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple]:
    """Where the roles lie: aligned and witness by definition, the pretrained model where it was measured."""
    zeros = [0.0] * (len(columns) - 1)
    rows = table[table["arm"] == "pretrained"]
    pretrained = [("pretrained", *(float(rows[column].iloc[0]) for column in columns))] if len(rows) else []
    return [*pretrained, ("witness", 1.0, *zeros), ("aligned", 0.0, *zeros)]


def _ring(fig: Sheet, along: float, across: float, colour: str) -> None:
    fig.add(
        "scatter",
        name="ring",
        x=[along],
        y=[across],
        mode="markers",
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 22, "color": colour, "line": {"width": 1}},
    )


def _names(
    fig: Sheet,
    table: pd.DataFrame,
    ends: list[tuple[str, float, float]],
    witness: str,
    limits: tuple[Limits, Limits],
    ink: InkName,
) -> None:
    """Roles are named above or below their marks, arms beside the ends of their paths, moved apart where they meet."""
    colours, scales = style.INKS[ink], labels.pixels_a_unit(*limits, _HEIGHT - 148)
    roles = [
        labels.Spot(
            along,
            across,
            style.plain(witness) if role == "witness" else role,
            style.legible(style.mark_of(role).colour, colours),
        )
        for role, along, across in _roles(table, ("along", "across"))
    ]

    def obstacles(scale: labels.Scale) -> list[labels.Boxes]:
        sides = [labels.left_of(limits[0][0], scale), labels.right_of(limits[0][1], scale, _RIGHT)]
        return [*sides, labels.above_and_below(limits[1], scale), *_boxes(table, scale)]

    lifts = [
        labels.free_lift(role, _LIFTS if role.y or not role.x else _LIFTS[::-1], obstacles, scales) for role in roles
    ]
    for role, lift in zip(roles, lifts, strict=True):
        font = {"size": 13, "color": role.colour}
        note = {"name": "role", "x": role.x, "y": role.y, "yshift": lift, "showarrow": False, "text": role.text}
        fig.add_annotation(**note, font=font)
    spots = []
    for arm in style.in_order(arm for arm, _, _ in ends):
        places = [(along, across) for name, along, across in ends if name == arm]
        text = style.plain(arm) + (f" ({len(places)} seeds)" if len(places) > 1 else "")
        spots.append(labels.Spot(*max(places), text, style.legible(style.mark_of(arm).colour, colours)))

    def boxes(scale: labels.Scale) -> list[labels.Boxes]:
        named = zip(roles, lifts, strict=True)
        return [
            *obstacles(scale),
            *(labels.name_of_mark(role.x, role.y, role.text, lift, scale) for role, lift in named),
        ]

    fig.add_annotations(labels.over(labels.beside(spots, boxes, scales), colours.background))


def _boxes(table: pd.DataFrame, scale: labels.Scale) -> list[labels.Boxes]:
    """What marks and paths take."""
    roles = _roles(table, ("along", "across"))
    places = [*zip(table["along"], table["across"], strict=True), *((along, across) for _, along, across in roles)]
    paths = [_from_start(arm, path, ("along", "across"))[:2] for arm, _, path in _paths(table)]
    return [labels.marks(places, scale), *(labels.line(along, across, scale) for along, across in paths)]


def _span(table: pd.DataFrame, column: str) -> tuple[float, float]:
    values = [0.0, *table[column].dropna(), *([1.0] if column == "along" else [])]
    room = _ROOM[column] * ((max(values) - min(values)) or 1.0)
    return min(values) - room, max(values) + room
