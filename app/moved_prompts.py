"""On the page Data: the prompts that one example moves, with what they did in fact and both answers."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import cache, components, pair, prompt_rows, state, tables
from app.components import Context

NAME = "example"
_START = "aligned"
_SHOWN = 240  # characters of an example; the list above has it whole


def row_key(attribution: str, ranking: str) -> str:
    """Under which Streamlit keeps the row that is selected in one list: in another order it is another example's."""
    return f"rows-{attribution}-{ranking}"


def pick_row(ordered: pd.DataFrame, key: str) -> None:
    """Select the example whose row was clicked in the list, or none where the click took it back."""
    event = st.session_state.get(key)
    rows = event["selection"]["rows"] if event else []
    state.change_view(NAME, str(int(ordered["index"].iloc[rows[0]])) if rows else "")
    state.forget_unread()
    state.write_url()


def mark_row(ordered: pd.DataFrame) -> dict[str, Any] | None:
    """What the list of examples is selected to at first: the row of the example that the address names."""
    place = _place_of(ordered)
    return None if place is None or place >= tables.ROWS_SHOWN else {"selection": {"rows": [place]}}


def _place_of(ordered: pd.DataFrame) -> int | None:
    """Where the example that the address names stands in the ranking, from 0; None: nowhere, or none is named."""
    places = np.flatnonzero(ordered["index"].astype(str) == state.view(NAME))
    return int(places[0]) if len(places) else None


def show(run: Context, attribution: str, ordered: pd.DataFrame) -> None:
    """The prompts of the selected example, else of the first of the ranking.

    Args:
        run: what is selected.
        attribution: its name in the run.
        ordered: the table of examples, the hardest pull first.
    """
    st.header("Prompts that an example moves", anchor=False)
    place = _place_of(ordered)
    if state.view(NAME) and place is None:
        components.absent(NAME, state.view(NAME), f"example {ordered['index'].iloc[0]}")
    example = ordered.iloc[place or 0]
    text = " ".join(str(example["text"]).split())
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
    components.note(
        f"Example {example['index']}, row {(place or 0) + 1:,} of the list above: “{shown}”. Click a row for another."
    )
    moved = _prompt_rows(run, attribution, int(example["index"]))
    if moved.empty:
        components.missing(
            "For this example the prompts were not read, but only for those at the top of each ranking.",
            f"gravity-probe attribute {run.command_path} --arm {shlex.quote(run.arm)} --seed {run.seed} "
            f"--layer {run.layer} --explain {len(ordered)}",
        )
        return
    names = pair.names(run, (_START, run.checkpoint))
    tables.data_table(moved, name="prompts-moved", height=420, column_config=_columns(names))
    components.note(
        "Pull is how far a first step on this example alone would carry the prompt back, in no unit; moved is how far "
        "the whole training did, in units of the return."
    )
    if not prompt_rows.has_answers(run.key, _START, run.checkpoint):
        components.missing(
            "The answers to these prompts have not been generated.",
            f"gravity-probe evaluate {run.command_path} --probe-prompts",
        )


def _prompt_rows(run: Context, attribution: str, example: int) -> pd.DataFrame:
    """Harmful prompts, the hardest pull first: text, pull, moved, both answers, flip, as far as they are had."""
    name = f"{attribution}-prompts"
    if not cache.has_table(run.key, name):
        return pd.DataFrame()
    pulls = cache.table(run.key, name, ("prompt", "moved"), (("index", "==", example),))
    rows = prompt_rows.rows(run.key, run.layer, (_START, run.checkpoint))
    merged = pulls.rename(columns={"moved": "pull"}).merge(rows, on="prompt").sort_values("pull", ascending=False)
    columns = ["text", "pull", "moved", "completion_one", "completion_other", "flip", "topic"]
    return merged[[column for column in columns if (merged[column].notna() & (merged[column] != "")).any()]]


def _columns(names: tuple[str, str]) -> dict[str, Any]:
    text = st.column_config.TextColumn
    return {
        "text": text("prompt", width=240),
        "completion_one": text(names[0], width=200),
        "completion_other": text(names[1], width=200),
        "flip": text("flip", width=136),
        "topic": text("topic", width=84),
    }
