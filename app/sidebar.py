"""The sidebar that all pages share: the run, and the place in it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import cache, state
from app.cache import Catalogue, Key
from app.components import COLUMNS, PICTURES, Context, choose, layer_name
from probes.plots.style import InkName
from probes.store import Manifest


def choose_run(names: Sequence[str], current: str) -> None:
    """Choose the run; another run begins with its own defaults."""

    def pick(name: str) -> None:
        state.change(run=name, arm="", seed=None, step=None, layer=None, direction="", first="", second="")

    choose("Run", names, current, pick, name="run")


def choose_place(catalogue: Catalogue, arm: str, seed: int, step: int, layer: int) -> None:
    """Choose trajectory, step and layer."""
    choose(
        "Trajectory",
        catalogue.trajectories,
        (arm, seed),
        lambda chosen: state.change(arm=chosen[0], seed=chosen[1]),
        name="trajectory",
        format_func=lambda chosen: f"{chosen[0]} · seed {chosen[1]}",
    )
    choose(
        "Layer",
        catalogue.layers,
        layer,
        lambda chosen: state.change(layer=chosen),
        name="layer",
        format_func=lambda number: layer_name(number).capitalize() + (" ★" if number == catalogue.headline else ""),
        help="★ the pre-registered layer: headline numbers are read there. −1 is the embedding.",
    )
    choose(
        "Step",
        catalogue.steps[arm, seed],
        step,
        lambda chosen: state.change(step=chosen),
        name="step",
        format_func=lambda number: f"{number:,}",
        help="Optimiser steps after the aligned model.",
    )


def choose_pictures() -> None:
    """Choose how a figure's own button saves it: format, width on paper, and light ink on a dark page too."""
    st.segmented_control("Save figures as", PICTURES, default=PICTURES[0], key="choose-pictures")
    st.segmented_control(
        "Columns",
        list(COLUMNS),
        default="Two",
        key="choose-columns",
        help="Width of a saved figure: for 89, 120 or 183 mm on paper, with type of the same size.",
    )
    if st.context.theme.type == "dark":
        st.toggle("Light ink", key="choose-light-ink", help="Draws the figures as on white paper, to save them.")


def resolve_selection(key: Key, manifest: Manifest, catalogue: Catalogue, ink: InkName) -> Context:
    """The selection with the run's defaults where it says nothing, or something that the run does not have."""
    chosen = state.selection()
    of_arm = [entry for entry in catalogue.trajectories if entry[0] == chosen.arm]
    arm, seed = next(
        (entry for entry in of_arm if entry[1] == chosen.seed), (of_arm or list(catalogue.trajectories))[0]
    )
    steps = catalogue.steps[arm, seed]
    step = chosen.step if chosen.step in steps else steps[-1]
    layer = chosen.layer if chosen.layer in catalogue.layers else catalogue.headline
    return Context(key, manifest, catalogue, arm, seed, int(step), int(layer), ink)


def catalogue_of(key: Key, manifest: Manifest) -> Catalogue | None:
    """What can be selected in a run; None while there is no drift to select from."""
    if not cache.has_table(key, "drift"):
        return None
    entries = cache.catalogue(key, manifest.config.get("headline_layer"))
    return entries if entries.trajectories else None
