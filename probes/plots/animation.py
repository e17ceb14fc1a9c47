"""A play button and a slider for figures whose traces carry their optimiser steps; nothing moves unless asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.plots import style
from probes.plots.sheet import Part, Sheet
from probes.plots.style import InkName

_PAUSE = 700  # milliseconds a step
_ROOM = 74  # pixels below the axis title, for the slider
_BUTTONS = 124  # pixels that the two buttons take, left of the slider
_OF_POINTS = ("customdata", "hovertext")
# Redrawn whole, which paths in space need; the time is that of one step.
_TIMING = {"frame": {"duration": _PAUSE, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
_STILL = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}


def grow(fig: Sheet, traces: Sequence[int], steps: Sequence[int], ink: InkName) -> None:
    """Let paths grow step by step: the named traces hold their steps in `customdata`, in rising order."""
    frames = []
    for step in steps:
        cut = [_until(fig.data[place], step) for place in traces]
        frames.append({"name": f"{step}", "data": cut, "traces": list(traces)})
    play(fig, frames, steps, ink)


def play(fig: Sheet, frames: Sequence[dict[str, Any]], steps: Sequence[int], ink: InkName) -> None:
    """Give a figure its frames (one a step), a play and a pause button, and a slider that starts at the last step."""
    fig.frames = _without_what_stays(fig.data, frames)
    below, colours = _make_room(fig), style.INKS[ink]
    fig.update_layout(updatemenus=[_buttons(below, colours)], sliders=[_slider(steps, below, colours)])


def _without_what_stays(drawn: Sequence[Part], frames: Sequence[Part]) -> list[Part]:
    """The frames without the names and the texts of points, where every one of them has the figure's own: they stay."""
    stays = {
        (at, name)
        for at, trace in enumerate(frames[0]["traces"] if frames else ())
        for name in _OF_POINTS
        if isinstance(drawn[trace].get(name), list)
        and all(frame["data"][at].get(name) == drawn[trace][name] for frame in frames)
    }

    def changes(at: int, part: Part) -> Part:
        return {name: value for name, value in part.items() if (at, name) not in stays}

    return [frame | {"data": [changes(at, part) for at, part in enumerate(frame["data"])]} for frame in frames]


def _make_room(fig: Sheet) -> float:
    """Lengthen the figure between its axis and its caption; how many pixels below the plot the slider goes."""
    below, beneath = fig.layout["margin"].get("b", 64), 64.0
    fig.update_layout(height=fig.height + _ROOM, margin={"b": below + _ROOM})
    for note in fig.annotations:
        if note.get("name") == "caption":
            beneath = -note.get("yshift", 0)
            note["yshift"] = -beneath - _ROOM
    return float(beneath) - 14


def _buttons(below: float, colours: style.Ink) -> dict[str, Any]:
    """Play and pause."""
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": below + 8, "r": 8},
        "bgcolor": colours.background,
        "bordercolor": colours.rule,
        "font": {"size": 12, "color": colours.text},
        "buttons": [
            {"label": "▶ Play", "method": "animate", "args": [None, _TIMING]},
            {"label": "❚❚", "method": "animate", "args": [[None], _STILL]},
        ],
    }


def _slider(steps: Sequence[int], below: float, colours: style.Ink) -> dict[str, Any]:
    """One place a step, the last one shown."""
    return {
        "active": len(steps) - 1,
        "x": 0,
        "len": 1,
        "y": 0,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": below + 4, "l": _BUTTONS},
        "currentvalue": {"prefix": "step ", "font": {"size": 12, "color": colours.muted}},
        "bgcolor": colours.rule,
        "activebgcolor": colours.muted,
        "bordercolor": colours.rule,
        "font": {"size": 11, "color": colours.muted},
        "ticklen": 0,
        "minorticklen": 0,
        "steps": [{"label": f"{step:,}", "method": "animate", "args": [[f"{step}"], _STILL]} for step in steps],
    }


def _until(trace: dict[str, Any], step: int) -> dict[str, Any]:
    """The part of a path up to a step, as what a frame changes."""
    count = sum(1 for own in trace["customdata"] if own <= step)
    part = {"type": trace["type"], "customdata": list(trace["customdata"][:count])}
    part |= {axis: list(trace[axis][:count]) for axis in "xyz" if axis in trace}
    size = trace["marker"]["size"]
    part["marker"] = {"size": list(size[:count])} if isinstance(size, tuple | list) else {}
    return part
