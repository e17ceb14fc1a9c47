"""Prompts of a map as clouds of points: what their colours say, and the legend of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from probes.lineage import ROLES
from probes.plots import prompt_marks, style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

Colour = Literal["checkpoint", "role", "arm", "step", "label", "flip", "topic", "projection"]
COLOURS: tuple[Colour, ...] = ("checkpoint", "role", "arm", "step", "label")
BY_PROMPT: tuple[Colour, ...] = ("flip", "topic", "projection")  # where each point has its own colour and mark
_TUNED = "#D55E00"
_STEPS = [(0.0, "#CFE3F1"), (0.5, "#3B8BC2"), (1.0, "#08306B")]  # light to dark, told apart without hue
_STEPS_DARK = [(0.0, "#17405F"), (0.5, "#4FA3D8"), (1.0, "#E3F1FB")]
_LABELS = {"harmful": "#B2182B", "harmless": "#4393C3"}


@dataclass(frozen=True)
class Drawing:
    """How a map is drawn.

    Attributes:
        axes: 2 or 3.
        colour: what a point's colour says; by flip, topic or projection the table has a column of that name.
        contours: lines around the densest half of each checkpoint's harmful prompts (2-D only).
        arrow: the way from the aligned model's to the witness's mean harmful prompt (PCA only).
        moving: play over the steps, with fixed axes, instead of showing them together.
        trails: ids of the prompts whose way over the steps is drawn.
    """

    axes: int = 2
    colour: Colour = "checkpoint"
    contours: bool = True
    arrow: bool = True
    moving: bool = False
    trails: tuple[str, ...] = ()


def columns_of(axes: int) -> tuple[str, ...]:
    """The map's columns in two or three dimensions."""
    return ("x", "y") if axes == 2 else ("x3", "y3", "z3")


def draw(fig: Sheet, table: pd.DataFrame, drawing: Drawing, steps: Sequence[int], ink: InkName, witness: str) -> None:
    """Put the clouds of all these checkpoints on a figure, the roles above the rest."""
    order, traces = style.in_order(set(table["arm"].unique())), []
    kind = "scatter3d" if drawing.axes == 3 else style.flat_points(len(table))
    for arm in [arm for arm in order if arm not in ROLES] + [arm for arm in order if arm in ROLES]:
        own = table[table["arm"] == arm]
        for (_, step), cloud in own.groupby(["seed", "step"]):
            for label in ("harmless", "harmful"):
                part = cloud[cloud["label"] == label]
                if len(part):
                    name = name_of(arm, int(step), witness)
                    traces.append(points(part, label, name, arm, int(step), drawing, steps, ink, kind))
    fig.add_traces(traces)
    if drawing.colour == "step" and steps and not drawing.moving:
        _bar(fig, _step_bar(steps, ink), drawing.axes)
    if drawing.colour == "projection":
        _bar(fig, prompt_marks.colour_bar(ink), drawing.axes)


def name_of(arm: str, step: int, witness: str) -> str:
    """What a checkpoint is called."""
    return (witness if arm == "witness" else arm) if arm in ROLES else f"{arm} {step:,}"


def _colour(arm: str, step: int, label: str, colour: Colour, steps: Sequence[int], ink: InkName) -> str:
    if colour == "label":
        return _LABELS.get(label, style.CONTROL.colour)
    if colour == "role" and arm not in ROLES:
        return _TUNED
    if colour == "step" and arm not in ROLES and steps:
        return style.on_scale(_STEPS_DARK if ink == "dark" else _STEPS, _rank(step, steps))
    return style.mark_of(arm).colour


def _rank(step: int, steps: Sequence[int]) -> float:
    return list(steps).index(step) / max(len(steps) - 1, 1)


def points(
    part: pd.DataFrame,
    label: str,
    name: str,
    arm: str,
    step: int,
    drawing: Drawing,
    steps: Sequence[int],
    ink: InkName,
    kind: str,
) -> dict[str, Any]:
    """The points of one class of one checkpoint, as a trace."""
    deep, own = drawing.axes == 3, drawing.colour in BY_PROMPT
    colour = part["colour"].tolist() if own else _colour(arm, step, label, drawing.colour, steps, ink)
    shapes = part["shape"] if own and not deep else ["circle"] * len(part)
    symbols = [shape if label == "harmful" else f"{shape}-open" for shape in shapes]
    places = dict(zip("xyz", (part[axis] for axis in columns_of(drawing.axes)), strict=False))
    faint = 0.9
    if drawing.colour == "checkpoint" and arm not in ROLES and len(steps) > 1:
        faint = 0.25 + 0.65 * _rank(step, steps)  # later steps stand out
    marker = {
        "color": colour,
        "size": 3.4 if deep else 5.5,
        "opacity": faint,
        "symbol": symbols if own and not deep else "circle" if label == "harmful" else "circle-open",
        "line": {"width": 0 if label == "harmful" else 1, "color": colour},
    }
    return {
        "type": kind,
        "name": f"{name} {label}",
        "mode": "markers",
        "marker": marker,
        "showlegend": False,
        **places,
        "meta": prompt_marks.PROMPTS,
        "customdata": part["prompt"].tolist(),
        "hovertext": part["hover"].tolist() if "hover" in part else [_prompt(text) for text in part["text"].tolist()],
        "hovertemplate": f"<b>{style.plain(name)}</b>, {label}<br>%{{hovertext}}<extra></extra>",
    }


def _prompt(text: object) -> str:
    shown = " ".join(str(text).split())
    return style.plain(shown[:69] + "…" if len(shown) > 70 else shown)


def _bar(fig: Sheet, marker: dict[str, Any], axes: int) -> None:
    """A colour bar, carried by a point that is not drawn."""
    bar = {"name": "scale", "hoverinfo": "skip", "showlegend": False, "marker": marker}
    fig.add_traces([nowhere(axes) | bar])
    fig.update_layout(margin={"r": 90})


def nowhere(axes: int) -> dict[str, Any]:
    """A trace that draws nothing, for a name or a colour bar to stand on."""
    none = {"x": [None], "y": [None], **({"z": [None]} if axes == 3 else {})}
    return {"type": "scatter3d" if axes == 3 else "scatter", **none, "mode": "markers"}


def _step_bar(steps: Sequence[int], ink: InkName) -> dict[str, Any]:
    """The marker that carries the colours of steps."""
    shown = steps if len(steps) < 9 else [steps[0], steps[len(steps) // 2], steps[-1]]
    return {
        "color": [0],
        "cmin": 0,
        "cmax": 1,
        "colorscale": _STEPS_DARK if ink == "dark" else _STEPS,
        "showscale": True,
        "colorbar": {
            "title": {"text": "step", "font": {"size": 12}},
            "thickness": 10,
            "len": 0.6,
            "outlinewidth": 0,
            "tickvals": [_rank(step, steps) for step in shown],
            "ticktext": [f"{step:,}" for step in shown],
        },
    }


def legend(table: pd.DataFrame, drawing: Drawing, witness: str, ink: InkName) -> list[tuple[str, str, str]]:
    """Name, colour and symbol of everything that a colour says, in the one order."""
    if drawing.colour in BY_PROMPT:
        return prompt_marks.legend(table, drawing.colour, ink)
    if drawing.colour == "label":
        return [(label, colour, "circle" if label == "harmful" else "circle-open") for label, colour in _LABELS.items()]
    roles = [arm for arm in style.in_order(set(table["arm"].unique())) if arm in ROLES]
    arms = [arm for arm in style.in_order(set(table["arm"].unique())) if arm not in ROLES]
    entries = [(witness if role == "witness" else role, style.mark_of(role).colour, "circle") for role in roles]
    if drawing.colour == "step":
        return entries
    if drawing.colour == "role":
        return [*entries, *([("fine-tuned", _TUNED, "circle")] if arms else [])]
    for arm in arms:
        steps = sorted({int(step) for step in table[table["arm"] == arm]["step"]})
        name = f"{arm}, step {steps[0]:,}" if len(steps) == 1 else f"{arm}, steps {steps[0]:,} to {steps[-1]:,}"
        entries.append((name, style.mark_of(arm).colour, "circle"))
    return entries
