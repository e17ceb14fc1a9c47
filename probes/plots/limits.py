"""Limits of axes that no single arm far away decides, and how such an arm leaves through the edge.

An arm is far away where it alone would make the axis more than twice as long as it is with all arms nearer than it,
whatever always stands in the picture (aligned at 0, witness at 1) included. The baseline is never called far away, nor
are half of the arms or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from probes.lineage import ROLES
from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

Limits = tuple[float, float]
_LONGER = 2.0  # times, from which on an arm is far away
_ARROW, _ABOVE = 24, 14  # pixels: of an arrow, and of more room for a name above the plot
_BROADER = 2.2  # a plot is about so much wider than high
_NAME = 0.065  # of the width: on a narrow page, room for a mark and its name below it
_BASELINE = "baseline"
_BROAD = 0.5  # of ‖v‖: an arm less far off the axis than twice this is not far away


def far_arms(values: Mapping[str, Iterable[float]], always: Sequence[float], keep: Iterable[str] = ()) -> set[str]:
    """The arms that would decide an axis alone.

    Args:
        values: of each arm, along the axis.
        always: what the axis shows whatever the arms do.
        keep: arms that are looked at and always decide.
    """
    spans = {arm: _span([*always, *own]) for arm, own in values.items()}
    deciding = {_BASELINE, *keep} & set(spans)
    low, high = _span([*always, *(end for arm in deciding for end in spans[arm])])
    far: list[str] = []
    for arm in sorted(set(spans) - deciding, key=lambda arm: spans[arm][1] - spans[arm][0]):
        wide = (min(low, spans[arm][0]), max(high, spans[arm][1]))
        if high > low and wide[1] - wide[0] > _LONGER * (high - low):
            far.append(arm)
        else:
            low, high = wide
    return set(far) if 2 * len(far) < len(spans) else set()


def _span(values: Iterable[float]) -> Limits:
    known = [value for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 0.0)


def far_in_plane(table: pd.DataFrame, columns: Sequence[str], keep: Iterable[str] = ()) -> set[str]:
    """The arms far away along any of these columns, whose first is the way back and holds 0 and 1; never a role."""
    far, table = set[str](), table[~table["arm"].isin(ROLES)]
    for place, column in enumerate(columns):
        values = {str(arm): list(own) for arm, own in table.groupby("arm")[column]}
        near = {arm: own for arm, own in values.items() if arm not in far}
        far |= far_arms(near, [0.0, 1.0] if place == 0 else [0.0, _BROAD], keep)
    return far


def plane_limits(near: pd.DataFrame, *, whole: bool, aspect: float) -> tuple[Limits, Limits]:
    """Limits of a plane whose axes have one scale, which hold the aligned model, the witness and all that is near.

    Args:
        near: along, across of what is to be seen whole.
        whole: `across` is a length, and the axis begins just below 0.
        aspect: width of the plot over its height, on a wide page: what it leaves over goes to one of the axes.
    """
    along, across = [0.0, 1.0, *near["along"].dropna()], [0.0, *near["across"].dropna()]
    beside = 0.16 * (max(along) - min(along))
    wide = (min(along) - beside, max(along) + beside)
    above = max(0.1 * (max(across) - min(across)), _NAME * (wide[1] - wide[0]))
    high = (-above if whole else min(across) - above, max(across) + above)
    short = (wide[1] - wide[0]) - aspect * (high[1] - high[0])
    if short < 0:
        return (wide[0] + 0.35 * short, wide[1] - 0.65 * short), high
    below = 0.0 if whole else 0.5 * short / aspect
    return wide, (high[0] - below, high[1] + short / aspect - below)


def one_scale(fig: Sheet) -> None:
    """Draw both axes to one scale, whatever the page: the plot becomes smaller, and its limits stay what they are."""
    fig.update_xaxes(constrain="domain", constraintoward="left")
    fig.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="bottom")


def height_by_width(fig: Sheet) -> tuple[float, float] | None:
    """How the height of a plane of one scale follows from its width: (pixels beside the plot, width of it over height).

    Or of panels with such planes. Drawn narrower than its axes are long, it would leave blank room above or below them.
    None: the figure has another scale on each axis.
    """
    x, y = (fig.layout.get(axis, {}) for axis in ("xaxis", "yaxis"))
    if (x.get("constrain"), y.get("constrain"), y.get("scaleanchor")) != ("domain", "domain", "x"):
        return None
    margin = {"l": 64, "r": 24, "t": style.TOP, "b": 64} | fig.layout.get("margin", {})
    spans = [(part["range"][1] - part["range"][0]) / np.ptp(part.get("domain", (0.0, 1.0))) for part in (x, y)]
    aspect = float(spans[0] / spans[1])
    return margin["t"] + margin["b"] - (margin["l"] + margin["r"]) / aspect, aspect


def height_at(fig: Sheet, width: int) -> int:
    """The height of a figure that is drawn at a width, in pixels: its own, or less where a plane fills less."""
    beside = height_by_width(fig)
    return fig.height if beside is None else min(fig.height, round(beside[0] + width / beside[1]))


def far_names(ends: pd.DataFrame) -> dict[tuple[str, int], str]:
    """What stands where a trajectory leaves: its arm and how far it went; of several seeds, at the first one alone.

    Args:
        ends: arm, seed, along of the last checkpoint of each trajectory.
    """
    names: dict[tuple[str, int], str] = {}
    for arm, own in ends.groupby("arm"):
        numbers = list(dict.fromkeys(style.decimal(along) for along in (own["along"].min(), own["along"].max())))
        text = f"{style.plain(str(arm))}, {' to '.join(numbers)} of the way"
        names |= {(str(arm), int(seed)): text if seed == own["seed"].min() else "" for seed in own["seed"]}
    return names


def leave(
    path: Sequence[tuple[float, float]],
    wide: Limits,
    high: Limits,
    text: str,
    arm: str,
    ink: InkName,
    *,
    outside: bool = False,
    one_scale: bool = False,
) -> list[dict[str, Any]]:
    """An arrow where a path leaves the plot for the last time, and its number beside it; none where it stays inside.

    Args:
        path: its points, in order.
        wide: limits of the x axis.
        high: limits of the y axis.
        text: its name and number; empty for an arrow alone.
        arm: for its colour.
        ink: light or dark page.
        outside: the name stands right of the plot, where there is room for it.
        one_scale: both axes have the same, so that the arrow goes on as its path does; else about as it does.
    """
    crossing = _crossing(path, wide, high)
    if crossing is None:
        return []
    broader = (wide[1] - wide[0]) / (high[1] - high[0]) if one_scale else _BROADER
    (x, y), (right, up) = crossing[0], (crossing[1][0] * broader, crossing[1][1])
    mark, colours = style.mark_of(arm), style.INKS[ink]
    length = math.hypot(right, up) or 1.0
    place: dict[str, Any] = {"x": x, "y": y, "xref": "x", "yref": "y"}
    arrow = {
        **place,
        "name": "leaves",
        "text": "",
        "showarrow": True,
        "arrowhead": 2,
        "arrowwidth": 2.2,
        "arrowcolor": mark.colour,
        "ax": -_ARROW * right / length,
        "ay": _ARROW * up / length,
    }
    if not text:
        return [arrow]
    beside = -10 if x > wide[0] + 0.3 * (wide[1] - wide[0]) else 10
    name = {
        **place,
        "name": "far",
        "text": text,
        "showarrow": False,
        "xanchor": "right" if beside < 0 else "left",
        "xshift": beside,
        "yanchor": "bottom" if up * right * beside <= 0 else "top",
        "yshift": 3 if up * right * beside <= 0 else -3,
        "font": {"size": 13, "color": style.legible(mark.colour, colours)},
    }
    if outside:
        name |= {"xanchor": "left", "xshift": 8, "yanchor": "middle", "yshift": 0}
    return [arrow, name]


def make_room_above(fig: Sheet) -> None:
    """Lengthen a figure where the name of what leaves its plot stands above it, or it would touch the subtitle."""
    if any(note.get("name") == "far" and note["yanchor"] == "bottom" for note in fig.annotations):
        margin = fig.layout["margin"].get("t", style.TOP)
        fig.update_layout(height=fig.height + _ABOVE, margin={"t": margin + _ABOVE})


def _crossing(
    path: Sequence[tuple[float, float]], wide: Limits, high: Limits
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Where a path crosses the edge outwards, and which way, as shares of the axes."""
    sides = (wide[1] - wide[0], high[1] - high[0])
    for start, end in reversed(list(pairwise(path))):
        if not _inside(start, wide, high) or _inside(end, wide, high):
            continue
        way = (end[0] - start[0], end[1] - start[1])
        share = min(
            (limit - at) / by
            for at, by, (low, top) in zip(start, way, (wide, high), strict=True)
            if by
            for limit in ((top if by > 0 else low),)
        )
        share = min(max(share, 0.0), 1.0)
        return (start[0] + share * way[0], start[1] + share * way[1]), (way[0] / sides[0], way[1] / sides[1])
    return None


def _inside(point: tuple[float, float], wide: Limits, high: Limits) -> bool:
    return wide[0] <= point[0] <= wide[1] and high[0] <= point[1] <= high[1]
