"""The figures that the app keeps between reruns, each drawn once for each state of the run and each choice."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app import cache
from app.cache import Key
from probes.plots import by_step, lineage_path, projections
from probes.plots.sheet import Sheet, unchecked
from probes.plots.style import InkName


def _function(draw: Callable[..., Any]) -> str:
    """A page's function by its file and name: pages run as scripts, in which every function is made anew."""
    return f"{draw.__code__.co_filename}:{draw.__qualname__}"


def figure(draw: Callable[..., go.Figure], key: Key, *about: Any) -> Sheet:
    """A page's figure, `draw(key, *about)`: drawn once for each state of the run and each choice in `about`."""
    return Sheet.of(_drawing(draw, key, *about))


@st.cache_data(show_spinner=False, max_entries=256, hash_funcs={FunctionType: _function})
def _drawing(draw: Callable[..., go.Figure], key: Key, *about: Any) -> dict[str, Any]:
    """A figure as plain dicts, which are kept and given back without Plotly's check of them."""
    with unchecked():
        return draw(key, *about).to_dict()


def step_figure(
    key: Key, layer: int, statistic: str, nulls_of: tuple[str, int] | None, subtitle: str, ink: InkName
) -> Sheet:
    """A statistic by step for every arm at one layer, with the nulls of one trajectory."""
    return figure(_draw_steps, key, layer, statistic, nulls_of, subtitle, ink)


def _draw_steps(
    key: Key, layer: int, statistic: str, nulls_of: tuple[str, int] | None, subtitle: str, ink: InkName
) -> go.Figure:
    rows = cache.drift(key, layer)
    trajectory_nulls = None
    if nulls_of is not None:
        trajectory_nulls = cache.tests(key, layer)
        of_trajectory = (trajectory_nulls["arm"] == nulls_of[0]) & (trajectory_nulls["seed"] == nulls_of[1])
        trajectory_nulls = trajectory_nulls[of_trajectory & (trajectory_nulls["statistic"] == statistic)]
    return by_step.by_step(
        rows[rows["statistic"] == statistic], statistic=statistic, subtitle=subtitle, nulls=trajectory_nulls, ink=ink
    )


def behaviour_figure(key: Key, measure: str, subtitle: str, ink: InkName) -> Sheet:
    """A behaviour measure by step for every arm."""
    return figure(_draw_behaviour, key, measure, subtitle, ink)


def _draw_behaviour(key: Key, measure: str, subtitle: str, ink: InkName) -> go.Figure:
    rows = cache.table(key, "behaviour", None, (("measure", "==", measure),))
    return by_step.by_step(rows, statistic=measure, subtitle=subtitle, ink=ink)


def lineage_figure(key: Key, layer: int, subtitle: str, witness: str, ink: InkName) -> Sheet:
    """The lineage to scale at one layer."""
    return figure(_draw_lineage, key, layer, subtitle, witness, ink)


def _draw_lineage(key: Key, layer: int, subtitle: str, witness: str, ink: InkName) -> go.Figure:
    return lineage_path.lineage_path(cache.lineage_rows(key, layer), subtitle=subtitle, witness=witness, ink=ink)


def projections_figure(
    key: Key, layer: int, checkpoints: tuple[tuple[str, str], ...], direction: str, subtitle: str, ink: InkName
) -> Sheet:
    """Densities and strips of chosen checkpoints at one layer, on the reversion or on another direction."""
    return figure(_draw_projections, key, layer, checkpoints, direction, subtitle, ink)


def _draw_projections(
    key: Key, layer: int, checkpoints: tuple[tuple[str, str], ...], direction: str, subtitle: str, ink: InkName
) -> go.Figure:
    rows = cache.read_projections(key, layer, tuple(checkpoint for checkpoint, _ in checkpoints), direction)
    return projections.projections(rows, checkpoints, subtitle=subtitle, direction=direction, ink=ink)
