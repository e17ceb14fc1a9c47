"""Data: which training examples pulled the model back, clusters first."""

from __future__ import annotations

import functools
import shlex
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components, in_turn, moved_prompts, ranking_scores, tables, widgets
from app.cache import Key
from app.components import Context
from probes.attribution.clusters import sum_clusters
from probes.plots import style
from probes.plots.cumulative import cumulative
from probes.plots.style import InkName
from probes.store import jsonl_text

_RANKINGS = {"share": "Share", "effect": "Effect", "forecast": "Forecast"}
_SHOWN = (
    "text",
    "cluster_name",
    "share",
    "low",
    "high",
    "effect",
    "forecast",
    "bm25",
    "length",
    "loss",
    "projection",
    "projection_difference",
)
_AS_DATA = {"request": "prompt", "answer": "completion"}  # as files for fine-tuning call them
_MEANING = {
    "share": "Shares add up to the measured return.",
    "effect": "An effect is what the return would lack without the example, to first order.",
    "forecast": "The forecast was made at the model that training started from; it ranks, in no unit.",
}


def show(run: Context) -> None:
    """Draw the page."""
    if run.layer < 0:
        components.header("Data", "Nothing is attributed at the embedding", "Choose a layer in the sidebar.")
        return
    name = f"attribution/{run.arm.replace(':', '-')}-s{run.seed}-layer{run.layer}"
    if not cache.has_table(run.key, name):
        components.header("Data", "The return has not been attributed to examples yet")
        of = f"--arm {shlex.quote(run.arm)} --seed {run.seed} --layer {run.layer}"
        components.missing(
            f"No attribution of {run.trajectory} at {components.layer_name(run.layer)}.",
            f"gravity-probe attribute {run.command_path} {of}",
            "Shares need a training whose path was recorded (--record-path); the forecast needs none.",
        )
        return
    table, about = cache.table(run.key, name), cache.document(run.key, name)
    choice = widgets.OneOf("ranking", {name: title for name, title in _RANKINGS.items() if name in table})
    ranking = choice.chosen()
    components.header("Data", *_answer(run, table, about, ranking))
    choice.control("Ranking")
    with components.section():
        ranking_scores.show(table)
    st.header("Clusters", anchor=False)
    with components.section():
        tables.data_table(_cluster_rows(table, ranking), name="clusters", height=300)
    with components.section():
        figure = cached_figures.figure(_figure, run.key, name, ranking, run.arm, run.subtitle(), run.ink)
        charts.chart(figure, table, name="cumulative", alt=f"Sum of {ranking} over ranked examples")
    in_turn.pause()
    st.header("Examples", anchor=False)
    ordered = table.sort_values(ranking, ascending=False, kind="stable")
    with components.section():
        key = moved_prompts.row_key(name, ranking)
        _ranked_examples(run, ordered, key, as_data=bool(about.get("texts_are_data")))
    with components.section():
        moved_prompts.show(run, name, ordered)


def _answer(run: Context, table: pd.DataFrame, about: dict[str, Any], ranking: str) -> tuple[str, str]:
    """Which cluster pulls hardest, and how far shares add up."""
    first = _cluster_rows(table, ranking).iloc[0]
    pull = f"the cluster “{first['cluster']}” pulls hardest" if first[ranking] > 0 else "no cluster pulls it back"
    title = f"{run.trajectory.capitalize()}: {pull}"
    lead = f"“{first['cluster']}” holds {int(first['examples'])} of {len(table)} examples. {_MEANING[ranking]}"
    if about["without_shares"]:
        return title, f"{lead} No shares: {about['without_shares']}; effects are those of a first step, in no unit."
    measured, shares = about["measured_return"], about["targets"]["return"]
    if measured is None:
        return title, lead
    gap = style.decimal(measured - shares["predicted"], 4)
    return (
        title,
        f"{lead} Measured return {style.decimal(measured, 4)} at step {about['step']}; completeness gap {gap}.",
    )


def _cluster_rows(table: pd.DataFrame, ranking: str) -> pd.DataFrame:
    """The sum of every ranking over each cluster, the hardest pull first."""
    columns = [name for name in _RANKINGS if name in table]
    ordered = sum_clusters(table, columns).sort_values(ranking, ascending=False, ignore_index=True)
    return ordered[["cluster_name", "examples", *columns]].rename(columns={"cluster_name": "cluster"})


def _ranked_examples(run: Context, ordered: pd.DataFrame, key: str, *, as_data: bool) -> None:
    tables.data_table(
        ordered[[name for name in _SHOWN if name in ordered]],
        name="examples",
        height=420,
        key=key,
        on_select=functools.partial(moved_prompts.pick_row, ordered, key),
        selection_mode="single-row",
        selection_default=moved_prompts.mark_row(ordered),
        column_config={
            "text": st.column_config.TextColumn("text", width="large"),
            "cluster_name": st.column_config.TextColumn("cluster", width="small"),
        },
    )
    if not as_data:
        components.missing(
            "These examples are known only as the model read them, with its chat template: they are no data to train "
            "on. Name the data they were made from:",
            f"gravity-probe attribute {run.command_path} --arm {shlex.quote(run.arm)} --seed {run.seed} "
            f"--layer {run.layer} --data FILE",
        )
        return
    components.download(
        "Data with scores (JSONL)",
        lambda: jsonl_text(ordered.drop(columns="text").rename(columns=_AS_DATA)),
        f"{components.file_name('examples')}.jsonl",
        "application/jsonl",
        key="jsonl-examples",
        type="tertiary",
    )


def _figure(key: Key, name: str, ranking: str, arm: str, subtitle: str, ink: InkName) -> go.Figure:
    return cumulative(cache.table(key, name), by=ranking, arm=arm, subtitle=subtitle, ink=ink)


show(components.context())
