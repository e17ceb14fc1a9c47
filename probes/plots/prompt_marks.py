"""Prompts in a picture: what stands under the pointer, what their colours and marks say, and which are selected.

A trace whose points are prompts carries their ids as `customdata` and says so in `meta`; a selection fades the rest of
every such trace, in whatever picture it stands.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

# What is not refused may be an answer, or incoherent.
LOST, GAINED = "refused → not refused", "not refused → refused"
REFUSED, ANSWERED = "refused by both", "refused by neither"
FLIPS = (LOST, GAINED, REFUSED, ANSWERED)
PROMPTS = "prompts"  # a trace's `meta`: its customdata are ids of prompts
_WIDTH, _LONGEST = 62, 400  # characters of a line and of an answer under the pointer
_FADED = 0.1  # opacity of what is not selected
_UNKNOWN = "#9AA1A9"
_FLIP_MARKS = {
    LOST: ("#CC3311", "triangle-up"),
    GAINED: ("#117733", "triangle-down"),
    REFUSED: ("#6699CC", "circle"),
    ANSWERED: ("#B8A03A", "circle"),
}
# Tol's muted scheme, which colour-blind people tell apart; a tenth topic begins again with another mark.
_TOPICS = ("#CC6677", "#332288", "#B8A03A", "#117733", "#66AACC", "#882255", "#44AA99", "#7A7A2A", "#AA4499")
_TOPICS_DARK = ("#EE8899", "#8877DD", "#DDCC77", "#44AA66", "#88CCEE", "#DD77AA", "#66CCBB", "#BBBB55", "#CC77BB")
_SHAPES = ("circle", "square", "diamond", "cross")
_BACK = [(0.0, "#0072B2"), (0.5, "#B9B9B4"), (1.0, "#E69F00")]  # from the aligned model's colour to the witness's
_BACK_DARK = [(0.0, "#4FA8DC"), (0.5, "#5A6067"), (1.0, "#F5B72E")]


def hover_text(text: object, answers: Mapping[str, str] | None = None) -> str:
    """A whole prompt in lines, and below it what each checkpoint answered; harmless to Plotly."""
    parts = ["<br>".join(map(style.plain, _lines(str(text))))]
    for name, answer in (answers or {}).items():
        shown = " ".join(answer.split())
        shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
        parts.append("<br>".join([f"<i>{style.plain(name)}:</i>", *map(style.plain, _lines(shown or "(nothing)"))]))
    return "<br>".join(parts)


@lru_cache(maxsize=4096)
def _lines(text: str) -> tuple[str, ...]:
    return tuple(textwrap.wrap(" ".join(text.split()), _WIDTH) or [""])


def colour_prompts(table: pd.DataFrame, by: str, ink: InkName) -> pd.DataFrame:
    """The table with the `colour` and the `shape` of every point.

    Args:
        table: with the column `by`.
        by: flip, topic or projection (return fraction, shown from 0 to 1).
        ink: light or dark page.
    """
    if by == "projection":
        scale = _scale(ink)
        colours = [_UNKNOWN if pd.isna(value) else style.on_scale(scale, float(value)) for value in table["projection"]]
        return table.assign(colour=colours, shape="circle")
    marks = {name: (colour, shape) for name, colour, shape in legend(table, by, ink)}
    pairs = [marks.get(str(value), (_UNKNOWN, "circle")) for value in table[by]]
    return table.assign(colour=[colour for colour, _ in pairs], shape=[shape for _, shape in pairs])


def legend(table: pd.DataFrame, by: str, ink: InkName) -> list[tuple[str, str, str]]:
    """Name, colour and mark of everything that such a colour says; none for a scale."""
    if by == "flip":
        present = set(table["flip"].unique())
        known = [(flip, *_FLIP_MARKS[flip]) for flip in FLIPS if flip in present]
        return known if known else [("no answers to these prompts", _UNKNOWN, "circle")]
    if by == "topic":
        topics = sorted(set(table["topic"].unique()) - {""})
        colours = _TOPICS if ink == "light" else _TOPICS_DARK
        known = [
            (topic, colours[at % len(colours)], _SHAPES[at // len(colours) % len(_SHAPES)])
            for at, topic in enumerate(topics)
        ]
        return known if known else [("these prompts have no topics", _UNKNOWN, "circle")]
    return []


def colour_bar(ink: InkName) -> dict[str, Any]:
    """The marker of a point that is not drawn and carries the scale of projections."""
    return {
        "color": [0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": _scale(ink),
        "showscale": True,
        "colorbar": {
            "title": {"text": "projection", "font": {"size": 12}},
            "thickness": 10,
            "len": 0.6,
            "outlinewidth": 0,
            "tickvals": [0, 0.5, 1],
            "ticktext": ["0 aligned", "0.5", "1 witness"],
        },
    }


def _scale(ink: InkName) -> list[tuple[float, str]]:
    return _BACK_DARK if ink == "dark" else _BACK


def mark_selected(fig: Sheet, prompts: Collection[str]) -> None:
    """Fade every point that is none of these prompts; without prompts nothing is changed.

    In space, where Plotly fades no single points, the colours themselves are faded.
    """
    chosen = set(prompts)
    for trace in fig.data if chosen else ():
        if trace.get("meta") != PROMPTS or "customdata" not in trace:
            continue
        places = [place for place, prompt in enumerate(trace["customdata"]) if prompt in chosen]
        if trace["type"] == "scatter3d":
            _fade_in_space(trace, set(places))
        else:
            trace.update(
                selectedpoints=places,
                selected={"marker": {"opacity": 1.0, "size": 9}},
                unselected={"marker": {"opacity": _FADED}},
            )


def _fade_in_space(trace: dict[str, Any], places: Collection[int]) -> None:
    count, own = len(trace["customdata"]), trace["marker"]["color"]
    colours = own if _is_list(own) else [own] * count
    trace["marker"] |= {
        "color": [colour if place in places else style.fade(colour, _FADED) for place, colour in enumerate(colours)],
        "size": [7 if place in places else 2.5 for place in range(count)],
        "opacity": 1,
        "line": trace["marker"].get("line", {}) | {"width": 0},
    }


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
