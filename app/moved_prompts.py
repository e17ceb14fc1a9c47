"""On the page Data: the prompts that one example moves, with what they did in fact and both answers."""

from __future__ import annotations

import shlex
from typing import Any

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


def show(run: Context, attribution: str, ordered: pd.DataFrame) -> None:
    """The prompts of the selected example, else of the first of the ranking.

    Args:
        run: what is selected.
        attribution: its name in the run.
        ordered: the table of examples, the hardest pull first.
    """
    st.header("Prompts that an example moves", anchor=False)
    example = _selected_example(ordered)
    text = " ".join(str(example["text"]).split())
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
    components.note(f"Example {example['index']}: “{shown}”. Click a row of the list above for another.")
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


def _selected_example(ordered: pd.DataFrame) -> pd.Series:
    requested = state.view(NAME)
    matches = ordered[ordered["index"].astype(str) == requested]
    if requested and matches.empty:
        components.absent(NAME, requested, f"example {ordered['index'].iloc[0]}")
    return (ordered if matches.empty else matches).iloc[0]


def _prompt_rows(run: Context, attribution: str, example: int) -> pd.DataFrame:
    """Harmful prompts, the hardest pull first: text, pull, moved, both answers, flip, as far as they are had."""
    name = f"{attribution}-prompts"
    if not cache.has_table(run.key, name):
        return pd.DataFrame()
    pulls = cache.table(run.key, name, ("prompt", "moved"), (("index", "==", example),))
    rows = prompt_rows.rows(run.key, run.layer, (_START, run.checkpoint))
    merged = pulls.rename(columns={"moved": "pull"}).merge(rows, on="prompt").sort_values("pull", ascending=False)
    columns = ["text", "pull", "moved", "completion_one", "completion_other", "flip", "topic"]
    return merged[[column for column in columns if merged[column].replace("", None).notna().any()]]


def _columns(names: tuple[str, str]) -> dict[str, Any]:
    text = st.column_config.TextColumn
    return {
        "text": text("prompt", width=240),
        "completion_one": text(names[0], width=200),
        "completion_other": text(names[1], width=200),
        "flip": text("flip", width=136),
        "topic": text("topic", width=84),
    }
