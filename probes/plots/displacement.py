"""Mean displacements as arrows in the plane of v_rev, with the nulls' cone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots import labels, style
from probes.plots.limits import Limits, far_in_plane, far_names, leave, make_room_above, one_scale, plane_limits
from probes.plots.sheet import Sheet
from probes.plots.style import InkName
from probes.statistics import null_name

HEIGHT = 560
ALONG, MAIN = "along the way back (return fraction)", "main off-axis direction (units of ‖v‖)"
_WHOLE = "off-axis length (units of ‖v‖)"
_RIGHT = 110.0  # pixels right of the plot
_ASPECT = 2.0  # of the plot on a wide page
_LINE = 20.0  # pixels that the cone's name takes below the plot's upper edge
_BELOW = -20.0  # pixels from a role's mark up to its name
_CAPTION = (
    "Each arrow: a checkpoint's mean displacement on harmful prompts from the aligned model (origin), in units of the "
    "distance to the witness, which lies at (1, 0)."
)


@dataclass(frozen=True)
class Cone:
    """The hardest null at a checkpoint: an arrow nearer to the way back than its angle is beyond every null."""

    null: str
    limit: float
    limit_label: str

    @property
    def angle(self) -> float:
        """Between the way back and the cone's edge, radians."""
        return math.acos(max(-1.0, min(1.0, self.limit)))


def vectors(
    table: pd.DataFrame,
    *,
    chosen: tuple[str, int],
    step: int,
    subtitle: str,
    witness: str = "witness",
    cone: Cone | None = None,
    whole: bool = True,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the chosen trajectory's checkpoints as arrows, and every other trajectory's at the chosen step.

    Args:
        table: arm, seed, step, along, across, at one layer, without roles.
        chosen: arm and seed whose steps are all drawn.
        step: the step at which the others are drawn, and which stands out.
        subtitle: run, layer and direction.
        witness: the witness's label.
        cone: the hardest null of the chosen trajectory at that step.
        whole: `across` is the length of all that lies off the axis, so that angles are true; else its part along
            the main off-axis direction, where an arrow looks nearer to the axis than it is.
        ink: light or dark page.
    """
    fig = style.figure("Mean displacement", subtitle, ink, height=HEIGHT, caption=_caption(cone, whole))
    colours = style.INKS[ink]
    own = (table["arm"] == chosen[0]) & (table["seed"] == chosen[1])
    drawn = pd.concat([table[own], table[~own & (table["step"] == step)]]).sort_values("step")
    far = far_in_plane(drawn, ("along", "across"), keep=chosen[:1])
    limits = plane_limits(drawn[~drawn["arm"].isin(far)], whole=whole, aspect=_ASPECT)
    notes = edges = _draw_cone(fig, cone, limits, whole, ink) if cone is not None else []
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    fig.add_vline(x=0, line={"color": colours.rule, "width": 1}, layer="below")
    notes = notes + _draw_arrows(fig, drawn, chosen, step, far) + _draw_roles(fig, witness, ink)
    ends = drawn[drawn["step"] == step]
    notes += _leaving(ends[ends["arm"].isin(far)], limits, ink)
    fig.add_annotations(notes + _names(ends[~ends["arm"].isin(far)], drawn, edges, witness, limits, ink))
    make_room_above(fig)
    fig.update_xaxes(title={"text": ALONG}, range=list(limits[0]), nticks=8)
    fig.update_yaxes(title={"text": _WHOLE if whole else MAIN}, range=list(limits[1]), nticks=8)
    one_scale(fig)
    fig.update_layout(margin={"r": _RIGHT})
    return fig.figure()


def _caption(cone: Cone | None, whole: bool) -> str:
    upwards = (
        "Upwards: the length of all that lies at right angles to the way back, so that the angle is the alignment's."
        if whole
        else "Upwards: the direction in which all trajectories leave the axis most; what else they leave it by is "
        "not seen, so an arrow may look nearer to the axis than it is."
    )
    grey = f" Grey: angles up to the hardest null's limit ({cone.limit_label})." if cone is not None else ""
    return f"{_CAPTION} {upwards}{grey}"


def _draw_arrows(
    fig: Sheet, drawn: pd.DataFrame, chosen: tuple[str, int], step: int, far: set[str]
) -> list[dict[str, Any]]:
    """Every checkpoint's tip, and its arrow as an annotation; that of the chosen trajectory at the step stands out.

    The arrow of an arm far away is a line, which ends with the plot where an annotation would go on.
    """
    arrows, tips = [], []
    for (arm, seed), path in drawn.groupby(["arm", "seed"], sort=False):
        mark = style.mark_of(str(arm))
        strong = [step == own for own in path["step"]]
        for along, across, stands_out in zip(path["along"], path["across"], strong, strict=True):
            if arm in far:
                tips.append(_line(along, across, mark))
                continue
            width = 2.6 if stands_out and (arm, seed) == chosen else 1.4
            arrows += _arrow(along, across, mark.colour, width, 1.0 if stands_out else 0.45)
        tips.append(
            {
                "type": "scatter",
                "name": f"{arm} s{seed}",
                "x": path["along"],
                "y": path["across"],
                "mode": "markers",
                "marker": {
                    "color": mark.colour,
                    "symbol": mark.symbol,
                    "size": [8 if selected else 4 for selected in strong],
                    "opacity": 0.9,
                },
                "customdata": [f"{own:,}" for own in path["step"]],
                "hovertemplate": f"<b>{style.plain(arm)}</b>, seed {seed}, step %{{customdata}}<br>"
                "along %{x:.3f}, off it %{y:.3f}<extra></extra>",
            }
        )
    fig.add_traces(tips)
    return arrows


def _line(along: float, across: float, mark: style.Mark) -> dict[str, Any]:
    """From the origin to beyond the plot."""
    line = {"color": mark.colour, "width": 1.4}
    return {"type": "scatter", "x": [0, along], "y": [0, across], "mode": "lines", "hoverinfo": "skip", "line": line}


def _leaving(ends: pd.DataFrame, limits: tuple[Limits, Limits], ink: InkName) -> list[dict[str, Any]]:
    """Where the arrows of arms far away leave the plot; seeds of one arm share a name."""
    names = far_names(ends)
    return [
        note
        for row in ends.itertuples()
        for note in leave(
            [(0.0, 0.0), (row.along, row.across)],
            *limits,
            names[row.arm, row.seed],
            row.arm,
            ink,
            one_scale=True,
        )
    ]


def _draw_roles(fig: Sheet, witness: str, ink: InkName) -> list[dict[str, Any]]:
    """Aligned and witness, and their names as annotations."""
    colours, names = style.INKS[ink], []
    for role, along, name in (("witness", 1.0, witness), ("aligned", 0.0, "aligned")):
        mark = style.mark_of(role)
        fig.add(
            "scatter",
            name=role,
            x=[along],
            y=[0],
            mode="markers",
            marker={
                "color": mark.colour,
                "symbol": mark.symbol,
                "size": 15,
                "line": style.edge(mark, ink),
            },
            hovertemplate=f"<b>{role}</b><extra></extra>",
        )
        names.append(
            {
                "name": "role",
                "x": along,
                "y": 0,
                "yshift": _BELOW,
                "showarrow": False,
                "text": style.plain(name),
                "font": {"size": 13, "color": style.legible(mark.colour, colours)},
            }
        )
    return names


def _names(
    ends: pd.DataFrame,
    drawn: pd.DataFrame,
    edges: list[dict[str, Any]],
    witness: str,
    limits: tuple[Limits, Limits],
    ink: InkName,
) -> list[dict[str, Any]]:
    """Each arm's name once, beside the furthest of its arrows at the step and off the cone's name."""

    def boxes(scale: labels.Scale) -> list[labels.Boxes]:
        return [
            labels.marks([*zip(drawn["along"], drawn["across"], strict=True), (0.0, 0.0), (1.0, 0.0)], scale),
            *(labels.line([0.0, row.along], [0.0, row.across], scale) for row in ends.itertuples()),
            *(labels.name_of_mark(x, 0.0, name, _BELOW, scale) for x, name in ((0.0, "aligned"), (1.0, witness))),
            *(labels.ending_at(edge["x"], edge["y"], edge["text"], scale) for edge in edges),
            labels.left_of(limits[0][0], scale),
            labels.right_of(limits[0][1], scale, _RIGHT),
            labels.above_and_below(limits[1], scale),
        ]

    furthest = ends.sort_values("along").groupby("arm").last()
    spots = [
        labels.Spot(
            float(furthest.loc[arm, "along"]),
            float(furthest.loc[arm, "across"]),
            style.plain(arm),
            style.legible(style.mark_of(arm).colour, style.INKS[ink]),
        )
        for arm in style.in_order(furthest.index)
    ]
    names = labels.beside(spots, boxes, labels.pixels_a_unit(*limits, HEIGHT - 148))
    return labels.over(names, style.INKS[ink].background)


def _draw_cone(
    fig: Sheet, cone: Cone, limits: tuple[Limits, Limits], whole: bool, ink: InkName
) -> list[dict[str, Any]]:
    """The cone, and what it is called as an annotation."""
    far = 4 * max(abs(end) for side in limits for end in side)
    colours = style.INKS[ink]
    for side in (1,) if whole else (1, -1):
        turns = np.linspace(cone.angle, max(cone.angle, math.pi / 2), 16)
        fig.add(
            "scatter",
            name="cone",
            x=[0, *(far * np.cos(turns))],
            y=[0, *(side * far * np.sin(turns))],
            mode="none",
            fill="toself",
            fillcolor=colours.band,
            hoverinfo="skip",
        )
        fig.add(
            "scatter",
            name="edge",
            x=[0, far * math.cos(cone.angle)],
            y=[0, side * far * math.sin(cone.angle)],
            mode="lines",
            line={"color": style.fade(colours.muted, 0.8), "width": 1, "dash": "2px,2px"},
            hoverinfo="skip",
        )
    (_, right), (_, top) = limits
    below = top - _LINE / labels.pixels_a_unit(*limits, HEIGHT - 148)[0][1]
    reach = min(0.93 * right / max(math.cos(cone.angle), 1e-6), below / max(math.sin(cone.angle), 1e-6))
    return [
        {
            "name": "cone",
            "x": reach * math.cos(cone.angle),
            "y": reach * math.sin(cone.angle),
            "showarrow": False,
            "text": f"{style.plain(null_name(cone.null))} ({cone.limit_label}): {math.degrees(cone.angle):.0f}°",
            "xanchor": "right",
            "yanchor": "bottom",
            "font": {"size": 12, "color": colours.muted},
            "bgcolor": colours.background,
            "borderpad": 1,
        }
    ]


def _arrow(x: float, y: float, colour: str, width: float, opacity: float) -> list[dict[str, Any]]:
    """From the origin; none where nothing has moved."""
    if math.hypot(x, y) == 0:
        return []
    return [
        {
            "name": "arrow",
            "x": x,
            "y": y,
            "ax": 0,
            "ay": 0,
            "xref": "x",
            "yref": "y",
            "axref": "x",
            "ayref": "y",
            "text": "",
            "showarrow": True,
            "arrowhead": 2,
            "arrowsize": 1,
            "arrowwidth": width,
            "arrowcolor": style.fade(colour, opacity),
        }
    ]
