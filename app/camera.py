"""The camera of a picture in space, in the address as `camera=PICTURE:` and nine numbers: eye, centre and up.

A picture is turned in the browser, which tells the app afterwards (`look.CAMERAS`). The figure is drawn anew with the
address's camera only where that was turned in another browser: nothing jumps.
"""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from app import listening, state
from probes.plots.sheet import Sheet

NAME = "camera"
_TURNED, _DRAWN = "camera-turned-here", "camera-drawn"
_PARTS = ("eye", "center", "up")


def read(text: str) -> tuple[str, dict[str, dict[str, float]]] | None:
    """The picture and the camera that an address names; None where it cannot be read."""
    picture, _, numbers = text.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        return None
    if len(values) != 9 or not all(math.isfinite(value) for value in values):
        return None
    triples = (values[at : at + 3] for at in (0, 3, 6))
    return picture, {part: dict(zip("xyz", triple, strict=True)) for part, triple in zip(_PARTS, triples, strict=True)}


def write(picture: str, camera: dict[str, dict[str, float]]) -> str:
    """A camera as it stands in the address."""
    return f"{picture}:" + ",".join(f"{camera[part][axis]:.3f}" for part in _PARTS for axis in "xyz")


def keep(figure: Sheet, picture: str) -> None:
    """Draw a figure in space from where the address says, and put into the address how it is turned."""
    requested = state.view(NAME)
    drawn = st.session_state.setdefault(_DRAWN, {})
    if requested != st.session_state.get(_TURNED):
        known = read(requested)
        drawn.clear()
        if known:
            drawn[known[0]] = known[1]
        st.session_state[_TURNED] = requested
    if picture in drawn:
        scenes = [part for part in figure.layout if part.startswith("scene")]
        figure.update_layout(**{scene: {"camera": drawn[picture]} for scene in scenes})

    def keep_camera(camera: Any) -> None:
        if _is_camera(camera):
            st.session_state[_TURNED] = write(picture, camera)
            state.change_view(NAME, st.session_state[_TURNED])
            state.write_url()

    listening.listen(NAME, picture, keep_camera)


def _is_camera(camera: Any) -> bool:
    """Whether what a browser sent has the form of a camera."""
    return isinstance(camera, dict) and all(
        isinstance(camera.get(part), dict) and all(isinstance(camera[part].get(axis), int | float) for axis in "xyz")
        for part in _PARTS
    )
