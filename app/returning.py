"""Behaviour by step and against the return fraction, as a part of the pages Overview and Behaviour."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go

from app import cache, cached_figures, charts, components
from app.cache import Key
from app.components import Context
from probes.lineage import ROLES
from probes.plots import behaviour
from probes.plots.style import InkName
from probes.statistics import statistic_of

RATES = ("harmful_compliance", "refusal_harmful")  # of generated answers; the first that was measured is shown first
COLUMNS = ("checkpoint", "arm", "seed", "step", "measure", "value", "low", "high", "n")


def first_rate(measured: Iterable[str]) -> str | None:
    """The rate that is shown first; None where no answers were judged."""
    known = set(measured)
    return next((name for name in RATES if name in known), None)


def by_step(run: Context, measure: str) -> None:
    """A measure by step, for every arm."""
    rows = cache.table(run.key, "behaviour", COLUMNS, (("measure", "==", measure),))
    if rows["value"].notna().sum() == 0:
        components.note(f"{statistic_of(measure).title} is not defined for any checkpoint.")
        return
    figure = cached_figures.behaviour_figure(run.key, measure, run.subtitle(layer=False, direction=False), run.ink)
    charts.chart(figure, rows, name="behaviour", alt=f"{measure} by optimiser step for every arm")


def against_return(run: Context, measure: str) -> None:
    """A measure against the return fraction at the selected layer."""
    if not run.has_witness:
        components.note("Against the return fraction: not defined, no witness.")
        return
    joined = _join_tables(run.key, run.layer, measure)
    if set(joined["arm"].unique()) <= set(ROLES):
        components.note(f"No return fraction of a judged checkpoint at {components.layer_name(run.layer)}.")
        return
    figure = cached_figures.figure(_figure, run.key, run.layer, measure, run.subtitle(), run.witness, run.ink)
    charts.chart(figure, joined, name="behaviour-return", alt=f"{measure} against the return fraction")


def _join_tables(key: Key, layer: int, measure: str) -> pd.DataFrame:
    """The measure and the return fraction of every checkpoint; the aligned model stands at 0 by definition."""
    rows = cache.table(key, "behaviour", COLUMNS, (("measure", "==", measure),))
    drift = cache.drift(key, layer)
    fraction = drift[drift["statistic"] == "return_fraction"].set_index("checkpoint")["value"]
    fractions = rows["checkpoint"].map(fraction).where(rows["arm"] != "aligned", 0.0)
    return rows.assign(fraction=fractions.astype(float)).dropna(subset=["fraction", "value"])


def _figure(key: Key, layer: int, measure: str, subtitle: str, witness: str, ink: InkName) -> go.Figure:
    return behaviour.behaviour(
        _join_tables(key, layer, measure), measure=measure, subtitle=subtitle, witness=witness, ink=ink
    )
