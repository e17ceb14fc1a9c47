"""The well of one layer, as a part of the pages Overview and Well."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts
from app.cache import Key
from app.components import Context
from probes.lineage import ROLES
from probes.plots import well, well_depth, well_surface
from probes.plots.style import InkName

TABLES = ("maps/plane", "projections")
_IN_SPACE = ("toImage", "orbitRotation", "pan3d", "resetCameraDefault3d")


def lacking(run: Context) -> list[str]:
    """The tables that a well is drawn from and the run does not hold."""
    return [name for name in TABLES if not cache.has_table(run.key, name)]


def harmful_prompts(key: Key, *layers: int) -> pd.DataFrame:
    """The harmful prompts' places in the models on both sides; without the way across, none."""
    if "across" not in cache.columns(key, "projections"):
        return pd.DataFrame(columns=["arm", "label", "projection", "across", "layer"])
    names = ("arm", "label", "layer", "projection", "across")
    filters = (("layer", "in", list(layers)), ("arm", "in", list(ROLES)), ("label", "==", "harmful"))
    return cache.table(key, "projections", names, filters)


@st.cache_data(show_spinner=False, max_entries=64)
def density(key: Key, layer: int) -> well_depth.Well | None:
    """The density at a layer; None where there are too few prompts for one."""
    prompts, paths = harmful_prompts(key, layer), cache.plane_rows(key, layer)
    if prompts.empty or paths.empty:
        return None
    wide, high, _ = well.limits_of(prompts, paths, 1.5)
    return well_depth.make_well(prompts, wide, high)


@st.cache_data(show_spinner=False, max_entries=64)
def _has_well(key: Key, layer: int) -> bool:
    return not cache.plane_rows(key, layer).empty and well_depth.has_well(harmful_prompts(key, layer))


def draw(run: Context, view: str) -> None:
    """The well of the selected layer, as a `surface` or as `contours`; nothing where there is no density."""
    if not _has_well(run.key, run.layer):
        return
    space = view == "surface"
    figure = cached_figures.figure(_figure, run.key, run.layer, view, run.subtitle(), run.witness, run.ink)
    charts.chart(
        figure,
        harmful_prompts(run.key, run.layer).drop(columns=["checkpoint", "layer"], errors="ignore"),
        name="well-surface" if space else "well-contours",
        modes=_IN_SPACE if space else ("toImage",),
        alt="Density of harmful prompts along the way back and across it, with every arm's path",
    )


def _figure(key: Key, layer: int, view: str, subtitle: str, witness: str, ink: InkName) -> go.Figure:
    picture = well_surface.surface if view == "surface" else well.contour
    prompts, paths = harmful_prompts(key, layer), cache.plane_rows(key, layer)
    return picture(prompts, paths, subtitle=subtitle, witness=witness, ink=ink)
