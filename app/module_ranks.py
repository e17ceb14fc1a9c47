"""BaRA's ranks at the chosen checkpoint: by module, and on harmful against harmless prompts."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components
from app.cache import Key
from app.components import Context
from probes.plots import module_ranks as ranks
from probes.plots.module_ranks import Rank
from probes.plots.style import InkName

_TABLE = "active_ranks"
_ALT: dict[Rank, str] = {
    "open": "Rank that the gates leave open, by module and layer",
    "difference": "Active rank on harmful minus that on harmless prompts, by module and layer",
}


def show_ranks(run: Context) -> None:
    """Draw both maps, where the run has a BaRA adapter at the chosen checkpoint."""
    if not cache.has_table(run.key, _TABLE):
        return
    place = (run.arm, run.seed, run.step)
    rows = cache.table(run.key, _TABLE, None, _filters(*place))
    if rows.empty:
        return
    st.header(f"Ranks of the adapter, step {run.step:,}", anchor=False)
    subtitle = run.subtitle(layer=False, direction=False)
    for rank, alt in _ALT.items():
        about = (place, rank, subtitle, run.catalogue.headline, run.ink)
        figure = cached_figures.figure(_figure, run.key, *about)
        charts.chart(figure, rows.drop(columns=["checkpoint"]), name=f"ranks-{rank}", alt=alt)
    means = rows[["harmful", "harmless"]].mean()
    if means.isna().any():
        return
    components.note(
        f"On average over the modules, {means['harmful']:.2f} terms are active on harmful prompts and "
        f"{means['harmless']:.2f} on harmless ones, of {rows['terms'].mean():.1f}."
    )


def _filters(arm: str, seed: int, step: int) -> cache.Filters:
    return (("arm", "==", arm), ("seed", "==", seed), ("step", "==", step))


def _figure(key: Key, place: tuple[str, int, int], rank: Rank, subtitle: str, headline: int, ink: InkName) -> go.Figure:
    rows = cache.table(key, _TABLE, None, _filters(*place))
    return ranks.module_ranks(rows, rank, subtitle=subtitle, headline=headline, ink=ink)
