"""Manifold: every prompt at a layer in one map, fitted once, with every checkpoint placed in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, components, in_turn, pair, prompt_rows, widgets, workbench
from app.cache import Key
from app.components import Context
from probes.errors import RunFolderError
from probes.plots import manifold
from probes.plots.clouds import Colour, Drawing
from probes.plots.map_pair import set_beside
from probes.plots.style import InkName


@dataclass(frozen=True)
class _Map:
    """Which map is drawn, in how many dimensions, and the names of all that the run holds."""

    method: str
    fit: str
    axes: int
    known: frozenset[str]

    def name(self, layer: int) -> str:
        """Name of its table at a layer."""
        return f"maps/{self.method}-{self.fit}-layer{layer}"


def show(run: Context) -> None:
    """Draw the page."""
    names = _map_names(run.key.path)
    first = _first_map(names)
    method, fit = widgets.MAP.chosen(first[0]), widgets.FITTED.chosen(first[1])
    axes = 3 if widgets.AXES.chosen() == "3d" else 2
    name = f"maps/{method}-{fit}-layer{run.layer}"
    about = cache.document(run.key, name) if name in names else None
    if about is None:
        components.header("Manifold", "This map has not been made yet")
        _controls_of_map(*first)
        _offer(run, method, fit, names)
        return
    if not isinstance(about, dict) or "trustworthiness" not in about:
        raise RunFolderError(f"{name}.json is not as expected", next_step="Make it again: gravity-probe map RUN.")
    kept_well = float(about["trustworthiness"][str(axes)])
    components.header(
        "Manifold",
        f"{len(_place(run.key, name)):,} checkpoints in one map of {components.layer_name(run.layer)}",
        f"The {widgets.MAP.options[method]} map keeps neighbours with a trustworthiness of {kept_well:.3f} in "
        f"{axes}-D ({about['neighbours']} neighbours, seed {about['seed']}). {_reading(kept_well)}",
    )
    with components.section():
        _map(run, _Map(method, fit, axes, frozenset(names)))
    in_turn.pause()
    st.header("Another map", anchor=False)
    _controls_of_map(*first)


def _reading(trust: float) -> str:
    if trust >= 0.95:
        return "Points that are close in the map are close in the activations."
    return "Some neighbours in the map are no neighbours in the activations: trust the overall shape, not the details."


def _map_names(path: str) -> list[str]:
    return sorted(f"maps/{file.stem}" for file in Path(path, "maps").glob("*-layer*.parquet"))


def _first_map(names: list[str]) -> tuple[str, str]:
    """Method and fit of the map that is shown at first: one that is there."""
    first = "umap" if any("umap" in name for name in names) and not any("pca" in name for name in names) else "pca"
    fitted = "all" if names and not any("-roles-" in name for name in names) else "roles"
    return first, fitted


def _controls_of_map(first: str, fitted: str) -> None:
    left, two, three = st.columns([2, 2, 3])
    with left:
        widgets.MAP.control(
            "Method",
            default=first,
            help="PCA: directions of highest variance, distances to scale. UMAP: neighbourhoods preserved, distances "
            "not.",
        )
    with two:
        widgets.AXES.control("Axes")
    with three:
        widgets.FITTED.control(
            "Fitted on", default=fitted, help="Every checkpoint is placed in the fitted map either way."
        )


def _offer(run: Context, method: str, fit: str, names: list[str]) -> None:
    if run.layer < 0:
        components.note(
            "Maps are made from the outputs of blocks, not from the embedding. Choose a layer in the sidebar."
        )
        return
    more = "" if fit == "roles" else " --fit all"
    components.missing(
        f"This run holds no {widgets.MAP.options[method]} map of {components.layer_name(run.layer)}"
        + (", fitted on every checkpoint." if more else "."),
        f"gravity-probe map {run.command_path} --layer {run.layer} --method {method}{more}",
        "Without --layer, it makes the PCA maps of all layers, and the UMAP maps of a small model's. "
        "The activations must still be in the run folder.",
    )
    if names:
        components.note(f"{len(names)} other maps are there: choose another layer, or another map above.")


_POINT = ("checkpoint", "arm", "seed", "step", "prompt", "label", "x", "y", "x3", "y3", "z3")


@st.cache_resource(show_spinner=False, max_entries=4)
def _points(key: Key, name: str) -> pd.DataFrame:
    """A whole map, in one table for all who read it."""
    return cache.table(key, name, _POINT)


def _place(key: Key, name: str) -> tuple[str, ...]:
    return tuple(_points(key, name)["checkpoint"].unique())


@st.fragment
def _map(run: Context, place: _Map) -> None:
    with components.section():
        shown, drawing, drag = _controls_of_drawing(run, place)
        names = _chosen(run, shown)
        rows = _rows(run.key, place.name(run.layer), names)
        _notes(run, rows, names)
        beside = _beside(run, place)
        with st.container(key="workbench"):
            if beside is not None:
                _chart(run, place, drawing, drag, names, rows, beside)
                workbench.cards(run, flat=place.axes == 2)
            else:
                left, right = st.columns([5, 3], gap="medium")
                with left:
                    _chart(run, place, drawing, drag, names, rows, None)
                with right:
                    st.header("Prompts", anchor=False)
                    workbench.cards(run, flat=place.axes == 2)
        if not in_turn.is_whole():  # a button of this fragment would draw no more than the fragment
            return
        st.header("Prompts of the two checkpoints", anchor=False)
        pair.controls(run)
        workbench.table(run)


def _notes(run: Context, rows: pd.DataFrame, names: tuple[str, ...] | None) -> None:
    if len(rows) > manifold.AT_MOST:
        components.note(
            f"{len(rows):,} points are too many for a browser: they are thinned to at most {manifold.AT_MOST:,}, "
            "evenly in every checkpoint and class."
        )
    if names and run.checkpoint in set(names) - set(rows["checkpoint"].unique()):
        components.note(f"The activations of {run.trajectory}, step {run.step:,}, were not kept: it is not in the map.")


def _beside(run: Context, place: _Map) -> str | int | None:
    """What is set side by side: `checkpoints`, or the other layer; None: nothing is."""
    kind = widgets.BESIDE.chosen()
    if kind != "layers":
        return None if kind == "none" else kind
    layers = [layer for layer in run.catalogue.layers if place.name(layer) in place.known and layer != run.layer]
    if not layers:
        components.note("This run holds such a map of one layer only.")
        return None
    last = str(layers[-1])
    choice = widgets.OneOf("second_layer", {str(layer): components.layer_name(layer) for layer in layers})
    with st.columns([3, 2, 2])[1]:
        return int(choice.control("Other layer", default=last, widget=st.selectbox))


def _chart(
    run: Context,
    place: _Map,
    drawing: Drawing,
    drag: str,
    names: tuple[str, ...] | None,
    rows: pd.DataFrame,
    beside: str | int | None,
) -> None:
    compared_pair = pair.current_pair(run)
    compared = (run.layer, compared_pair, pair.names(run, compared_pair))
    subtitle = run.subtitle(direction=False, layer=not isinstance(beside, int))
    about: tuple[Any, ...] = (compared, (run.arm, run.seed), subtitle, run.witness, run.ink)
    if beside is None:
        figure = cached_figures.figure(_figure, run.key, place.name(run.layer), names, drawing, *about)
    elif isinstance(beside, int):
        layers = (run.layer, beside)
        maps = (place.name(run.layer), place.name(beside))
        titles = tuple(
            _title_beside(run.key, layer, name, place.axes) for layer, name in zip(layers, maps, strict=True)
        )
        figure = cached_figures.figure(_pair_figure, run.key, maps, (names, names), titles, drawing, *about)
    else:
        maps = (place.name(run.layer),) * 2
        figure = cached_figures.figure(
            _pair_figure, run.key, maps, tuple((name,) for name in compared_pair), compared[2], drawing, *about
        )
    moving = "-moving" if drawing.moving else ""
    workbench.chart(
        run,
        figure,
        rows,
        name=f"manifold-{place.axes}{'-pair' if beside is not None else ''}{moving}",
        modes=_MODES[place.axes],
        drag=drag,
        alt="Every prompt of the chosen checkpoints in the map",
    )


def _title_beside(key: Key, layer: int, name: str, axes: int) -> str:
    """What stands above one of two layers: each map keeps its neighbours more or less well."""
    kept_well = float(cache.document(key, name)["trustworthiness"][str(axes)])
    return f"{components.layer_name(layer).capitalize()}, trustworthiness {kept_well:.3f}"


_MODES = {
    2: workbench.MODES,
    3: ("toImage", "orbitRotation", "pan3d", "zoom3d", "resetCameraDefault3d"),
}


def _controls_of_drawing(run: Context, place: _Map) -> tuple[str, Drawing, str]:
    """Which checkpoints are shown, how, and what dragging does."""
    first, second, third = st.container(key="map-shown").columns([3, 2, 2])
    with first:
        shown = widgets.SHOWN.control("Shown")
    with second:
        single = widgets.BESIDE.control("Side by side", widget=st.selectbox) == "none"
    with third:
        colour = widgets.COLOUR.control("Colour", widget=st.selectbox)
    marks = st.columns(4)
    with marks[0]:
        contours = widgets.CONTOURS.control("Contours", disabled=place.axes == 3)
    with marks[1]:
        # UMAP keeps no directions: there is no way back to be drawn in it.
        arrow = place.method == "pca" and run.has_witness and widgets.ARROW.control("Way back")
    with marks[2]:
        moving = widgets.PLAY.control(
            "Play steps",
            disabled=shown == "step" or not single,
            help="One step at a time, with fixed axes; show a trajectory or everything first.",
        )
    with marks[3]:
        trails = widgets.TRAILS.control(
            "Trails", help="Single prompts, step by step: those selected, else the eight that moved furthest."
        )
    drag = workbench.pointer() if place.axes == 2 else "move"
    moving = moving and shown != "step" and single
    prompts = workbench.foremost(run) if trails else ()
    return shown, Drawing(place.axes, cast(Colour, colour), contours, arrow, moving, prompts), drag


def _chosen(run: Context, shown: str) -> tuple[str, ...] | None:
    """The checkpoints to be shown; None: all."""
    if shown == "everything":
        return None
    roles = ("aligned", *(["witness"] if run.has_witness else []))
    if shown == "step":
        return tuple(dict.fromkeys((*roles, *pair.current_pair(run), run.checkpoint)))
    steps = run.catalogue.steps[run.arm, run.seed]
    return (*roles, *(run.catalogue.checkpoints[run.arm, run.seed, step] for step in steps))


def _rows(key: Key, name: str, checkpoints: tuple[str, ...] | None) -> pd.DataFrame:
    rows = _points(key, name)
    if checkpoints:
        rows = rows[rows["checkpoint"].isin(checkpoints)].reset_index(drop=True)
    return rows.assign(text=cache.texts(key, rows["prompt"]))


def _trajectory_rows(key: Key, name: str, trajectory: tuple[str, int]) -> pd.DataFrame:
    """The places of the aligned model and of every checkpoint of one trajectory."""
    rows = _points(key, name)
    is_its_own = (rows["arm"] == trajectory[0]) & (rows["seed"] == trajectory[1])
    return rows[is_its_own | (rows["arm"] == "aligned")]


def _whole(key: Key, name: str, axes: tuple[str, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """Every place of the arms that are shown, at any step: the axes stay while steps change, and leave the rest out."""
    every = _points(key, name)[["arm", *axes]]
    return every[every["arm"].isin(rows["arm"].unique())]


def _figure(
    key: Key,
    name: str,
    checkpoints: tuple[str, ...] | None,
    drawing: Drawing,
    compared: tuple[int, tuple[str, str], tuple[str, str]],
    trajectory: tuple[str, int],
    subtitle: str,
    witness: str,
    ink: InkName,
) -> go.Figure:
    layer, compared_pair, names = compared
    axes = ("x", "y") if drawing.axes == 2 else ("x3", "y3", "z3")
    rows = _rows(key, name, checkpoints)
    rows = workbench.hovers(rows, key, compared_pair, names)
    if drawing.colour in ("flip", "topic"):
        prompts = prompt_rows.words(key, compared_pair)
        rows = rows.assign(**{drawing.colour: rows["prompt"].map(prompts.set_index("prompt")[drawing.colour])})
    if drawing.colour == "projection":
        rows = prompt_rows.with_projections(key, layer, rows)
    return manifold.manifold(
        rows,
        cache.document(key, name),
        drawing=drawing,
        subtitle=subtitle,
        witness=witness,
        whole=_whole(key, name, axes, rows),
        trails=_trajectory_rows(key, name, trajectory) if drawing.trails else None,
        ink=ink,
    )


def _pair_figure(
    key: Key,
    maps: tuple[str, str],
    checkpoints: tuple[tuple[str, ...] | None, tuple[str, ...] | None],
    titles: tuple[str, str],
    drawing: Drawing,
    *about: Any,
) -> go.Figure:
    left, right = (_figure(key, name, names, drawing, *about) for name, names in zip(maps, checkpoints, strict=True))
    return set_beside(left, right, titles, about[-1], one_map=maps[0] == maps[1])


show(components.context())
