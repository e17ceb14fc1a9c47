"""Controls whose state is in the address: each under a speaking name, and left out while it is at its default.

What an address asks for and is not there is said beside the control, and stays in the address until another is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import streamlit as st

from app import camera, playing, state, zoom
from app.components import Context, absent, bind, choose
from probes.plots import style

_YES, _NO = "yes", "no"


@dataclass(frozen=True)
class OneOf:
    """One of several.

    Attributes:
        name: in the address.
        options: what stands in the address → what stands on the page; the first is the default where a page names none.
    """

    name: str
    options: Mapping[str, str]

    def chosen(self, default: str = "") -> str:
        """What the address says, where that is one of them."""
        requested = state.view(self.name)
        return requested if requested in self.options else default or next(iter(self.options))

    def control(
        self,
        label: str,
        *,
        default: str = "",
        widget: Callable[..., Any] = st.segmented_control,
        **more: Any,
    ) -> str:
        """Draw it, and say what the address asks for in vain."""
        current, first = self.chosen(default), default or next(iter(self.options))
        choose(
            label,
            list(self.options),
            current,
            lambda option: state.change_view(self.name, "" if option == first else option),
            name=self.name,
            widget=widget,
            format_func=lambda option: self.options[option],
            **more,
        )
        requested = state.view(self.name)
        if requested and requested not in self.options:
            absent(self.name, requested, self.options[current])
        return current


@dataclass(frozen=True)
class SeveralOf:
    """Any number of several; where none is named, all of them or none, as the page says.

    Attributes:
        name: in the address.
        options: by what stands in the address.
        all_at_first: whether all are chosen where the address names none.
        drawn: what is drawn anyway, and so is not offered, but may be named.
    """

    name: str
    options: Sequence[str]
    all_at_first: bool = True
    drawn: str = ""

    def chosen(self) -> tuple[str, ...]:
        """Those that the address names, in the order of the options."""
        named = set(self._names())
        known = tuple(option for option in self.options if option in named)
        return known or (tuple(self.options) if self.all_at_first else ())

    def control(self, label: str, **more: Any) -> tuple[str, ...]:
        """Draw it, and say what the address asks for in vain."""
        current = self.chosen()
        choose(
            label,
            list(self.options),
            list(current),
            self._pick,
            name=self.name,
            widget=st.pills,
            selection_mode="multi",
            **more,
        )
        unknown = [name for name in self._names() if name not in (*self.options, self.drawn)]
        if unknown:
            absent(self.name, ", ".join(unknown), ", ".join(current) or "none")
        return current

    def _pick(self, options: Sequence[str]) -> None:
        whole = self.all_at_first and len(options) == len(self.options)
        state.change_view(self.name, "" if whole else ",".join(quote(str(option), safe=":") for option in options))

    def _names(self) -> list[str]:
        return [unquote(part) for part in state.view(self.name).split(",") if part]


@dataclass(frozen=True)
class Switch:
    """On or off: `yes` or `no` in the address."""

    name: str
    default: bool = False

    @property
    def on(self) -> bool:
        """Whether it is on."""
        return {_YES: True, _NO: False}.get(state.view(self.name), self.default)

    def control(self, label: str, *, widget: Callable[..., Any] = st.checkbox, **more: Any) -> bool:
        """Draw it."""

        def pick(on: bool) -> None:
            state.change_view(self.name, "" if on == self.default else _YES if on else _NO)

        bind(widget, label, current=self.on, pick=pick, name=self.name, **more)
        requested = state.view(self.name)
        if requested not in ("", _YES, _NO):
            absent(self.name, requested, _YES if self.default else _NO)
        return self.on


@dataclass(frozen=True)
class Words:
    """A text."""

    name: str

    def control(self, label: str, **more: Any) -> str:
        """Draw it."""
        bind(
            st.text_input,
            label,
            current=state.view(self.name),
            pick=lambda text: state.change_view(self.name, text),
            name=self.name,
            **more,
        )
        return state.view(self.name)


@dataclass(frozen=True)
class Amount:
    """A number between two limits, 0 where the address says nothing."""

    name: str
    low: float
    high: float
    step: float

    @property
    def value(self) -> float:
        """What the address says, where it lies within the limits."""
        number = self._number()
        return 0.0 if number is None or not self.low <= number <= self.high else number

    def control(self, label: str, **more: Any) -> float:
        """Draw it, and say what the address asks for in vain."""
        bind(
            st.slider,
            label,
            self.low,
            self.high,
            step=self.step,
            current=self.value,
            pick=lambda number: state.change_view(self.name, f"{number:g}" if number else ""),
            name=self.name,
            **more,
        )
        requested = state.view(self.name)
        if requested and self._number() != self.value:
            absent(self.name, requested, f"{self.value:g}")
        return self.value

    def _number(self) -> float | None:
        try:
            return float(state.view(self.name) or 0)
        except ValueError:
            return None


def arms(run: Context, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Which arms are drawn: all, until some are left out to see the rest more closely; never those `without`."""
    every = style.in_order(arm for arm, _ in run.catalogue.trajectories if arm not in without)
    return SeveralOf("arms", every).control("Arms drawn") if len(every) > 1 else tuple(every)


# How each page draws what is selected. Beside these, pages offer what a run holds: arms, steps, measures.
ESTIMATE = OneOf(
    "estimate", {"cross-fitted": "cross-fitted", "plain": "plain", "differences": "harmful − harmless"}
)  # Trajectories
PROMPTS = OneOf(
    "prompts",
    {
        "densities": "Densities",
        "roc": "ROC",
        "tokens": "Readout",
        "spectrum": "Spectrum",
        "movers": "Prompts that moved most",
    },
)  # Layers
SPREAD = OneOf("spread", {"activations": "activations", "displacements": "displacements"})
MAP = OneOf("map", {"pca": "PCA", "umap": "UMAP"})  # Manifold
AXES = OneOf("axes", {"2d": "2-D", "3d": "3-D"})
FITTED = OneOf("fitted", {"roles": "aligned, witness", "all": "all"})
SHOWN = OneOf("shown", {"step": "This step", "trajectory": "This trajectory", "everything": "Everything"})
COLOUR = OneOf(
    "colour",
    {
        "checkpoint": "checkpoint, step",
        "role": "role",
        "arm": "arm",
        "step": "step",
        "label": "harmful or harmless",
        "flip": "flip of the answer",
        "topic": "topic",
        "projection": "projection on the way back",
    },
)
POINTER = OneOf("pointer", {"lasso": "Lasso", "box": "Box", "move": "Move"})
TRAILS = Switch("trails")
BESIDE = OneOf("beside", {"none": "One map", "checkpoints": "Two checkpoints", "layers": "Two layers"})
CONTOURS, ARROW, PLAY = Switch("contours", default=True), Switch("arrow", default=True), Switch("play")
ACROSS = OneOf("across", {"all": "All that lies off it", "main": "Main off-axis direction"})  # Displacement
MORE = OneOf("more", {"prompts": "Prompt by prompt", "layers": "At every layer"})
PATHS = OneOf("paths", {"plane": "Plane", "space": "Space", "length": "Return × off-axis"})
WELL = OneOf("well", {"contours": "Contours", "surface": "Surface", "layers": "All layers"})  # Well
ANSWERS = OneOf(
    "answers",
    {"flips": "Flips", "lost": "Refused → not refused", "gained": "Not refused → refused", "all": "All"},
)  # Compare
DIRECTION_VIEWS = OneOf(
    "directions",
    {
        "all": "All directions",
        "interventions": "Interventions",
        "tokens": "Tokens",
        "cosines": "Cosines",
        "transfer": "Carried over",
    },
)
ANSWERED = OneOf("answered", {"all": "all", "refused": "refused", "answered": "answered"})  # Behaviour
WORDS = Words("words")
ALONE, GENERATE = Switch("alone"), Switch("generate")  # Live
PUSH = Amount("push", -4.0, 4.0, 0.25)
SAVE = OneOf("save", {"png": "PNG", "svg": "SVG", "pdf": "PDF"})  # Sidebar
COLUMNS = OneOf("columns", {"1": "1", "1.5": "1½", "2": "2"})
LIGHT_INK = Switch("light_ink")
OF_A_RUN = (
    "arms",
    "steps",
    "measure",
    "ranking",
    "example",
    "requests",
    "format",
    "export_layer",
    "fitted_at",
    "selected",
    "second_layer",
)
NAMES = frozenset(
    (
        *OF_A_RUN,
        camera.NAME,
        zoom.NAME,
        playing.NAME,
        *(
            control.name
            for control in (
                *(ESTIMATE, PROMPTS, SPREAD, MAP, AXES, FITTED, SHOWN, COLOUR, CONTOURS, ARROW, PLAY, ACROSS, MORE),
                *(POINTER, TRAILS, BESIDE, SAVE, COLUMNS, LIGHT_INK),
                *(PATHS, WELL, ANSWERS, DIRECTION_VIEWS, ANSWERED, WORDS, ALONE, GENERATE, PUSH),
            )
        ),
    )
)
