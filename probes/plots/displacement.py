"""Displacements as arrows: means in the plane of v_rev with the nulls' cone, prompt by prompt, and layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.plots import labels, style
from probes.plots.style import InkName
from probes.statistics import null_name

_HEIGHT = 560
_ALONG, _MAIN = "along the way back (return fraction)", "main off-axis direction (units of ‖v‖)"
_WHOLE = "off-axis length (units of ‖v‖)"
_PANELS, _COLUMNS = 12, 4
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
    fig = style.figure("Mean displacement", subtitle, ink, height=_HEIGHT, caption=_caption(cone, whole))
    colours = style.INKS[ink]
    own = (table["arm"] == chosen[0]) & (table["seed"] == chosen[1])
    drawn = pd.concat([table[own], table[~own & (table["step"] == step)]]).sort_values("step")
    limits = _limits(drawn, lowest=-0.08 if whole else None)
    notes = _draw_cone(fig, cone, limits, whole, ink) if cone is not None else []
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    fig.add_vline(x=0, line={"color": colours.rule, "width": 1}, layer="below")
    notes += _draw_arrows(fig, drawn, chosen, step) + _draw_roles(fig, witness, ink)
    labels.annotate(fig, notes + _names(drawn[drawn["step"] == step], drawn, witness, limits, ink))
    fig.update_xaxes(title={"text": _ALONG}, range=list(limits[0]), nticks=8)
    fig.update_yaxes(
        title={"text": _WHOLE if whole else _MAIN}, range=list(limits[1]), nticks=8, scaleanchor="x", constrain="range"
    )
    fig.update_layout(margin={"r": 110})
    return fig


def _caption(cone: Cone | None, whole: bool) -> str:
    upwards = (
        "Upwards: the length of all that lies at right angles to the way back, so that the angle is the alignment's."
        if whole
        else "Upwards: the direction in which all trajectories leave the axis most; what else they leave it by is "
        "not seen, so an arrow may look nearer to the axis than it is."
    )
    grey = " Grey: angles that the hardest null reaches in 99 of 100 draws." if cone is not None else ""
    return f"{_CAPTION} {upwards}{grey}"


def _draw_arrows(fig: go.Figure, drawn: pd.DataFrame, chosen: tuple[str, int], step: int) -> list[dict[str, Any]]:
    """Every checkpoint's tip, and its arrow as an annotation; that of the chosen trajectory at the step stands out."""
    arrows, tips = [], []
    for (arm, seed), path in drawn.groupby(["arm", "seed"], sort=False):
        mark = style.mark_of(str(arm))
        strong = [step == own for own in path["step"]]
        for along, across, stands_out in zip(path["along"], path["across"], strong, strict=True):
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


def _draw_roles(fig: go.Figure, witness: str, ink: InkName) -> list[dict[str, Any]]:
    """Aligned and witness, and their names as annotations."""
    colours, names = style.INKS[ink], []
    for role, along, name in (("witness", 1.0, witness), ("aligned", 0.0, "aligned")):
        mark = style.mark_of(role)
        fig.add_scatter(
            name=role,
            x=[along],
            y=[0],
            mode="markers",
            marker={
                "color": mark.colour,
                "symbol": mark.symbol,
                "size": 15,
                "line": {"width": 2, "color": colours.background},
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
    witness: str,
    limits: tuple[tuple[float, float], tuple[float, float]],
    ink: InkName,
) -> list[dict[str, Any]]:
    """Each arm's name once, beside the furthest of its arrows at the step."""

    def boxes(scale: float) -> list[labels.Boxes]:
        return [
            labels.marks([*zip(drawn["along"], drawn["across"], strict=True), (0.0, 0.0), (1.0, 0.0)], scale),
            *(labels.line([0.0, row.along], [0.0, row.across], scale) for row in ends.itertuples()),
            *(labels.name_of_mark(x, 0.0, name, _BELOW, scale) for x, name in ((0.0, "aligned"), (1.0, witness))),
            labels.left_of(limits[0][0], scale),
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
    return labels.beside(spots, boxes, labels.pixels_a_unit(*limits, _HEIGHT - 148))


def _limits(table: pd.DataFrame, lowest: float | None) -> tuple[tuple[float, float], tuple[float, float]]:
    along, across = [0.0, 1.0, *table["along"]], [0.0, *table["across"]]
    wide, high = 0.16 * (max(along) - min(along)), 0.1 * ((max(across) - min(across)) or 1.0)
    return (min(along) - wide, max(along) + wide), (
        min(across) - max(high, 0.12) if lowest is None else min(lowest, -high),
        max(across) + high,
    )


def _draw_cone(
    fig: go.Figure, cone: Cone, limits: tuple[tuple[float, float], tuple[float, float]], whole: bool, ink: InkName
) -> list[dict[str, Any]]:
    """The cone, and what it is called as an annotation."""
    far = 4 * max(abs(end) for side in limits for end in side)
    colours = style.INKS[ink]
    for side in (1,) if whole else (1, -1):
        turns = np.linspace(cone.angle, max(cone.angle, math.pi / 2), 16)
        fig.add_scatter(
            name="cone",
            x=[0, *(far * np.cos(turns))],
            y=[0, *(side * far * np.sin(turns))],
            mode="none",
            fill="toself",
            fillcolor=colours.band,
            hoverinfo="skip",
        )
        fig.add_scatter(
            name="edge",
            x=[0, far * math.cos(cone.angle)],
            y=[0, side * far * math.sin(cone.angle)],
            mode="lines",
            line={"color": style.fade(colours.muted, 0.8), "width": 1, "dash": "2px,2px"},
            hoverinfo="skip",
        )
    (_, right), (_, top) = limits
    reach = 0.93 * min(right / max(math.cos(cone.angle), 1e-6), top / max(math.sin(cone.angle), 1e-6))
    return [
        {
            "name": "cone",
            "x": reach * math.cos(cone.angle),
            "y": reach * math.sin(cone.angle),
            "showarrow": False,
            "text": f"{style.plain(null_name(cone.null))} {cone.limit_label}, {math.degrees(cone.angle):.0f}°",
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


def prompt_arrows(
    before: pd.DataFrame, after: pd.DataFrame, *, arm: str, subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw how each prompt's activation moved in the plane, from the aligned model to a checkpoint.

    Args:
        before: prompt, label, projection, across, text in the aligned model.
        after: the same in the checkpoint.
        arm: its arm, for the colour.
        subtitle: run, layer, checkpoint.
        ink: light or dark page.
    """
    caption = (
        "Each arrow: one probe prompt, from where it lies in the aligned model to where it lies in the checkpoint. "
        "Filled ends: harmful prompts; open: harmless ones. The cross: the witness's mean over harmful prompts."
    )
    fig = style.figure("Each prompt's way in the plane", subtitle, ink, height=_HEIGHT, caption=caption)
    joined = before.merge(after[["prompt", "projection", "across"]], on="prompt", suffixes=("", "_after"))
    mark, colours = style.mark_of(arm), style.INKS[ink]
    for label, opacity in (("harmless", 0.35), ("harmful", 0.8)):
        own = joined[joined["label"] == label]
        gap = np.full(len(own), np.nan)
        x = np.column_stack([own["projection"], own["projection_after"], gap]).ravel()
        y = np.column_stack([own["across"], own["across_after"], gap]).ravel()
        colour = mark.colour if label == "harmful" else colours.muted
        kind = style.flat_points(len(joined))
        ways = {
            "type": kind,
            "name": f"way {label}",
            "x": x,
            "y": y,
            "mode": "lines",
            "hoverinfo": "skip",
            "line": {"color": style.fade(colour, 0.5 * opacity) if colour.startswith("#") else colour, "width": 1},
        }
        ends = {
            "type": kind,
            "name": label,
            "x": own["projection_after"],
            "y": own["across_after"],
            "mode": "markers",
            "marker": {
                "color": colour,
                "size": 6,
                "symbol": "circle" if label == "harmful" else "circle-open",
                "opacity": 0.9,
                "line": {"width": 1, "color": colour},
            },
            "hovertext": [style.plain(str(text)[:80]) for text in own["text"]],
            "hovertemplate": f"{label}: along %{{x:.2f}}, across %{{y:.2f}}<br>%{{hovertext}}<extra></extra>",
        }
        fig.add_traces([ways, ends])
    fig.add_hline(y=0, line={"color": colours.rule, "width": 1}, layer="below")
    for place, role in ((0.0, "aligned"), (1.0, "witness")):
        fig.add_scatter(
            name=role,
            x=[place],
            y=[0],
            mode="markers",
            hovertemplate=f"{role}'s mean<extra></extra>",
            marker={"color": style.mark_of(role).colour, "symbol": "cross-thin-open", "size": 16, "line": {"width": 3}},
        )
    fig.update_xaxes(title={"text": _ALONG}, nticks=8)
    fig.update_yaxes(title={"text": _MAIN}, nticks=8)
    return fig


def multiples(
    table: pd.DataFrame, *, step: int, layers: Sequence[int], subtitle: str, headline: int, ink: InkName = "light"
) -> go.Figure:
    """Draw every trajectory's arrow at one step, one small picture a layer, all to one scale.

    Args:
        table: arm, seed, step, layer, along, across, without roles.
        step: the step.
        layers: which; of more than twelve, use `evenly`.
        subtitle: run and step.
        headline: the layer declared in advance.
        ink: light or dark page.
    """
    table = table[table["step"] == step]
    rows = -(-len(layers) // _COLUMNS)
    height = 150 + 190 * rows
    caption = "Axes as above, to one scale: along the way back to the right, off it upwards; witness ◆ at (1, 0)."
    fig = style.figure(
        "Mean displacement at each layer", subtitle, ink, height=height, caption=caption, below=40, left=30
    )
    fig.update_layout(margin={"t": 104})
    grid = make_subplots(
        rows,
        _COLUMNS,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.16 / rows,
        subplot_titles=[f"layer {layer}" + (" ★" if layer == headline else "") for layer in layers],
    )
    colours = style.INKS[ink]
    traces = [_panel(table[table["layer"] == layer], layer) for layer in layers]
    places = [divmod(place, _COLUMNS) for place, panel in enumerate(traces) for _ in panel]
    grid.add_traces(
        [trace for panel in traces for trace in panel],
        rows=[row + 1 for row, _ in places],
        cols=[column + 1 for _, column in places],
    )
    base = fig.layout
    wide, high = _limits(table, lowest=None)
    grid.update_xaxes(range=list(wide), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    grid.update_yaxes(range=list(high), nticks=4, zeroline=True, zerolinecolor=colours.rule)
    grid.update_annotations(font={"size": 12, "color": colours.muted})
    titles = list(grid.layout.annotations)
    grid.update_layout(
        template=base.template,
        title=base.title,
        height=base.height,
        margin=base.margin,
        uirevision="keep",
        annotations=[*titles, *base.annotations],
    )
    return grid


def _panel(table: pd.DataFrame, layer: int) -> list[dict[str, Any]]:
    """What is drawn at one layer: the roles, and every trajectory's way from the aligned model."""
    roles = {
        "type": "scatter",
        "x": [0, 1],
        "y": [0, 0],
        "mode": "markers",
        "hoverinfo": "skip",
        "marker": {
            "color": [style.mark_of(role).colour for role in ("aligned", "witness")],
            "symbol": ["circle", "diamond"],
            "size": 7,
        },
    }
    ways = [
        {
            "type": "scatter",
            "x": [0, row.along],
            "y": [0, row.across],
            "mode": "lines+markers",
            "line": {"color": mark.colour, "width": 2, "dash": mark.dash},
            "marker": {"color": mark.colour, "symbol": mark.symbol, "size": [0, 7]},
            "hovertemplate": f"{style.plain(row.arm)}, seed {row.seed}, layer {layer}<br>"
            "along %{x:.2f}, off it %{y:.2f}<extra></extra>",
        }
        for row in table.itertuples()
        for mark in [style.mark_of(row.arm)]
    ]
    return [roles, *ways]


def evenly(layers: Sequence[int], *keep: int) -> list[int]:
    """At most twelve of the layers, evenly apart, with those to be kept among them."""
    if len(layers) <= _PANELS:
        return list(layers)
    places = {layers[round(index)] for index in np.linspace(0, len(layers) - 1, _PANELS - len(keep))}
    return sorted(places | {layer for layer in keep if layer in layers})
