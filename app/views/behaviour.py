"""Behaviour: what every checkpoint does when it is asked, over its life and against how far it went back."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import cache, components, in_turn, prompt_choice, returning, tables, widgets, workbench
from app.components import Context
from probes.plots import style
from probes.statistics import MEASURES, statistic_of


def show(run: Context) -> None:
    """Draw the page."""
    if not cache.has_table(run.key, "behaviour"):
        components.header("Behaviour", "No answers have been generated yet")
        components.missing(
            "No behaviour was measured in this run.",
            f"gravity-probe evaluate {run.command_path}",
            "The command generates text with every checkpoint, judges it, and keeps rates and answers in the run.",
        )
        return
    rows = cache.table(run.key, "behaviour", returning.COLUMNS)
    measured = set(rows["measure"].unique())
    measures = [name for name in [*MEASURES, *sorted(measured - set(MEASURES))] if name in measured]
    first = returning.first_rate(measures) or measures[0]
    choice = widgets.OneOf("measure", {name: statistic_of(name).title for name in measures})
    measure = choice.chosen(first)
    components.header("Behaviour", *_answer(run, rows, measure))
    choice.control("Measure", default=first, widget=st.selectbox, help=statistic_of(measure).reading or None)
    with components.section():
        returning.by_step(run, measure)
    in_turn.pause()
    with components.section():
        returning.against_return(run, measure)
    if prompt_choice.prompts(run):
        st.header("The selected prompts", anchor=False)
        with components.section():
            workbench.selected_elsewhere(run)
    st.header("Answers", anchor=False)
    with components.section():
        _browser(run)


def _answer(run: Context, rows: pd.DataFrame, measure: str) -> tuple[str, str]:
    """What the selected checkpoint does, against the aligned model."""
    about = statistic_of(measure)
    own = rows[rows["measure"] == measure]
    selected = own[(own["arm"] == run.arm) & (own["seed"] == run.seed) & (own["step"] == run.step)]
    before = own[own["arm"] == "aligned"]
    if selected.empty:
        return about.title, f"It was not measured for {run.trajectory} at step {run.step:,}."
    at = selected.iloc[0]
    title = f"{about.title}: {_show(at['value'], about.limits)}"
    words = f"{run.trajectory.capitalize()}, step {run.step:,}"
    if pd.notna(at["low"]):
        words += f" (95 % interval {_show(at['low'], about.limits)} to {_show(at['high'], about.limits)}"
        words += f", {int(at['n'])} requests)" if pd.notna(at["n"]) else ")"
    if len(before):
        words += f"; the aligned model: {_show(before['value'].iloc[0], about.limits)}"
    return title, words + "."


def _show(value: float, limits: tuple[float, float] | None) -> str:
    return f"{100 * value:.0f} %" if limits == (0.0, 1.0) and pd.notna(value) else style.decimal(value)


@st.fragment
def _browser(run: Context) -> None:
    with components.section():
        if not cache.has_table(run.key, "completions"):
            components.missing("The answers were not stored.", f"gravity-probe evaluate {run.command_path}")
            return
        checkpoint = run.catalogue.checkpoints[run.arm, run.seed, run.step]
        known = set(cache.columns(run.key, "completions"))
        names = [name for name in ("label", "text", "completion", "refused", "verdict", "reason") if name in known]
        rows = cache.table(run.key, "completions", tuple(names), (("checkpoint", "==", checkpoint),))
        left, middle, right = st.columns([2, 2, 3])
        with left:
            labels = ("all", *sorted(rows["label"].unique()))
            label = widgets.OneOf("requests", dict(zip(labels, labels, strict=True))).control(
                "Requests", widget=st.selectbox
            )
        with middle:
            kind = widgets.ANSWERED.control("Answers", widget=st.selectbox)
        with right:
            part = widgets.WORDS.control("Containing the words")
        if label != "all":
            rows = rows[rows["label"] == label]
        if kind != "all":
            rows = rows[rows["refused"].astype(bool) == (kind == "refused")]
        if part:
            text = rows["text"].astype(str) + " " + rows["completion"].astype(str)
            rows = rows[text.str.contains(part, case=False, regex=False)]
        components.note(f"{len(rows)} answers of {run.trajectory}, step {run.step:,}.")
        tables.data_table(
            rows,
            name="answers",
            height=420,
            column_config={
                "label": st.column_config.TextColumn("label", width=76),
                "text": st.column_config.TextColumn("request", width=290),
                "completion": st.column_config.TextColumn("answer", width=290),
                "refused": st.column_config.CheckboxColumn("refused", width=70),
                "verdict": st.column_config.TextColumn("verdict", width=100),
                "reason": st.column_config.TextColumn("reason", width=210),
            },
        )


show(components.context())
