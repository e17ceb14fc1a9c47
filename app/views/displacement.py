"""Displacement: where each checkpoint's mean went, how each prompt moved, and the same at every layer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components, in_turn, stepping, tables, widgets, workbench
from app.cache import Key
from app.components import Context
from probes.lineage import MIRROR, ROLES
from probes.plots import displacement, style
from probes.plots.displacement import Cone
from probes.plots.displacement_by_layer import evenly, multiples
from probes.plots.prompt_arrows import prompt_arrows
from probes.plots.style import InkName
from probes.statistics import limit_label, null_name

_PLACE = ("prompt", "label", "projection", "across", "text")


def show(run: Context) -> None:
    """Draw the page."""
    if not run.has_witness:
        _show_lengths(run)
        return
    rows = components_of(run.key, run.layer)
    own = rows[(rows["arm"] == run.arm) & (rows["seed"] == run.seed)]
    hardest = _hardest(run, run.step)
    cone = _cone(hardest)
    components.header("Displacement", *_answer(run, own, hardest))
    arms = widgets.arms(run, without=(MIRROR,))
    with components.section():
        if own["along"].notna().any():
            figure = cached_figures.figure(
                _figure,
                run.key,
                run.layer,
                arms,
                (run.arm, run.seed),
                run.step,
                cone,
                widgets.ACROSS.chosen() == "all",
                run.subtitle(),
                run.witness,
                run.ink,
            )
            charts.chart(figure, rows, name="displacement", alt="Mean displacements as arrows, and the null's cone")
        else:
            components.note(f"No displacement is defined at {components.layer_name(run.layer)}.")
    widgets.ACROSS.control("Off the way back")
    in_turn.pause()
    if len(own):
        with components.section():
            _table(own)
    _more(run, arms)


def _show_lengths(run: Context) -> None:
    """Without a witness a displacement has a length, and no way back that it could point along."""
    lead = "Along and off the way back are not defined. How far the mean of the harmful prompts went, and whether it "
    components.without_witness(run, "Displacement", lead + "agrees with itself, needs no witness:")
    with components.section():
        stepping.steps_without_witness(run)


@st.fragment
def _more(run: Context, arms: tuple[str, ...]) -> None:
    """One of the further pictures at a time: each takes its time to draw."""
    with components.section():
        if widgets.MORE.control("More views", label_visibility="collapsed") == "prompts":
            _prompts(run)
        else:
            _layers(run, arms)


@st.cache_data(show_spinner=False, max_entries=64)
def components_of(key: Key, layer: int) -> pd.DataFrame:
    """Every checkpoint's displacement taken apart, in units of ‖v‖: along, off it, and of that the main direction."""
    rows = cache.drift(key, layer)
    rows = rows[~rows["arm"].isin([*ROLES, MIRROR]) & rows["statistic"].isin(["return_fraction", "off_axis"])]
    index = ["checkpoint", "arm", "seed", "step"]
    wide = rows.pivot_table(index=index, columns="statistic", values="value", dropna=False, observed=True)
    wide = wide.reindex(columns=["return_fraction", "off_axis"]).reset_index()
    wide = wide[wide["checkpoint"].isin(rows["checkpoint"].unique())].dropna(subset=["return_fraction"])
    wide = wide.rename(columns={"return_fraction": "along"})
    if cache.has_table(key, "maps/plane"):
        plane = cache.plane_rows(key, layer)[["checkpoint", "across", "third"]]
        wide = wide.merge(plane, on="checkpoint", how="left")
    else:
        wide = wide.assign(across=np.nan, third=np.nan)
    remainder = (wide["off_axis"] ** 2 - wide["across"] ** 2 - wide["third"] ** 2).clip(lower=0)
    wide["rest"] = np.sqrt(remainder)
    wide["length"] = np.hypot(wide["along"], wide["off_axis"])
    wide["angle"] = np.degrees(np.arctan2(wide["off_axis"], wide["along"]))
    return wide.sort_values(["arm", "seed", "step"], ignore_index=True)


def _hardest(run: Context, step: int) -> pd.Series | None:
    """The test of the trajectory's cross-fitted alignment at a step whose null reaches furthest."""
    hardest = _hardest_by_step(run.key, run.layer, run.arm, run.seed)
    return hardest.loc[step] if step in hardest.index else None


@st.cache_data(show_spinner=False, max_entries=64)
def _hardest_by_step(key: Key, layer: int, arm: str, seed: int) -> pd.DataFrame:
    drawn = cache.tests(key, layer)
    drawn = drawn[(drawn["arm"] == arm) & (drawn["seed"] == seed) & (drawn["statistic"] == "alignment_crossfit")]
    drawn = drawn[drawn["limit"].notna()]
    return drawn.loc[drawn.groupby("step")["limit"].idxmax()].set_index("step")


def _cone(hardest: pd.Series | None) -> Cone | None:
    if hardest is None:
        return None
    return Cone(str(hardest["null"]), float(hardest["limit"]), limit_label(int(hardest["draws"])))


def _answer(run: Context, own: pd.DataFrame, hardest: pd.Series | None) -> tuple[str, str]:
    if run.arm == MIRROR:
        return "The mirror began at the witness", "Its path from there is on the page Trajectories."
    at_step = own[own["step"] == run.step]
    if at_step.empty or not math.isfinite(at_step["angle"].iloc[0]):
        return "Mean displacement", f"Nothing is defined at {components.layer_name(run.layer)}, step {run.step:,}."
    at = at_step.iloc[0]
    title = f"{run.arm.capitalize()} moved at {at['angle']:.0f}° to the way back"
    lead = (
        f"Seed {run.seed}, step {run.step:,}, {components.layer_name(run.layer)}: {style.decimal(at['along'])} along "
        f"the way back and {style.decimal(at['off_axis'])} off it, in units of the distance to the witness."
    )
    return title, lead + _against(hardest)


def _against(hardest: pd.Series | None) -> str:
    """The hardest null's reach, and the cross-fitted angle that was held against it; the arrow's is the plain one."""
    if hardest is None or not math.isfinite(hardest["observed"]):
        return ""
    reach, crossfit = (math.degrees(math.acos(max(-1.0, min(1.0, hardest[name])))) for name in ("limit", "observed"))
    return (
        f" The hardest null, {null_name(hardest['null'])}, reaches to {reach:.0f}°; the cross-fitted angle, which is "
        f"held against it, is {crossfit:.0f}°: "
        + ("nearer than that." if crossfit < reach else "where that null alone would put it.")
    )


def _figure(
    key: Key,
    layer: int,
    arms: tuple[str, ...],
    chosen: tuple[str, int],
    step: int,
    cone: Cone | None,
    whole: bool,
    subtitle: str,
    witness: str,
    ink: InkName,
) -> go.Figure:
    rows = components_of(key, layer)
    rows = rows[rows["arm"].isin([*arms, chosen[0]])]
    if whole:
        rows = rows.assign(across=rows["off_axis"])
    rows = rows.dropna(subset=["along", "across"])
    return displacement.vectors(
        rows, chosen=chosen, step=step, subtitle=subtitle, witness=witness, cone=cone, whole=whole, ink=ink
    )


def _table(own: pd.DataFrame) -> None:
    number = st.column_config.NumberColumn
    columns = {
        "step": number("step", help="Optimiser steps after the aligned model."),
        "along": number("along", help="Along the way back: the return fraction."),
        "off_axis": number("off it", help="Length of all that lies at right angles to the way back."),
        "across": number("main off-axis", help="Of that, along the direction in which all trajectories leave it most."),
        "third": number("second off-axis", help="Of that, along the second such direction."),
        "rest": number("rest", help="Length of what lies along neither."),
        "length": number("length", help="Of the whole displacement."),
        "angle": number("angle, °", help="Between the displacement and the way back; 90° is neither back nor forth."),
    }
    components.note("Components of the selected trajectory's displacements, in units of ‖v‖.")
    tables.data_table(own[list(columns)], name="components", forms={"angle": tables.decimals(1)}, column_config=columns)


def _prompts(run: Context) -> None:
    if not cache.has_table(run.key, "projections"):
        components.missing("This run holds no projections yet.", f"gravity-probe measure --out {run.command_path} …")
        return
    if "across" not in cache.columns(run.key, "projections"):
        components.missing(
            "This run's projections were made by an earlier version, without the part across the way back.",
            f"gravity-probe measure --out {run.command_path} …",
        )
        return
    name = run.catalogue.checkpoints[run.arm, run.seed, run.step]
    before, after = (_places(run.key, run.layer, checkpoint) for checkpoint in ("aligned", name))
    if before.empty or after.empty:
        components.note(f"No projections are kept at {components.layer_name(run.layer)}.")
        return
    subtitle = f"{run.subtitle()} · {style.plain(run.trajectory)}, step {run.step:,}"
    moving = widgets.PLAY.control("Play steps", help="One step at a time, with the null's cone of each step.")
    steps = run.catalogue.steps[run.arm, run.seed]
    names = tuple((step, run.catalogue.checkpoints[run.arm, run.seed, step]) for step in steps) if moving else ()
    cones = tuple((step, _cone(_hardest(run, step))) for step in (run.step, *(step for step, _ in names)))
    figure = cached_figures.figure(_prompt_figure, run.key, run.layer, name, run.arm, names, cones, subtitle, run.ink)
    data = before.merge(after.drop(columns=["label", "text"]), on="prompt", suffixes=("_aligned", "_checkpoint"))
    workbench.chart(
        run,
        figure,
        data,
        name=f"prompt-arrows{'-moving' if moving else ''}",
        modes=workbench.MODES,
        drag=workbench.pointer(),
        alt="Each prompt's way in the plane, as an arrow",
    )
    workbench.selected_elsewhere(run)


def _places(key: Key, layer: int, checkpoint: str) -> pd.DataFrame:
    return _places_in(key, layer, (checkpoint,)).get(checkpoint, pd.DataFrame(columns=_PLACE))


def _places_in(key: Key, layer: int, checkpoints: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Where the prompts lie in each of these checkpoints, of those that have any."""
    filters = (("layer", "==", layer), ("checkpoint", "in", list(checkpoints)))
    rows = cache.table(key, "projections", ("checkpoint", *_PLACE[:-1]), filters)
    rows = rows.assign(text=cache.texts(key, rows["prompt"]))
    return {str(name): own[list(_PLACE)].reset_index(drop=True) for name, own in rows.groupby("checkpoint")}


def _prompt_figure(
    key: Key,
    layer: int,
    checkpoint: str,
    arm: str,
    names: tuple[tuple[int, str], ...],
    cones: tuple[tuple[int, Cone | None], ...],
    subtitle: str,
    ink: InkName,
) -> go.Figure:
    before, after = (_places(key, layer, name) for name in ("aligned", checkpoint))
    edges, places = dict(cones), _places_in(key, layer, tuple(name for _, name in names)) if names else {}
    by_step = {step: (places[name], edges[step]) for step, name in names if name in places}
    return prompt_arrows(before, after, arm=arm, subtitle=subtitle, cone=cones[0][1], by_step=by_step or None, ink=ink)


def _layers(run: Context, arms: tuple[str, ...]) -> None:
    if not cache.has_table(run.key, "maps/plane"):
        components.missing("This run holds no planes yet.", f"gravity-probe measure --out {run.command_path} …")
        return
    rows = cache.table(run.key, "maps/plane", None, (("step", "==", run.step),))
    rows = rows[rows["arm"].isin(arms)]
    layers = sorted(int(layer) for layer in rows["layer"].unique())
    shown = evenly(layers, run.layer, run.catalogue.headline)
    subtitle = f"{run.subtitle(layer=False)} · step {run.step:,}"
    figure = cached_figures.figure(
        _layers_figure, run.key, run.step, arms, tuple(shown), subtitle, run.catalogue.headline, run.ink
    )
    charts.chart(figure, rows, name="multiples", alt="Mean displacements at every layer, as arrows")
    if len(shown) < len(layers):
        components.note(f"{len(shown)} of {len(layers)} layers, with the selected and the headline layer.")


def _layers_figure(
    key: Key, step: int, arms: tuple[str, ...], layers: tuple[int, ...], subtitle: str, headline: int, ink: InkName
) -> go.Figure:
    rows = cache.table(key, "maps/plane", None, (("step", "==", step),))
    rows = rows[rows["arm"].isin(arms)]
    return multiples(rows, step=step, layers=layers, subtitle=subtitle, headline=headline, ink=ink)


show(components.context())
