"""Well: −log density of harmful prompts in the plane of the way back, with every arm's path laid into it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components, wells, widgets
from app.cache import Key
from app.components import Context
from probes.errors import RunFolderError
from probes.plots import well, well_depth
from probes.plots.browser import find_browser, to_gif
from probes.plots.displacement_by_layer import evenly
from probes.plots.style import InkName
from probes.plots.well_steps import step_by_step


def show(run: Context) -> None:
    """Draw the page."""
    if not run.has_witness:
        components.without_witness(run, "Well", "A well lies between the aligned model and a witness.")
        return
    lacking = wells.lacking(run)
    if lacking:
        components.header("Well", "The wells have not been measured yet")
        components.missing(
            f"This run holds no {lacking[0]}.parquet.",
            f"gravity-probe measure --out {run.command_path} …",
            "Rerun the command that made the run: it resumes where it stopped.",
        )
        return
    density = wells.density(run.key, run.layer)
    components.header("Well", *_answer(run, density, cache.plane_rows(run.key, run.layer)))
    view = widgets.WELL.control("View", label_visibility="collapsed")
    if view == "layers":
        _all_layers(run)
    elif density is None:
        components.note(f"There is nothing to draw at {components.layer_name(run.layer)}; choose another layer.")
    else:
        wells.draw(run, view)
        if view == "surface":
            components.note("Drag to rotate; the view is kept.")
        _offer_animation(run)


def _answer(run: Context, density: well_depth.Well | None, paths: pd.DataFrame) -> tuple[str, str]:
    """How many basins there are at the layer, and how deep the selected checkpoint's mean lies in them."""
    at = components.layer_name(run.layer)
    if density is None and paths.empty:
        return f"No well at {at}", components.no_plane(run)
    if density is None:
        return f"No well at {at}", "A density needs at least eight harmful prompts of the models on both sides."
    basins = "One basin" if density.basins == 1 else f"{density.basins} basins"
    own = paths[(paths["arm"] == run.arm) & (paths["seed"] == run.seed) & (paths["step"] == run.step)]
    lead = "Deep is where harmful prompts are dense: those of the aligned model, and those of the models before it."
    if len(own):
        depth = float(density.depth_at(own["along"].iloc[:1], own["across"].iloc[:1])[0])
        words = (
            "where hardly any prompt lies"
            if depth >= well_depth.CEILING
            else f"{depth:.1f} nats above the deepest place"
        )
        lead += f" {run.trajectory.capitalize()}, step {run.step:,}, lies {words}."
    return f"{basins} at {at}", lead


def _offer_animation(run: Context) -> None:
    """The well step by step as a GIF, drawn when it is asked for: that takes some seconds."""
    browser = find_browser()
    if browser is None:
        components.note("With Chromium installed on the app's machine, the steps can be saved here as an animation.")
        return
    place = (run.key, run.layer, run.subtitle(), run.witness, run.ink)
    components.download(
        "Step by step (GIF)",
        lambda: _animation(*place, browser),
        f"{components.file_name('well-steps')}.gif",
        "image/gif",
        key="well-steps",
        type="tertiary",
        icon=":material/animation:",
        help="Drawn when you ask for it, in some seconds.",
    )


@st.cache_data(show_spinner=False, max_entries=4)
def _animation(key: Key, layer: int, subtitle: str, witness: str, ink: InkName, browser: str) -> bytes:
    frames = step_by_step(
        wells.harmful_prompts(key, layer), cache.plane_rows(key, layer), subtitle=subtitle, witness=witness, ink=ink
    )
    animation = to_gif(frames, browser)
    if not animation:
        raise RunFolderError("The animation could not be drawn", got="nothing from Chromium", next_step="Try again.")
    return animation


def _all_layers(run: Context) -> None:
    paths = cache.table(run.key, "maps/plane")
    layers = sorted({int(layer) for layer in paths["layer"].unique()})
    shown = evenly(layers, run.layer, run.catalogue.headline)
    figure = cached_figures.figure(
        _layers_figure, run.key, tuple(shown), run.subtitle(layer=False), run.catalogue.headline, run.ink
    )
    charts.chart(figure, paths, name="well-layers", alt="The density of harmful prompts at every layer")
    if len(shown) < len(layers):
        components.note(f"{len(shown)} of {len(layers)} layers, with the selected and the headline layer.")


def _layers_figure(key: Key, layers: tuple[int, ...], subtitle: str, headline: int, ink: InkName) -> go.Figure:
    return well.multiples(
        wells.harmful_prompts(key, *layers),
        cache.table(key, "maps/plane"),
        layers=layers,
        subtitle=subtitle,
        headline=headline,
        ink=ink,
    )


show(components.context())
