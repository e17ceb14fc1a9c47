"""Statistics of the drift by step, the refusal probe at every checkpoint, and all numbers, as parts of pages."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import cache, cached_figures, charts, components, tables, widgets
from app.components import Context
from probes.drift import WITHOUT_WITNESS
from probes.lineage import ROLES
from probes.plots import style
from probes.plots.by_step import ISOTROPIC
from probes.statistics import null_name, percent, statistic_of
from probes.store import csv_text

_ESTIMATES = {
    "cross-fitted": ("alignment_crossfit", "return_fraction"),
    "plain": ("alignment", "return_fraction"),
    "differences": ("did_alignment", "did_return_fraction"),
}
_NULL_COLUMNS = {
    "power": st.column_config.NumberColumn(help="At the headline layer of the last step."),
    "p": st.column_config.NumberColumn(help="One-sided; small where this null hardly ever reaches as far."),
}


def by_step(run: Context) -> None:
    """Alignment and return fraction by step."""
    st.header("Step by step", anchor=False)
    kind = widgets.ESTIMATE.control(
        "Estimate",
        help="Cross-fitted: no prompt is used for both vectors; the nulls are those of this estimate. "
        "Harmful − harmless (difference-in-differences): cancels a shift that is common to all prompts.",
    )
    alignment, fraction = _ESTIMATES[kind]
    with components.section():
        _chart(run, alignment, (run.arm, run.seed))
    _null_note(run)
    with components.section():
        _chart(run, fraction, (run.arm, run.seed))


def _null_note(run: Context) -> None:
    """Whose nulls are drawn with the alignment, and a table of all, with those that judge another statistic."""
    null_rows = cache.nulls(run.key, run.layer)
    if null_rows.empty and cache.has_table(run.key, "nulls"):
        components.note(f"No null was computed at {components.layer_name(run.layer)}.")
        return
    if null_rows.empty:
        components.missing("This run holds no nulls yet.", f"gravity-probe verdict {run.command_path}")
        return
    if set(null_rows["null"].unique()) <= {ISOTROPIC}:
        components.note(
            "Only the isotropic null was made. It is not shown alone: it cannot fail in a real activation space."
        )
        return
    components.note(f"The nulls drawn are those of {run.trajectory}, chosen in the sidebar.")
    chosen = null_rows[
        (null_rows["arm"] == run.arm) & (null_rows["seed"] == run.seed) & (null_rows["step"] == run.step)
    ]
    _all_nulls(f"Every null of {run.trajectory} at step {run.step:,}", chosen)


@st.fragment
def _all_nulls(title: str, chosen: pd.DataFrame) -> None:
    """A fold whose table is made and sent to the browser only when it is opened."""
    fold = st.expander(components.as_text(title), key="every-null", on_change="rerun")
    if not fold.open:
        return
    with fold:
        columns = ["null", "statistic", "observed", "limit", "draws", "p", "power", "note"]
        forms = {"p": "{:.3g}".format, "power": percent}
        tables.table(_in_words(chosen[columns]), forms=forms, column_config=_NULL_COLUMNS)


def _in_words(nulls: pd.DataFrame) -> pd.DataFrame:
    """Nulls and statistics by their names in words."""
    titles = {name: statistic_of(name).title for name in nulls["statistic"].unique()}
    return nulls.assign(null=nulls["null"].map(null_name), statistic=nulls["statistic"].map(titles))


def _chart(run: Context, statistic: str, nulls_of: tuple[str, int] | None) -> None:
    """One statistic by step for every arm, with the nulls of one trajectory; why, where it is not defined."""
    rows = cache.drift(run.key, run.layer)
    data = rows[rows["statistic"] == statistic].drop(columns=["statistic", "layer"])
    if says_undefined(run, data, statistic):
        return
    figure = cached_figures.step_figure(run.key, run.layer, statistic, nulls_of, run.subtitle(), run.ink)
    charts.chart(figure, data, name=statistic, alt=f"{statistic} by optimiser step for every arm")


def says_undefined(run: Context, rows: pd.DataFrame, statistic: str) -> bool:
    """Whether no fine-tuned checkpoint has a value, which is then said, with the reason, instead of empty axes."""
    own = rows[~rows["arm"].isin(ROLES)]
    if own["value"].notna().any():
        return False
    reasons = own["reason"].dropna()
    why = f": {reasons.iloc[-1]}" if len(reasons) else ""
    components.note(f"{statistic_of(statistic).title} is not defined at {components.layer_name(run.layer)}{why}.")
    return True


def steps_without_witness(run: Context) -> None:
    """Length and reliability of the displacement by step: what needs no witness."""
    for statistic in WITHOUT_WITNESS[:2]:
        _chart(run, statistic, None)


def probe_section(run: Context) -> None:
    """The refusal probe's four numbers at every checkpoint of the layer, with how far they can be trusted."""
    if not cache.has_table(run.key, "probe"):
        return
    rows = cache.table(run.key, "probe", None, (("layer", "==", run.layer),))
    if rows.empty:
        return
    st.header(f"Refusal probe at {components.layer_name(run.layer)}", anchor=False)
    components.note(
        "Cosine to the aligned model's direction, AUROC of its probe here and of a refitted one, gap of the class "
        "means. They need not track behaviour, and in a real run they did not (data/docs/directions.md)."
    )
    titles = {"auroc": "AUROC, kept", "refit": "AUROC, refitted", "norm": "gap"}
    tables.data_table(rows[["arm", "seed", "step", "cosine", *titles]], name="probe", column_config=titles)


def all_numbers(run: Context) -> None:
    """Every number of the layer in one table; nothing where none is defined."""
    rows = cache.drift(run.key, run.layer)
    if rows["value"].isna().all():
        return
    st.header(f"All numbers at {components.layer_name(run.layer)}", anchor=False)
    names = ["arm", "seed", "step"]
    wide = rows.pivot_table(index=names, columns="statistic", values="value", sort=False).reset_index()
    rank = {arm: place for place, arm in enumerate(style.in_order(wide["arm"]))}
    wide = wide.sort_values(names, key=lambda column: column.map(rank) if column.name == "arm" else column)
    titles: dict[str, Any] = {name: statistic_of(name).title for name in wide.columns[3:]}
    widest = max((len(str(arm)) for arm in wide["arm"].unique()), default=0)
    titles["arm"] = st.column_config.TextColumn(width=32 + 8 * widest, pinned=True)
    tables.table(wide, height=420, column_config=titles)
    components.download(
        "Download with intervals (CSV)", lambda: csv_text(rows), f"drift-layer{run.layer}.csv", "text/csv"
    )
