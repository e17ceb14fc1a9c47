"""Behaviour: what every checkpoint does when it is asked, over its life and against how far it went back."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, components
from app.cache import Key
from app.components import Context
from probes.plots import behaviour, style
from probes.plots.style import InkName
from probes.statistics import MEASURES, statistic_of

_FIRST = ("harmful_compliance", "refusal_harmful")
_COLUMNS = ("checkpoint", "arm", "seed", "step", "measure", "value", "low", "high", "n")


def show(run: Context) -> None:
    """Draw the page."""
    if not cache.has_table(run.key, "behaviour"):
        components.header("Behaviour", "No answers have been generated yet")
        components.missing(
            "No behaviour was measured in this run.",
            f"gravity-probe evaluate {run.command_path}",
            "It generates text with every checkpoint, judges it, and keeps rates and answers in the run folder.",
        )
        return
    rows = cache.table(run.key, "behaviour", _COLUMNS)
    measured = set(rows["measure"])
    measures = [name for name in [*MEASURES, *sorted(measured - set(MEASURES))] if name in measured]
    first = next((name for name in _FIRST if name in measures), measures[0] if measures else "")
    measure = st.session_state.get("behaviour-measure") or first
    components.header("Behaviour", *_answer(run, rows, measure if measure in measures else first))
    measure = st.selectbox(
        "Measure",
        measures,
        index=measures.index(first),
        format_func=lambda name: statistic_of(name).title,
        key="behaviour-measure",
        help=statistic_of(measure).reading or None,
    )
    own = rows[rows["measure"] == measure]
    with components.section():
        subtitle = run.subtitle(layer=False, direction=False)
        figure = cache.behaviour_figure(run.key, measure, subtitle, run.ink)
        components.chart(figure, own, name="behaviour", alt=f"{measure} by optimiser step for every arm")
    with components.section():
        if not run.has_witness:
            components.note("Against the return fraction: not defined, no witness.")
        else:
            _against_return(run, measure)
    st.header("Answers", anchor=False)
    with components.section():
        _browser(run)


def _against_return(run: Context, measure: str) -> None:
    joined = _join_tables(run.key, run.layer, measure)
    figure = cache.figure(_figure, run.key, run.layer, measure, run.subtitle(), run.witness, run.ink)
    components.chart(figure, joined, name="behaviour-return", alt=f"{measure} against the return fraction")


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


def _join_tables(key: Key, layer: int, measure: str) -> pd.DataFrame:
    """The measure and the return fraction of every checkpoint; the aligned model stands at 0 by definition."""
    rows = cache.table(key, "behaviour", _COLUMNS, (("measure", "==", measure),))
    drift = cache.drift(key, layer)
    fraction = drift[drift["statistic"] == "return_fraction"].set_index("checkpoint")["value"]
    fractions = rows["checkpoint"].map(fraction).where(rows["arm"] != "aligned", 0.0)
    return rows.assign(fraction=fractions.astype(float)).dropna(subset=["fraction", "value"])


def _figure(key: Key, layer: int, measure: str, subtitle: str, witness: str, ink: InkName) -> go.Figure:
    return behaviour.behaviour(
        _join_tables(key, layer, measure), measure=measure, subtitle=subtitle, witness=witness, ink=ink
    )


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
        label = left.selectbox("Requests", ["all", *sorted(rows["label"].unique())], key="answers-label")
        kind = middle.selectbox("Answers", ["all", "refused", "answered"], key="answers-kind")
        part = right.text_input("Containing the words", key="answers-words")
        if label != "all":
            rows = rows[rows["label"] == label]
        if kind != "all":
            rows = rows[rows["refused"].astype(bool) == (kind == "refused")]
        if part:
            text = rows["text"].astype(str) + " " + rows["completion"].astype(str)
            rows = rows[text.str.contains(part, case=False, regex=False)]
        components.note(f"{len(rows)} answers of {run.trajectory}, step {run.step:,}.")
        components.data_table(
            rows,
            name="answers",
            height=420,
            column_config={
                "label": st.column_config.TextColumn("label", width="small"),
                "text": st.column_config.TextColumn("request", width="large"),
                "completion": st.column_config.TextColumn("answer", width="large"),
                "refused": st.column_config.CheckboxColumn("refused", width="small"),
            },
        )


show(components.context())
