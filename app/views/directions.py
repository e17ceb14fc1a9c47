"""Directions: what each is, what its probe reads, how it turned over a run, and its vector in every format."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import (
    cache,
    cached_figures,
    charts,
    components,
    direction_choice,
    exporting,
    in_turn,
    intervening,
    state,
    tables,
    widgets,
)
from app.cache import Key
from app.components import Context
from probes.plots import directions as plots
from probes.plots import matrix, style
from probes.plots.style import InkName
from probes.statistics import DIRECTIONS

ALIGNED = "aligned"
_MAP = "chart-direction-map"


def show(run: Context) -> None:
    """Draw the page."""
    known = cache.tracked_directions(run.key)
    if not known:
        components.header("Directions", "No directions have been fitted yet")
        components.missing(
            "This run holds no direction_tracks.parquet.",
            f"gravity-probe directions fit {run.command_path}",
            "The command fits refusal, reversion and the others at every checkpoint and layer, beside random controls. "
            "The activations must still be in the run folder.",
        )
        _download(run, list(cache.directions(run.key)))
        return
    direction = direction_choice.direction_of(known)
    checkpoint = run.catalogue.checkpoints[run.arm, run.seed, run.step]
    rows = cache.tracks(run.key, (("layer", "==", run.layer), ("direction", "==", direction)))
    about = cache.directions(run.key).get(direction, {})
    components.header("Directions", *_answer(run, rows, direction, checkpoint, about))
    direction_choice.choose_direction(known, direction, str(about.get("says", "")))
    if run.layer < 0:
        components.note("Directions are defined after blocks, not for the embedding: choose a layer in the sidebar.")
        return
    with components.section():
        figure = cached_figures.figure(
            _turning, run.key, run.layer, direction, (run.arm, run.seed), run.subtitle(direction=False), run.ink
        )
        charts.chart(
            figure,
            rows.drop(columns=["direction", "layer"]),
            name="turning",
            alt="Angle, gap and AUROC of the direction by step, for every arm",
        )
    in_turn.pause()
    view = widgets.DIRECTION_VIEWS.control("More views", label_visibility="collapsed")
    with components.section():
        _VIEWS[view](run, checkpoint, direction)
    _download(run, list(cache.directions(run.key)), direction)


def _answer(
    run: Context, rows: pd.DataFrame, direction: str, checkpoint: str, about: dict[str, object]
) -> tuple[str, str]:
    """How far the direction turned at the selected checkpoint, and what is still read along it."""
    at, before = (rows[rows["checkpoint"] == name] for name in (checkpoint, ALIGNED))
    name = direction.replace("_", " ").capitalize()
    meaning = f"{name}: {about['says']}." if about.get("says") else ""
    if at.empty:
        return name, f"It was not fitted at {run.trajectory}, step {run.step:,}. {meaning}"
    own = at.iloc[0]
    if not math.isfinite(own["angle"]):
        why = own["reason"] if isinstance(own["reason"], str) else "one of the two fits is not defined"
        return f"{name} is not defined at {components.layer_name(run.layer)}", f"{why.capitalize()}. {meaning}"
    title = f"{name} turned by {own['angle']:.0f}° at {components.layer_name(run.layer)}"
    words = (
        f"{run.trajectory.capitalize()}, step {run.step:,}: the aligned model's probe reads AUROC "
        f"{_with_interval(own, 'auroc')}, one refitted there {_with_interval(own, 'refit')}"
    )
    if len(before) and math.isfinite(before.iloc[0]["refit"]):
        words += f"; at the aligned model it was {style.decimal(before.iloc[0]['refit'])}"
    return title, f"{words}. {meaning}"


def _with_interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    inside = f" ({style.decimal(low)} to {style.decimal(high)})" if math.isfinite(low) and math.isfinite(high) else ""
    return style.decimal(row[name]) + inside


def _turning(key: Key, layer: int, direction: str, chosen: tuple[str, int], subtitle: str, ink: InkName) -> go.Figure:
    rows = cache.tracks(key, (("layer", "==", layer), ("direction", "==", direction)))
    return plots.turning(rows, direction=direction, chosen=chosen, subtitle=subtitle, ink=ink)


# All of them ---------------------------------------------------------------------------------------------------


def _all(run: Context, checkpoint: str, direction: str) -> None:
    rows = cache.tracks(run.key, (("checkpoint", "==", checkpoint),))
    if rows.empty:
        components.note("The activations of this checkpoint were not kept: choose another step in the sidebar.")
        return
    figure = cached_figures.figure(
        _map,
        run.key,
        checkpoint,
        direction,
        run.layer,
        f"{run.subtitle(layer=False, direction=False)} · {style.plain(components.checkpoint_name(checkpoint, run))}",
        run.ink,
    )
    charts.chart(
        figure,
        rows.drop(columns=["checkpoint", "arm", "seed", "step"]),
        name="direction-map",
        on_select=_map_clicked,
        alt="AUROC of every direction at every layer; a click opens that direction and layer",
    )
    components.note("Click a cell for that direction and layer. Controls say what an arbitrary direction reads.")
    _table(run, rows)


def _map(key: Key, checkpoint: str, direction: str, layer: int, subtitle: str, ink: InkName) -> go.Figure:
    rows = cache.tracks(key, (("checkpoint", "==", checkpoint),))
    names, layers = cache.tracked_directions(key), sorted(int(number) for number in rows["layer"].unique())
    wide = rows.pivot_table(index="direction", columns="layer", values="refit", dropna=False).reindex(names)
    return matrix.matrix(
        wide.reindex(columns=layers).to_numpy(dtype=float).tolist(),
        rows=names,
        columns=[str(number) for number in layers],
        title="Which layer tells the classes apart",
        subtitle=subtitle,
        axes=("", "layer"),
        limits=(0.0, 1.0),
        tilted=False,
        clickable=True,
        caption=f"{DIRECTIONS['refit'].meaning} Limits fixed at 0 and 1; 0.5, the middle, tells nothing. "
        "– : not defined.",
        selected=(names.index(direction), layers.index(layer) if layer in layers else None),
        ink=ink,
    )


def _map_clicked() -> None:
    event = st.session_state.get(_MAP)
    for point in event["selection"]["points"] if event else []:
        spot = point.get("customdata")
        if spot is not None and len(spot) == 2 and str(spot[1]).isdecimal():
            state.change(direction=str(spot[0]), layer=int(spot[1]))


def _table(run: Context, rows: pd.DataFrame) -> None:
    """One row a direction at the chosen layer, with its AUROC over all layers as a small line."""
    by_layer = rows.sort_values("layer").groupby("direction")["refit"].agg(list)
    own = (
        rows[rows["layer"] == run.layer].set_index("direction").reindex(cache.tracked_directions(run.key)).reset_index()
    )
    about = cache.direction_notes(run.key)
    own = own.assign(
        by_layer=[
            [0.5 if math.isnan(value) else value for value in by_layer.get(name, [])] for name in own["direction"]
        ],
        says=[str(about.get(name, {}).get("says", "")) for name in own["direction"]],
        interval=[
            f"{style.decimal(low)} to {style.decimal(high)}" if math.isfinite(low) else "–"
            for low, high in zip(own["refit_low"], own["refit_high"], strict=True)
        ],
    )
    number, help_ = st.column_config.NumberColumn, {name: about.reading for name, about in DIRECTIONS.items()}
    columns = {
        "direction": st.column_config.TextColumn("direction", pinned=True, width=160),
        "refit": number("AUROC, refitted", help=help_["refit"], width=104),
        "interval": st.column_config.TextColumn("95 %", width=94),
        "by_layer": st.column_config.LineChartColumn("by layer", y_min=0, y_max=1, width=60),
        "auroc": number("AUROC, kept", help=help_["auroc"], width=92),
        "angle": number("turned, °", help=help_["angle"], width=70),
        "d_prime": number("d′", help=help_["d_prime"], width=50),
        "norm": number("gap", help=help_["norm"], width=56),
        "accuracy": number("accuracy", help=help_["accuracy"], width=74),
        "calibration": number("calibration", help=help_["calibration"], width=84),
        "says": st.column_config.TextColumn("what it is", width=194),
        "reason": st.column_config.TextColumn("not defined because"),
    }
    shown = [name for name in columns if name != "reason" or own["reason"].notna().any()]
    forms = dict.fromkeys(("refit", "auroc", "d_prime", "norm", "accuracy"), tables.decimals(2))
    forms["angle"] = tables.decimals(0)
    tables.data_table(own[shown], name="directions", forms=forms, height=560, column_config=columns)


# One of them ---------------------------------------------------------------------------------------------------


def _readout(run: Context, checkpoint: str, direction: str) -> None:
    direction_choice.readout(run, direction, checkpoint)


def _cosines(run: Context, checkpoint: str, direction: str) -> None:
    if not cache.has_table(run.key, "direction_cosines"):
        components.missing("No cosines are stored.", f"gravity-probe directions fit {run.command_path}")
        return
    rows = _cosine_rows(run.key, run.layer, checkpoint)
    if rows.empty:
        components.note("None are stored for this checkpoint.")
        return
    subtitle = f"{run.subtitle(direction=False)} · {style.plain(components.checkpoint_name(checkpoint, run))}"
    figure = cached_figures.figure(_cosine_figure, run.key, run.layer, checkpoint, direction, subtitle, run.ink)
    charts.chart(figure, rows, name="cosines", alt="Cosine of every direction with every other")


def _cosine_rows(key: Key, layer: int, checkpoint: str) -> pd.DataFrame:
    columns = ("checkpoint", "one", "other", "cosine")
    return cache.table(key, "direction_cosines", columns, (("layer", "==", layer), ("checkpoint", "==", checkpoint)))


def _cosine_figure(key: Key, layer: int, checkpoint: str, direction: str, subtitle: str, ink: InkName) -> go.Figure:
    names = cache.tracked_directions(key)
    wide = _cosine_rows(key, layer, checkpoint).pivot_table(index="one", columns="other", values="cosine", dropna=False)
    return matrix.matrix(
        wide.reindex(index=names, columns=names).to_numpy(dtype=float).tolist(),
        rows=names,
        columns=names,
        title="Cosine between directions",
        subtitle=subtitle,
        axes=("", ""),
        limits=(-1.0, 1.0),
        caption="Cosine of each direction with each, fitted at this checkpoint and layer; limits fixed at −1 and 1. In "
        "a space where activations share a few high-variance axes, random directions with their covariance are "
        "not at 0.",
        selected=(names.index(direction), None),
        ink=ink,
    )


def _transfer(run: Context, _: str, direction: str) -> None:
    if not cache.has_table(run.key, "direction_transfer"):
        components.missing("No probe transfer is stored.", f"gravity-probe directions fit {run.command_path}")
        return
    rows = _transfer_rows(run.key, run.layer, direction)
    names = _own_line(run, set(rows["fitted_on"].unique()))
    if len(names) < 2:
        components.note("Too few checkpoints were fitted to transfer a probe from one to another.")
        return
    subtitle = f"{run.subtitle(direction=False)} · direction {style.plain(direction)}"
    figure = cached_figures.figure(
        _transfer_figure, run.key, run.layer, direction, tuple(names.items()), subtitle, run.ink
    )
    charts.chart(figure, rows, name="transfer", alt="AUROC of probes fitted at one checkpoint and read at another")


def _transfer_rows(key: Key, layer: int, direction: str) -> pd.DataFrame:
    columns = ("fitted_on", "read_on", "auroc")
    return cache.table(key, "direction_transfer", columns, (("layer", "==", layer), ("direction", "==", direction)))


def _own_line(run: Context, fitted: set[str]) -> dict[str, str]:
    """Roles and the selected trajectory's steps that were fitted: checkpoint → name."""
    roles = {role: run.witness if role == "witness" else role for role in (ALIGNED, "witness", "pretrained")}
    steps = run.catalogue.steps[run.arm, run.seed]
    line = {run.catalogue.checkpoints[run.arm, run.seed, step]: f"{run.arm} {step:,}" for step in steps}
    return {name: words for name, words in {**roles, **line}.items() if name in fitted}


def _transfer_figure(
    key: Key, layer: int, direction: str, names: tuple[tuple[str, str], ...], subtitle: str, ink: InkName
) -> go.Figure:
    order, words = [name for name, _ in names], [shown for _, shown in names]
    wide = _transfer_rows(key, layer, direction).pivot_table(
        index="fitted_on", columns="read_on", values="auroc", dropna=False
    )
    return matrix.matrix(
        wide.reindex(index=order, columns=order).to_numpy(dtype=float).tolist(),
        rows=words,
        columns=words,
        title="A probe of one checkpoint, read at another",
        subtitle=subtitle,
        axes=("fitted at", "read at"),
        caption="AUROC on other prompts than those it was fitted on; limits fixed at 0 and 1; 0.5, the middle, tells "
        "nothing; below it the probe reads the wrong way round.",
        limits=(0.0, 1.0),
        ink=ink,
    )


# Taking it away ------------------------------------------------------------------------------------------------


def _download(run: Context, known: list[str], direction: str = "") -> None:
    if not known:
        return
    st.header("Export the direction", anchor=False)
    with components.section():
        exporting.panel(run, direction if direction in known else known[0])


_VIEWS = {
    "interventions": intervening.panel,
    "all": _all,
    "tokens": _readout,
    "cosines": _cosines,
    "transfer": _transfer,
}

show(components.context())
