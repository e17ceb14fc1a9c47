"""Names in a figure: beside the lines and marks that they belong to, and never on top of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from probes.plots.sheet import Sheet
from probes.plots.style import fade

Boxes = Float[np.ndarray, "_ 4"]  # left, low, right, high of what is taken: pixels from the axes' origin, y upwards
Box = Float[np.ndarray, "1 4"]

_WIDE, _TALL, _OFF = 6.8, 17.0, 18.0  # pixels: of a letter, of a line, between a mark and its name
_WIDTHS = (400, 940)  # pixels of a plot on a narrow page and on a wide one
_FAR = 1e6
_STITCHES = 30  # boxes that stand for a straight piece of a line
_LIFTS = (
    0,
    *(side * lines for lines in range(1, 8) for side in (1, -1)),
)  # lines up from the mark, in the order in which they are tried
_THIN = 3.0  # pixels that a line is taken to be thick
_STITCH = 5.0  # pixels of a leader that one box stands for
_NAMES_CROSSED = 10.0  # times a line
_LONG_LEADER = 170.0  # pixels, which weigh like a hundred that lie on lines
_VEIL = 0.72  # opacity
LINE = 16.0  # pixels from one name at the right edge to the next
_LEADER = 6.0  # pixels that a name may stand from its line's height without a leader
Scale = tuple[float, float]  # pixels a unit, of both axes


@dataclass(frozen=True)
class EndLabel:
    """A name at the right end of a line; `x` is where the line ends, where that may be far from the plot's edge."""

    y: float
    text: str
    colour: str
    size: int = 13
    x: float | None = None


def label_ends(
    fig: Sheet,
    labels: Sequence[EndLabel],
    limits: tuple[float, float],
    plot_height: int,
    across: tuple[float, float] | None = None,
) -> None:
    """Write names at the right edge of the plot, moved apart so that none covers another.

    Args:
        fig: the figure.
        labels: the names.
        limits: of the y axis.
        plot_height: pixels.
        across: limits of the x axis; with them a name far from its line's end gets a leader.
    """
    if not labels:
        return
    low, high = limits
    ordered = sorted(labels, key=lambda label: label.y)
    unit = (high - low) / plot_height  # data units a pixel
    places = spread([label.y for label in ordered], LINE * unit, low, high)
    if across is not None:
        named = zip(ordered, places, strict=True)
        fig.add_traces([leader for label, place in named for leader in _leader(label, place, across, unit)])
    notes = [
        {
            "name": "end-label",
            "text": label.text,
            "x": 1,
            "xref": "paper",
            "xshift": 8,
            "y": place,
            "yref": "y",
            "xanchor": "left",
            "yanchor": "middle",
            "showarrow": False,
            "font": {"size": label.size, "color": label.colour},
        }
        for label, place in zip(ordered, places, strict=True)
    ]
    fig.add_annotations(notes)


def _leader(label: EndLabel, place: float, across: tuple[float, float], unit: float) -> list[dict[str, Any]]:
    """A thin line from the line's end to its name; none where the name stands at it."""
    edge, span = across[1], across[1] - across[0]
    start = edge - 0.03 * span if label.x is None else label.x
    is_near = abs(place - label.y) <= _LEADER * unit and edge - start <= 0.06 * span
    if is_near or not across[0] <= start <= edge:
        return []
    return [
        {
            "type": "scatter",
            "name": "leader",
            "x": [start, edge - 0.01 * span, edge],
            "y": [label.y, place, place],
            "mode": "lines",
            "hoverinfo": "skip",
            "showlegend": False,
            "line": {"color": label.colour, "width": 0.8, "dash": "1px,2px"},
        }
    ]


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Rising places moved as little as needed to lie at least `gap` apart, inside [low, high] where they fit."""
    out: list[float] = []
    for place in places:
        place = min(max(place, low), high)
        out.append(place if not out else max(place, out[-1] + gap))
    overshoot = out[-1] - high if out else 0.0
    if overshoot > 0:
        ceiling = high
        for index in range(len(out) - 1, -1, -1):
            out[index] = min(out[index], ceiling)
            ceiling = out[index] - gap
    return out


@dataclass(frozen=True)
class Spot:
    """A mark that gets a name, in the axes' units."""

    x: float
    y: float
    text: str
    colour: str


def pixels_a_unit(wide: tuple[float, float], high: tuple[float, float], height: int) -> list[Scale]:
    """About how large a unit is drawn on a narrow page and on a wide one, where both axes have one scale."""
    sizes = [min(across, along) for across, along in pixels_apart(wide, high, height)]
    return [(size, size) for size in sizes]


def pixels_apart(wide: tuple[float, float], high: tuple[float, float], height: int) -> list[Scale]:
    """The same where each axis has a scale of its own."""
    return [(width / (wide[1] - wide[0]), height / (high[1] - high[0])) for width in _WIDTHS]


def marks(places: Iterable[tuple[float, float]], scale: Scale, size: float = 14.0) -> Boxes:
    """What marks at these places take.

    Args:
        places: in the axes' units.
        scale: pixels a unit, of both axes.
        size: of a mark, pixels.
    """
    spots = np.array(list(places), dtype=float).reshape(-1, 2)
    spots = spots[np.isfinite(spots).all(axis=1)] * np.array(scale)
    return np.hstack([spots - size / 2, spots + size / 2])


def line(x: Sequence[float], y: Sequence[float], scale: Scale) -> Boxes:
    """What a line through these places takes."""
    far = np.arange(len(x), dtype=float)
    between = np.linspace(0.0, len(x) - 1, _STITCHES * max(len(x) - 1, 1))
    return marks(zip(np.interp(between, far, x), np.interp(between, far, y), strict=True), scale, size=_THIN)


def left_of(x: float, scale: Scale) -> Box:
    """All that lies left of the plot: the axis and its numbers."""
    return np.array([[-_FAR, -_FAR, x * scale[0], _FAR]])


def right_of(x: float, scale: Scale, room: float) -> Box:
    """All that lies further right of the plot than so many pixels."""
    return np.array([[x * scale[0] + room, -_FAR, _FAR, _FAR]])


def above_and_below(high: tuple[float, float], scale: Scale) -> Boxes:
    """All that lies above the plot, its heading and the names of what leaves it, and below it: the axis's numbers."""
    low, top = (y * scale[1] for y in high)
    return np.array([[-_FAR, top, _FAR, _FAR], [-_FAR, -_FAR, _FAR, low]])


def name_of_mark(x: float, y: float, text: str, lift: float, scale: Scale) -> Box:
    """What a name centred above or below a mark takes; `lift` is its distance from the mark, pixels."""
    return _box(x * scale[0], y * scale[1] + lift, _WIDE * len(text))


def free_lift(
    spot: Spot, lifts: Sequence[float], boxes: Callable[[Scale], Sequence[Boxes]], scales: Sequence[Scale]
) -> float:
    """How far from its mark a name is centred above or below it: of the distances the one at which it covers least."""
    full = [(scale, np.concatenate(list(boxes(scale)))) for scale in scales]

    def weight(lift: float) -> float:
        return sum(_weight_on(own, name_of_mark(spot.x, spot.y, spot.text, lift, scale)) for scale, own in full)

    return min(lifts, key=weight)


def ending_at(x: float, y: float, text: str, scale: Scale) -> Box:
    """What a line of type takes whose lower right corner is at a place."""
    width = _WIDE * len(text)
    return _box(x * scale[0] - width / 2, y * scale[1] + _TALL / 2, width)


def beside(
    spots: Sequence[Spot], boxes: Callable[[Scale], Sequence[Boxes]], scales: Sequence[Scale]
) -> list[dict[str, Any]]:
    """Annotations that name marks, each beside its mark where it covers nothing; right of it where nothing is free.

    A name that stands lines away from its mark has a leader, which crosses as little as can be, names least of all.

    Args:
        spots: what is named, in this order.
        boxes: what else is drawn, at so many pixels a unit.
        scales: at each of which a name must be free: a figure is drawn as wide as its page.
    """
    full = {scale: np.concatenate([np.zeros((0, 4)), *boxes(scale)]) for scale in scales}
    written = {scale: np.zeros((0, 4)) for scale in scales}  # names and leaders
    notes = []
    for spot in spots:
        side, lift = _place_of(spot, full, written)
        for scale in scales:
            own = np.concatenate([_name(spot, side, lift, scale), _leader_beside(spot, side, lift, scale)])
            full[scale] = np.concatenate([full[scale], own])
            written[scale] = np.concatenate([written[scale], own])
        notes.append(_note_for(spot, side, lift))
    return notes


def over(names: Iterable[dict[str, Any]], background: str) -> list[dict[str, Any]]:
    """The names on a veil of the page's `#rrggbb` colour, to be read where they lie on something."""
    return [name | {"bgcolor": fade(background, _VEIL)} for name in names]


def _place_of(spot: Spot, full: Mapping[Scale, Boxes], written: Mapping[Scale, Boxes]) -> tuple[int, float]:
    """Side and lines up of a name: where it covers nothing, or else least, with the leader that crosses least."""
    tries = [(side, lines * _TALL) for lines in _LIFTS for side in (1, -1)]
    names = {scale: np.concatenate([_name(spot, *place, scale) for place in tries]) for scale in full}
    are_covered = np.any([_meet(names[scale], boxes) for scale, boxes in full.items()], axis=0)
    free = [place for place, is_covered in zip(tries, are_covered, strict=True) if not is_covered]
    if free and free[0][1] == 0:
        return free[0]  # at the mark's own height there is no leader: it costs nothing
    full, written = _near(full, names), _near(written, names)

    def cost(place: tuple[int, float]) -> float:
        price = abs(place[1]) / _LONG_LEADER
        for scale in full:
            leader, name = _leader_beside(spot, *place, scale), _name(spot, *place, scale)
            price += _length_on(leader, full[scale]) + _NAMES_CROSSED * _length_on(leader, written[scale])
            if not free:
                price += _weight_on(full[scale], name) + _NAMES_CROSSED * _weight_on(written[scale], name)
        return price

    return min(free or tries, key=cost)


def _near(boxes: Mapping[Scale, Boxes], names: Mapping[Scale, Boxes]) -> dict[Scale, Boxes]:
    """Of the boxes those that lie where a mark's names may stand, or leaders to them run: the others meet none."""
    around = {scale: np.hstack([own[:, :2].min(axis=0), own[:, 2:].max(axis=0)])[None] for scale, own in names.items()}
    return {scale: own[_meet(own, around[scale])] for scale, own in boxes.items()}


def _note_for(spot: Spot, side: int, lift: float) -> dict[str, Any]:
    """The name beside its mark; one that stands lines away has a leader."""
    note = {
        "name": "end-label",
        "x": spot.x,
        "y": spot.y,
        "xanchor": "left" if side > 0 else "right",
        "text": spot.text,
        "font": {"size": 13, "color": spot.colour},
    }
    if abs(lift) < _TALL:
        return note | {"showarrow": False, "xshift": side * _OFF, "yshift": lift}
    leader = {"arrowhead": 0, "arrowwidth": 0.8, "arrowcolor": spot.colour, "standoff": 8, "borderpad": 0}
    return note | {"showarrow": True, "ax": side * _OFF, "ay": -lift, **leader}


def _leader_beside(spot: Spot, side: int, lift: float, scale: Scale) -> Boxes:
    """What the line from a mark to its name takes, as far as it is off the mark; nothing where there is none."""
    if abs(lift) < _TALL:
        return np.zeros((0, 4))
    shares = np.linspace(0.0, 1.0, max(3, round(abs(lift) / _STITCH)))
    places = np.column_stack([shares * side * _OFF, shares * lift])
    places = places[np.hypot(places[:, 0], places[:, 1]) > _OFF] + np.array([spot.x * scale[0], spot.y * scale[1]])
    return np.hstack([places - _STITCH / 2, places + _STITCH / 2])


def _weight_on(boxes: Boxes, name: Box) -> float:
    """How much a name covers: 1 for a whole piece of a line, by area for marks, more for what lies beside the plot."""
    covered = boxes[_meet(boxes, name)]
    sides = covered[:, 2:] - covered[:, :2]
    beside = sides[:, 0] > _FAR / 2
    return float((sides[~beside].min(axis=1) ** 2).sum() / _THIN**2 / _STITCHES + _NAMES_CROSSED * beside.sum())


def _length_on(leader: Boxes, obstacles: Boxes) -> float:
    """How much of a leader lies on something, hundreds of pixels."""
    return float(_meet(leader, obstacles).sum()) * _STITCH / 100


def _name(spot: Spot, side: int, lift: float, scale: Scale) -> Box:
    width = _WIDE * len(spot.text)
    return _box(spot.x * scale[0] + side * (_OFF + width / 2), spot.y * scale[1] + lift, width)


def _box(x: float, y: float, width: float) -> Box:
    """A line of type about a middle."""
    return np.array([[x - width / 2, y - _TALL / 2, x + width / 2, y + _TALL / 2]])


def _meet(boxes: Boxes, obstacles: Boxes) -> Bool[np.ndarray, " _"]:
    """Which of the boxes lie on any of the others."""
    left, low, right, high = boxes.T[:, :, None]
    wide = (left < obstacles[:, 2]) & (obstacles[:, 0] < right)
    return np.any(wide & (low < obstacles[:, 3]) & (obstacles[:, 1] < high), axis=1)
