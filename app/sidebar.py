"""The sidebar that all pages share: the run, and the place in it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import cache, camera, playing, printing, state, widgets, zoom
from app.cache import Catalogue, Key
from app.components import Context, choose, layer_name
from app.widgets import NAMES, OF_A_RUN
from probes.plots.style import InkName
from probes.store import Manifest


def choose_run(names: Sequence[str], current: str) -> None:
    """Choose the run; another run begins with its own defaults."""

    def pick(name: str) -> None:
        of_run = dict.fromkeys(OF_A_RUN)
        view = tuple(entry for entry in state.selection().view if entry[0] not in of_run)
        state.change(run=name, arm="", seed=None, step=None, layer=None, direction="", first="", second="", view=view)

    choose("Run", names, current, pick, name="run")


def choose_place(catalogue: Catalogue, arm: str, seed: int, step: int, layer: int) -> None:
    """Choose trajectory, step and layer."""
    choose(
        "Trajectory",
        catalogue.trajectories,
        (arm, seed),
        lambda chosen: state.change(
            arm=chosen[0], seed=chosen[1], step=step if step in catalogue.steps[chosen] else None
        ),
        name="trajectory",
        format_func=lambda chosen: f"{chosen[0]} · seed {chosen[1]}",
    )
    _choose_layer(catalogue, layer)
    choose(
        "Step",
        catalogue.steps[arm, seed],
        step,
        lambda chosen: state.change(step=chosen),
        name="step",
        format_func=lambda number: f"{number:,}",
        help="Optimiser steps after the aligned model.",
    )


def _choose_layer(catalogue: Catalogue, layer: int) -> None:
    """Choose a layer, or step to the one before or behind; the arrow keys press the same buttons."""
    choose(
        "Layer",
        catalogue.layers,
        layer,
        lambda chosen: state.change(layer=chosen),
        name="layer",
        format_func=lambda number: layer_name(number).capitalize() + (" ★" if number == catalogue.headline else ""),
        help="★ the pre-registered layer: headline numbers are read there. −1 is the embedding. The left and right "
        "arrow keys step through the layers.",
    )
    at, columns = catalogue.layers.index(layer), st.columns(2)
    for column, label, key, target in (
        (columns[0], "Previous layer", "layer-previous", at - 1),
        (columns[1], "Next layer", "layer-next", at + 1),
    ):
        inside = 0 <= target < len(catalogue.layers)
        column.button(
            label,
            key=key,
            disabled=not inside,
            on_click=_go_to_layer,
            args=(catalogue.layers[target] if inside else layer,),
            width="stretch",
        )


def _go_to_layer(layer: int) -> None:
    state.change(layer=layer)
    state.write_url()


def share_link() -> None:
    """A button that copies the address, which is the whole view; `look.LINK` does it in the browser."""
    st.button("Copy link", key="copy-link", icon=":material/link:", type="tertiary", help="The link shows this view.")


def absences(ready: Context) -> list[str]:
    """What the address asks for and the run does not have, in sentences, with what is shown instead."""
    chosen, catalogue = state.selection(), ready.catalogue
    arms = {arm for arm, _ in catalogue.trajectories}
    seeds = {seed for arm, seed in catalogue.trajectories if arm == ready.arm}
    pairs = [
        (f"arm={chosen.arm}", not chosen.arm or chosen.arm in arms, ready.arm),
        (f"seed={chosen.seed}", chosen.seed is None or chosen.seed in seeds, f"seed {ready.seed} of {ready.arm}"),
        (
            f"step={chosen.step}",
            chosen.step is None or chosen.step in catalogue.steps[ready.arm, ready.seed],
            f"step {ready.step:,}",
        ),
        (f"layer={chosen.layer}", chosen.layer is None or chosen.layer in catalogue.layers, layer_name(ready.layer)),
    ]
    missing = [
        f"The address asks for {name}, which this run does not have; shown: {shown}."
        for name, is_there, shown in pairs
        if not is_there
    ]
    return [*missing, *chosen.unread, *_unknown_names(chosen), *_unread_views()]


def _unknown_names(chosen: state.Selection) -> list[str]:
    names = [name for name, _ in chosen.view if name not in NAMES]
    return [f"The address says {', '.join(names)}, which means nothing here."] if names else []


def _unread_views() -> list[str]:
    views = [(part.NAME, state.view(part.NAME), part.read) for part in (camera, zoom, playing)]
    return [
        f"The address asks for {name}={text[:60]}, which is no {name}."
        for name, text, read in views
        if text and not read(text)
    ]


def choose_pictures() -> None:
    """Choose how a figure's own button saves it: format, width on paper, and light ink on a dark page too."""
    widgets.SAVE.control(
        "Save figures as",
        help="The camera button of a figure saves it. SVG and PDF carry their fonts; a PDF is printed by the Chromium "
        "or Chrome of the machine that runs the app.",
    )
    printing.choose_pdf()
    widgets.COLUMNS.control(
        "Columns",
        default="2",
        help="Width of a saved figure: for 89, 120 or 183 mm on paper, with type of the same size.",
    )
    if st.context.theme.type == "dark":
        widgets.LIGHT_INK.control(
            "Light ink", widget=st.toggle, help="Draws the figures as on white paper, to save them."
        )


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
