"""Which step a picture that can be played shows, in the address as `frame=PICTURE:STEP`; the last where it says none.

The browser plays by itself and tells the app where it has stopped (`look.CAMERAS`). A picture is drawn at the address's
step whenever it is drawn anew, and is not drawn anew for having been played: nothing jumps.
"""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from app import components, listening, state
from probes.plots.sheet import Sheet

NAME = "frame"
_OWN, _DRAWN = "frame-stopped-here", "frame-drawn"
_WAIT = 1000  # milliseconds without another step, longer than one is shown: then it has stopped


def read(text: str) -> tuple[str, str] | None:
    """The picture and the step that an address names; None where it cannot be read."""
    picture, _, step = text.rpartition(":")
    return (picture, step) if picture and step.isdecimal() else None


def keep(figure: Sheet, picture: str) -> None:
    """Draw a figure at the step that the address names, and put into the address at which it is stopped next."""
    names = [str(frame["name"]) for frame in figure.frames]
    drawn, about = st.session_state.setdefault(_DRAWN, {}), _identity(figure)
    was = drawn.get(picture)
    requested = state.view(NAME)
    shown, step = read(requested) or ("", "")
    if shown == picture and step not in names:
        components.absent(NAME, requested, f"step {names[-1]}")
    if was is None or was[0] != about or requested != st.session_state.get(_OWN):
        drawn[picture] = (about, step if shown == picture and step in names else names[-1])
    st.session_state[_OWN] = requested
    _show(figure, names.index(drawn[picture][1]))

    def keep_step(place: Any) -> None:
        if isinstance(place, int) and 0 <= place < len(names):
            stopped = "" if place == len(names) - 1 else f"{picture}:{names[place]}"
            st.session_state[_OWN] = stopped
            state.change_view(NAME, stopped)
            state.write_url()

    listening.listen(NAME, picture, keep_step, wait=_WAIT)


def _identity(figure: Sheet) -> str:
    """What tells one figure from another: its words, limits and marks."""
    marks = [(trace.get("name"), trace.get("selectedpoints"), str(trace.get("marker"))[:400]) for trace in figure.data]
    return json.dumps([figure.layout, marks], default=str)


def _show(figure: Sheet, place: int) -> None:
    """Begin with one of the frames, and with the slider there."""
    frame = figure.frames[place]
    for at, part in zip(frame["traces"], frame["data"], strict=True):
        figure.data[at] = {**figure.data[at], **part}
    sliders = figure.layout["sliders"]
    figure.update_layout(sliders=[{**sliders[0], "active": place}, *sliders[1:]])
