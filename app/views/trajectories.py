"""Trajectories: each arm's path away from the aligned model, in the plane, in space, and by step."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components, forecast_against, in_turn, stepping, widgets
from app.cache import Key
from app.components import Context
from probes.lineage import MIRROR, ROLES
from probes.plots import style, trajectories
from probes.plots.style import InkName


def show(run: Context) -> None:
    """Draw the page."""
    if not run.has_witness:
        components.without_witness(run, "Trajectories", "A path runs between the aligned model and a witness.")
        return
    if cache.has_table(run.key, "maps/plane"):
        _in_the_plane(run)
    else:
        components.header("Trajectories", "The paths have not been computed yet")
        components.missing(
            "This run holds no maps/plane.parquet.",
            f"gravity-probe measure --out {run.command_path} …",
            "Rerun the command that made the run: it resumes where it stopped.",
        )
    in_turn.pause()
    stepping.by_step(run)
    with components.section():
        forecast_against.show(run)  # at a layer of its own
    for section in (stepping.probe_section, stepping.all_numbers):
        with components.section():
            section(run)


def _in_the_plane(run: Context) -> None:
    """The paths, and where the selected trajectory stands."""
    rows = cache.plane_rows(run.key, run.layer)
    components.header("Trajectories", *_answer(run, rows))
    if rows.empty:
        components.note(components.no_plane(run))
    else:
        _pictures(run, rows)


def _pictures(run: Context, rows: pd.DataFrame) -> None:
    view, moving = _controls()
    _paths(run, rows, view, moving)
    if view == "space":
        components.note("Drag to rotate; the view is kept.")
    elif not moving:
        components.note(f"The ring marks step {run.step:,}.")


def _controls() -> tuple[str, bool]:
    """Which picture, and whether it is played step by step."""
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        view = widgets.PATHS.control("View", label_visibility="collapsed")
    with right:
        moving = widgets.PLAY.control("Play steps", widget=st.toggle, help="Adds a play button and a slider of steps.")
    return view, moving


def _paths(run: Context, rows: pd.DataFrame, view: str, moving: bool) -> None:
    arms = widgets.arms(run, without=(MIRROR,) if view == "length" else ())
    step, subtitle = None if moving else run.step, run.subtitle()
    figure = cached_figures.figure(
        _figure, run.key, run.layer, view, arms, step, moving, subtitle, run.witness, run.ink
    )
    modes = ("toImage", "orbitRotation", "pan3d", "resetCameraDefault3d") if view == "space" else ("toImage",)
    if view == "length":
        data = _whole(run.key, run.layer).rename(columns={"across": "off_axis"})
    else:
        data = rows.drop(columns=["checkpoint", "layer"])
    charts.chart(
        figure,
        data,
        name=f"trajectories-{view}{'-moving' if moving else ''}",
        modes=modes,
        alt="Paths of every arm; aligned at the origin, witness at one along the way back",
    )


def _figure(
    key: Key,
    layer: int,
    view: str,
    arms: tuple[str, ...],
    step: int | None,
    moving: bool,
    subtitle: str,
    witness: str,
    ink: InkName,
) -> go.Figure:
    whole = view == "length"
    rows = _whole(key, layer) if whole else cache.plane_rows(key, layer)
    rows = rows[rows["arm"].isin([*ROLES, *arms])]
    if view == "space":
        return trajectories.space(rows, subtitle=subtitle, witness=witness, step=step, moving=moving, ink=ink)
    return trajectories.plane(rows, subtitle=subtitle, witness=witness, step=step, whole=whole, moving=moving, ink=ink)


def _whole(key: Key, layer: int) -> pd.DataFrame:
    """Return fraction and the whole off-axis length of every checkpoint, in the columns of the plane."""
    rows = cache.drift(key, layer)
    rows = rows[(rows["arm"] != MIRROR) & rows["statistic"].isin(["return_fraction", "off_axis"])]
    wide = rows.pivot_table(index=["arm", "seed", "step"], columns="statistic", values="value")
    wide = wide.reindex(columns=["return_fraction", "off_axis"]).reset_index()  # neither, where none is defined
    wide = wide.rename(columns={"return_fraction": "along", "off_axis": "across"})
    return wide[["arm", "seed", "step", "along", "across"]].dropna()


def _answer(run: Context, rows: pd.DataFrame) -> tuple[str, str]:
    """Where the selected trajectory stands: as a heading, and one sentence more."""
    drift, plane = (
        table[(table["arm"] == run.arm) & (table["seed"] == run.seed) & (table["step"] == run.step)]
        for table in (_whole(run.key, run.layer), rows)
    )
    if drift.empty:
        return "Paths away from the aligned model", ""
    along, off = float(drift["along"].iloc[0]), float(drift["across"].iloc[0])
    lead = (
        f"Seed {run.seed} at step {run.step:,}, {components.layer_name(run.layer)}; both in units of the distance "
        "between the aligned model and the witness."
    )
    if len(plane):
        main = style.decimal(float(plane["across"].iloc[0]))
        lead += f" Of what lies off it, {main} is along the main off-axis direction, which plane and space show."
    return f"{run.arm.capitalize()}: {style.decimal(along)} of the way back, {style.decimal(off)} off it", lead


show(components.context())
