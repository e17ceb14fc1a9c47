"""Trajectories: each arm's path away from the aligned model, in the plane and in space."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import cache, components
from app.components import Context
from probes.plots import style

_VIEWS = ("Plane", "Space")


def show(run: Context) -> None:
    """Draw the page."""
    if not cache.has_table(run.key, "maps/plane"):
        components.header("Trajectories", "The paths are not there yet")
        components.missing(
            "This run holds no maps/plane.parquet.", f"gravity-probe measure --out {run.command_path} …",
            "Start the command that made the run again: it goes on where it stopped.",
        )  # fmt: skip
        return
    rows = cache.plane_rows(run.key, run.layer)
    components.header("Trajectories", *_answer(run, rows))
    if rows.empty:
        components.note(
            f"There is no plane at the {components.layer_name(run.layer)}: the witness stands there where the aligned "
            "model stands, or the site is not a block's output. Choose another layer at the left."
        )
        return
    view = st.segmented_control(
        "View", _VIEWS, default=_VIEWS[0], key="trajectories-view", label_visibility="collapsed"
    )
    in_space = view == "Space"
    figure = cache.plane_figure(run.key, run.layer, in_space, run.step, run.where(), run.witness, run.ink)
    modes = ("toImage", "orbitRotation", "pan3d", "resetCameraDefault3d") if in_space else ("toImage",)
    components.chart(
        figure, rows.drop(columns=["checkpoint", "layer"]), name="space" if in_space else "plane", modes=modes,
        alt="Paths of every arm; aligned at the origin, witness at one along the way back",
    )  # fmt: skip
    components.note(f"The ring marks step {run.step:,}." if not in_space else "Drag to turn; the view is kept.")


def _answer(run: Context, rows: pd.DataFrame) -> tuple[str, str]:
    """Where the selected trajectory stands: as a heading, and one sentence more."""
    here = rows[(rows["arm"] == run.arm) & (rows["seed"] == run.seed) & (rows["step"] == run.step)]
    if here.empty:
        return "Paths away from the aligned model", ""
    along, across = float(here["along"].iloc[0]), float(here["across"].iloc[0])
    return (
        f"{run.arm.capitalize()}: {style.signed(along)} of the way back, {style.signed(abs(across))} off it",
        f"Seed {run.seed} at step {run.step:,}, {components.layer_name(run.layer)}; both in units of the distance "
        "between the aligned model and the witness, off it along the main off-axis direction.",
    )


show(components.context())
