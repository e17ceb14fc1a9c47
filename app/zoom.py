"""How far a picture in the plane is zoomed and moved, in the address as `zoom=PICTURE:` and four shares of its axes.

The browser zooms by itself and tells the app afterwards (`look.CAMERAS`), which draws every further figure so zoomed.
As shares, a zoom stays in the same part of another layer's map: of one that is drawn next, and of one beside it.
"""

from __future__ import annotations

import math
from typing import Any

from app import listening, state
from probes.plots.sheet import Sheet

NAME = "zoom"
_SAME = 1e-3  # of an axis: less is no zoom
_PANELS = ("", "2")  # of two pictures side by side, as Plotly numbers their axes
Shares = tuple[float, ...]  # left, right, low and high of what is seen: 0 and 1 are the ends of the figure's own axes
_HOME: Shares = (0.0, 1.0, 0.0, 1.0)


def read(text: str) -> tuple[str, Shares] | None:
    """The picture and the shares that an address names; None where it cannot be read."""
    picture, _, numbers = text.partition(":")
    try:
        shares = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        return None
    is_zoom = len(shares) == 4 and all(map(math.isfinite, shares)) and shares[0] < shares[1] and shares[2] < shares[3]
    return (picture, shares) if is_zoom else None


def write(picture: str, shares: Shares) -> str:
    """A zoom as it stands in the address; empty where the whole picture is seen.

    The browser shows more of one axis than the figure asks for where both have one scale.
    """
    beyond = [
        share - end if place % 2 else end - share for place, (share, end) in enumerate(zip(shares, _HOME, strict=True))
    ]
    is_whole = min(beyond) > -_SAME and min(max(beyond[:2]), max(beyond[2:])) < _SAME
    if is_whole:
        return ""
    return f"{picture}:" + ",".join(f"{share:.4f}" for share in shares)


def keep(figure: Sheet, picture: str) -> None:
    """Draw a figure as it was zoomed, and put into the address how it is zoomed next."""
    homes = {panel: _home(figure, panel) for panel in _PANELS if f"xaxis{panel}" in figure.layout}
    zoom = read(state.view(NAME))
    if zoom is not None and zoom[0] == picture:
        for panel, home in homes.items():
            left, right, low, high = _places(home, zoom[1])
            axes: dict[str, Any] = {"xaxis": {"range": [left, right]}, "yaxis": {"range": [low, high]}}
            figure.update_layout(**{f"{name}{panel}": axis for name, axis in axes.items()})

    def keep_zoom(view: Any) -> None:
        ranges, panel = (view.get("ranges"), str(view.get("panel"))) if isinstance(view, dict) else (None, "")
        if ranges == [] or (_are_ranges(ranges) and panel in homes):
            state.change_view(NAME, write(picture, _shares(homes[panel], ranges) if ranges else _HOME))
            state.write_url()

    listening.listen(NAME, picture, keep_zoom)


def _home(figure: Sheet, panel: str) -> Shares:
    """The limits that a picture was drawn for."""
    return (*figure.layout[f"xaxis{panel}"]["range"], *figure.layout[f"yaxis{panel}"]["range"])


def _places(home: Shares, shares: Shares) -> Shares:
    ends = (home[:2], home[:2], home[2:], home[2:])
    return tuple(low + share * (high - low) for (low, high), share in zip(ends, shares, strict=True))


def _shares(home: Shares, places: Shares) -> Shares:
    ends = (home[:2], home[:2], home[2:], home[2:])
    return tuple((place - low) / (high - low) for (low, high), place in zip(ends, places, strict=True))


def _are_ranges(ranges: Any) -> bool:
    """Whether what a browser sent has the form of the ranges of two axes."""
    return isinstance(ranges, list) and len(ranges) == 4 and all(isinstance(end, int | float) for end in ranges)
