"""The linked workbench: prompts chosen in a picture, read beside it, and kept on every page and in the address."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, components, pair, prompt_choice, prompt_rows, tables, widgets, zoom
from app.cache import Key
from app.components import Context
from probes.plots import style
from probes.plots.prompt_marks import hover_text, mark_selected
from probes.plots.sheet import Sheet

_CARDS, _MOST_MOVED = 60, 8
_HOVERED = 20_000  # points; with more of them whole texts and answers, or each zoom, would be too much to send
MODES = ("toImage", "lasso2d", "select2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d")
_DRAG = {"lasso": "lasso", "box": "select", "move": "pan"}


def chart(
    run: Context,
    figure: Sheet,
    data: pd.DataFrame,
    *,
    name: str,
    alt: str,
    modes: Sequence[str] = ("toImage",),
    drag: str = "lasso",
) -> None:
    """A figure whose points are prompts: lasso, box or click selects them, and what is selected stands out."""
    selected = prompt_choice.prompts(run)
    flat = not any(trace["type"] == "scatter3d" for trace in figure.data)
    mark_selected(figure, selected)
    if not flat:
        charts.chart(figure, data, name=name, alt=alt, modes=modes)
        return
    figure.update_layout(dragmode=_DRAG[drag])
    if modes == MODES and figure.layout.get("xaxis", {}).get("range") and len(data) <= _HOVERED:
        zoom.keep(figure, name)

    def keep() -> None:
        chosen = _prompts_of(st.session_state.get(charts.chart_key(name)))
        if chosen:
            prompt_choice.choose(run, chosen)

    charts.chart(figure, data, name=name, alt=alt, modes=modes, on_select=keep, by=("points", "box", "lasso"))


def _prompts_of(event: Any) -> set[str]:
    """The ids under the points of a selection."""
    points = ((event or {}).get("selection") or {}).get("points") or []
    values = [point.get("customdata") for point in points]
    return {value[0] if isinstance(value, list) else value for value in values if value} - {None}


def hovers(points: pd.DataFrame, key: Key, compared: tuple[str, str], names: tuple[str, str]) -> pd.DataFrame:
    """The points of a picture with what stands under the pointer: the whole prompt and both answers, where they fit."""
    if len(points) > _HOVERED:
        return points
    texts = _hover_texts(key, compared, names)
    return points.assign(hover=[texts.get(prompt, "") for prompt in points["prompt"].tolist()])


@st.cache_resource(show_spinner=False, max_entries=32)
def _hover_texts(key: Key, compared: tuple[str, str], names: tuple[str, str]) -> dict[str, str]:
    """What stands under the pointer, by prompt: the same at every layer."""
    texts = {}
    for row in prompt_rows.words(key, compared).to_dict("records"):
        sides = zip(names, ("one", "other"), strict=True)
        answers = {name: row[f"completion_{side}"] for name, side in sides if row[f"verdict_{side}"]}
        texts[row["prompt"]] = hover_text(row["text"], answers)
    return texts


def cards(run: Context, *, flat: bool) -> None:
    """The selected prompts to be read: text, both answers, label, flip, and how far each moved."""
    chosen, compared_pair = prompt_choice.note(run), pair.current_pair(run)
    rows, names = prompt_rows.rows(run.key, run.layer, compared_pair), pair.names(run, compared_pair)
    shown = _in_order(rows[rows["prompt"].isin(chosen)] if chosen else rows)
    if not chosen:
        shown = shown.head(_MOST_MOVED)
        how = "Draw around prompts in the map, or click one," if flat else "Select prompts in the 2-D map"
        moved = " These moved furthest along the way back." if rows["moved"].notna().any() else ""
        components.note(f"{how} to read them here.{moved}")
    body = "".join(_card(row, names) for row in shown.head(_CARDS).to_dict("records"))
    st.html(f'<div class="gp-cards" tabindex="0" role="region" aria-label="Prompts">{body}</div>')
    if len(shown) > _CARDS:
        components.note(f"The {_CARDS} that moved furthest of {len(shown):,}; the table below has them all.")


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """What moved furthest back first."""
    return rows.sort_values("moved", ascending=False, kind="stable")


def _card(row: dict[str, Any], names: tuple[str, str]) -> str:
    about = [row["label"], row["topic"], row["flip"], _distance_in_words(row["moved"])]
    lines = [f'<p class="gp-card-about">{html.escape(" · ".join(filter(None, about)))}</p>']
    lines.append(f"<p>{html.escape(row['text'])}</p>")
    for side, name in zip(("one", "other"), names, strict=True):
        if row[f"verdict_{side}"]:
            answer = html.escape(row[f"completion_{side}"].strip() or "(nothing)")
            label = html.escape(f"{name}: {row[f'verdict_{side}'].replace('_', ' ')}")
            lines.append(f'<p class="gp-card-answer"><span>{label}</span>{answer}</p>')
    return f'<div class="gp-card">{"".join(lines)}</div>'


def _distance_in_words(distance: float) -> str:
    if pd.isna(distance):
        return ""
    return f"moved {'+' if distance >= 0 else ''}{style.decimal(distance)}"


def foremost(run: Context) -> tuple[str, ...]:
    """The selected prompts; where none is, those that moved furthest."""
    chosen = prompt_choice.prompts(run)
    if chosen:
        return chosen
    rows = _in_order(prompt_rows.rows(run.key, run.layer, pair.current_pair(run)))
    return tuple(rows["prompt"].head(_MOST_MOVED))


def table(run: Context) -> None:
    """The selected prompts, or all, as a table to sort and to download; where answers lack, the command for them."""
    compared_pair = pair.current_pair(run)
    rows, names = prompt_rows.rows(run.key, run.layer, compared_pair), pair.names(run, compared_pair)
    chosen = set(prompt_choice.prompts(run))
    shown = rows[rows["prompt"].isin(chosen)] if chosen else rows
    columns = ["text", "completion_one", "completion_other", "flip", "moved", "label", "topic"]
    columns += ["verdict_one", "verdict_other", "prompt"]
    answered = prompt_rows.has_answers(run.key, *compared_pair)
    empty = {name for name in columns if not (shown[name].notna() & (shown[name] != "")).any()}
    tables.data_table(
        _in_order(shown)[[name for name in columns if name not in empty]],
        name="prompts",
        height=420,
        column_config=_columns(names),
    )
    if not answered:
        components.missing(
            "The answers to these prompts have not been generated.",
            f"gravity-probe evaluate {run.command_path} --probe-prompts",
            "These are the prompts that directions are made of. Their answers are for reading, and count in no rate.",
        )


def _columns(names: tuple[str, str]) -> dict[str, Any]:
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    return {
        "text": text("prompt", width=190),
        "completion_one": text(names[0], width=150),
        "completion_other": text(names[1], width=170),
        "flip": text("flip", width=136),
        "moved": number("moved", width=66, help="Along the way back, in units of the return."),
        "label": text("label", width=72),
        "topic": text("topic", width=84),
        "verdict_one": text(f"{names[0]}: label", width=104),
        "verdict_other": text(f"{names[1]}: label", width=190),
        "prompt": text("id", width=110),
    }


def selected_elsewhere(run: Context) -> None:
    """On pages without a map: the selected prompts, where there are any, with the answers of the two checkpoints."""
    if prompt_choice.note(run):
        table(run)


def pointer() -> str:
    """Choose what dragging in a picture does."""
    return widgets.POINTER.control(
        "Pointer",
        help="Lasso and box select the prompts they enclose. In Move, dragging pans, and a click selects one prompt.",
    )
