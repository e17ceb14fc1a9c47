"""Layers: a statistic over layers and steps, and the prompts behind the cell that was chosen."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from app import cache, components, state
from app.components import Context
from probes.plots import style
from probes.plots.statistics import STATISTICS, statistic_of

_CHART = "chart-map"


def show(run: Context) -> None:
    """Draw the page."""
    statistic = state.selection().statistic
    statistic = statistic if statistic in STATISTICS else "return_fraction"
    rows = cache.map_rows(run.key, statistic, run.arm, run.seed)
    components.header("Layers", f"{statistic_of(statistic).title}, layer by layer", _lead(run, rows))
    components.choose(
        "Statistic", list(STATISTICS), statistic, lambda name: state.change(statistic=name), name="statistic",
        format_func=lambda name: STATISTICS[name].title, help=statistic_of(statistic).help,
    )  # fmt: skip
    with components.section():
        if rows.empty:
            components.missing(
                f"This run holds no {statistic_of(statistic).title.lower()}.",
                f"gravity-probe measure --out {run.command_path} …",
            )
        else:
            figure = cache.map_figure(
                run.key, statistic, run.arm, run.seed, (run.layer, run.step), run.catalogue.headline,
                run.where(layer=False, trajectory=True), run.ink,
            )  # fmt: skip
            components.chart(
                figure, rows, name="map", on_select=_clicked,
                alt=f"{statistic} of {run.trajectory} over layers and steps; a click on a cell opens it",
            )  # fmt: skip
            components.note("Click a cell, or choose layer and step at the left, for its prompts. ★ headline layer.")
    with components.section():
        _cell(run)


def _lead(run: Context, rows: pd.DataFrame) -> str:
    """What the map says in one sentence: the selected cell, and where the value is largest at that step."""
    at_step = rows[(rows["step"] == run.step) & rows["value"].notna()]
    if at_step.empty:
        return ""
    own = at_step[at_step["layer"] == run.layer]["value"]
    here = style.signed(float(own.iloc[0])) if len(own) else "not defined"
    top = at_step.loc[at_step["value"].idxmax()]
    words = (
        f"{run.trajectory.capitalize()}, step {run.step:,}: {here} at {components.layer_name(run.layer)}; "
        f"largest, {style.signed(float(top['value']))}, at {components.layer_name(int(top['layer']))}."
    )
    if int(top["layer"]) != run.catalogue.headline:
        words += " The largest of many layers is no test: the headline layer was declared in advance."
    return words


def _clicked() -> None:
    """Select the cell that was clicked."""
    event = st.session_state.get(_CHART)
    points = event["selection"]["points"] if event else []
    for point in points:
        spot = point.get("customdata")
        if spot is not None and len(spot) == 2 and all(math.isfinite(value) for value in spot):
            state.change(layer=int(spot[0]), step=int(spot[1]))


def _cell(run: Context) -> None:
    """The distribution of per-prompt projections at the chosen layer."""
    st.subheader(f"The prompts at {components.layer_name(run.layer)}", anchor=False)
    if not cache.has_table(run.key, "projections"):
        components.missing(
            "This run holds no projections yet.", f"gravity-probe measure --out {run.command_path} …",
            "Start the command that made the run again: it goes on where it stopped.",
        )  # fmt: skip
        return
    _distributions(run)


@st.fragment
def _distributions(run: Context) -> None:
    with components.section():  # an error in a fragment does not reach the section around it
        _draw_distributions(run)


def _draw_distributions(run: Context) -> None:
    steps = run.catalogue.steps[run.arm, run.seed]
    extra = st.pills(
        "Further steps", [step for step in steps if step != run.step], selection_mode="multi",
        format_func=lambda step: f"{step:,}", key="layers-steps",
    )  # fmt: skip
    names = {role: role for role in ("aligned", "witness", "pretrained")}
    names["witness"] = run.witness
    for step in sorted({run.step, *extra}):
        names[run.catalogue.checkpoints[run.arm, run.seed, step]] = f"{run.arm} {step:,}"
    table = cache.projected(run.key, run.layer, tuple(names))
    if table.empty:
        components.note(
            f"No projections are kept at the {components.layer_name(run.layer)}: the witness stands there where the "
            "aligned model stands, or the site is not a block's output."
        )
        return
    there = set(table["checkpoint"])
    chosen = tuple((checkpoint, name) for checkpoint, name in names.items() if checkpoint in there)
    figure = cache.projections_figure(run.key, run.layer, chosen, run.where(), run.ink)
    components.chart(
        figure, table.drop(columns="checkpoint"), name="projections",
        alt="Projections of harmful and harmless prompts on the reversion direction, one row a checkpoint",
    )  # fmt: skip
    _movers(run, table)


def _movers(run: Context, table: pd.DataFrame) -> None:
    """The prompts that moved most towards the witness between the aligned model and the chosen step."""
    name = run.catalogue.checkpoints[run.arm, run.seed, run.step]
    before = table[table["checkpoint"] == "aligned"].set_index("prompt")["projection"]
    after = table[table["checkpoint"] == name][["prompt", "label", "text", "projection"]]
    if before.empty or after.empty:
        return
    after = after.assign(moved=after["projection"] - after["prompt"].map(before))
    after = after.sort_values("moved", ascending=False)[["moved", "label", "text"]]
    st.markdown(f"Prompts by how far they moved, aligned → step {run.step:,}")
    st.dataframe(
        after, hide_index=True, height=300,
        column_config={
            "moved": st.column_config.NumberColumn("moved (return fraction)", format="%.3f", width="small"),
            "label": st.column_config.TextColumn("label", width="small"),
            "text": st.column_config.TextColumn("prompt", width="large"),
        },
    )  # fmt: skip


show(components.context())
