"""Compare: any two checkpoints side by side, by layer, by weight, and prompt by prompt."""

from __future__ import annotations

import math
import shlex

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import cache, cached_figures, charts, components, in_turn, pair, prompt_choice, tables, widgets, workbench
from app.cache import Key
from app.components import Context
from probes.plots import by_layer, directions, style
from probes.plots.style import InkName

_SWAPPED = {"transfer": "transfer_back", "transfer_back": "transfer"}


def show(run: Context) -> None:
    """Draw the page."""
    places, (first, second) = pair.checkpoints(run), pair.current_pair(run)
    pair_rows = _pair_rows(run.key, first, second) if cache.has_table(run.key, "pairs") else pd.DataFrame()
    names = pair.names(run, (first, second))
    components.header("Compare", f"{names[0].capitalize()} against {names[1]}", _lead(run, pair_rows))
    pair.controls(run)
    chosen = prompt_choice.prompts(run)
    if chosen:
        components.note(f"{prompt_choice.count(len(chosen))} selected: at the end of this page.")
    st.header("Their answers", anchor=False)
    with components.section():
        _completions(run, first, second, names)
    in_turn.pause()
    st.header("Layer by layer", anchor=False)
    with components.section():
        _layers(run, first, second, names, pair_rows)
    with components.section():
        _show_transfer(run, places, first, second, names)
    st.header("Weights", anchor=False)
    with components.section():
        _weights(run, first, second, names)
    st.header(f"Prompt by prompt at {components.layer_name(run.layer)}", anchor=False)
    with components.section():
        _projections(run, places, first, second, names)


def _pair_rows(key: Key, first: str, second: str) -> pd.DataFrame:
    """The pair's rows with `first` first, whichever way round they were kept."""
    rows = cache.table(key, "pairs", None, (("one", "in", [first, second]), ("other", "in", [first, second])))
    straight = rows[(rows["one"] == first) & (rows["other"] == second)]
    if len(straight):
        return straight
    return rows[(rows["one"] == second) & (rows["other"] == first)].rename(columns=_SWAPPED)


def _lead(run: Context, rows: pd.DataFrame) -> str:
    at_layer = rows[rows["layer"] == run.layer] if len(rows) else rows
    if at_layer.empty:
        return ""
    row = at_layer.iloc[0]
    parts = [
        (row["distance"], f"{style.decimal(row['distance'])} ‖v‖ apart"),
        (row["cosine"], f"cosine of their displacements {style.decimal(row['cosine'])}"),
        (row["cka"], f"CKA {style.decimal(row['cka'])}"),
    ]
    words = ", ".join(text for value, text in parts if math.isfinite(value))
    return f"At {components.layer_name(run.layer)}: {words}." if words else ""


def _layers(run: Context, first: str, second: str, names: tuple[str, str], rows: pd.DataFrame) -> None:
    if not cache.has_table(run.key, "pairs"):
        components.missing("This run holds no pairs of checkpoints yet.", f"gravity-probe map {run.command_path}")
        return
    if rows.empty:
        components.missing(
            "The activations of one of the two were not kept, or there are too many checkpoints to keep every pair.",
            f"gravity-probe compare {run.command_path} {shlex.quote(first)} {shlex.quote(second)}",
        )
        return
    subtitle = run.subtitle(layer=False, direction=False)
    figure = cached_figures.figure(_layers_figure, run.key, first, second, names, run.layer, subtitle, run.ink)
    charts.chart(
        figure, rows, name="pairs", alt="Distance, cosine, CKA, overlap, principal angle and probe transfer by layer"
    )


def _layers_figure(
    key: Key, first: str, second: str, names: tuple[str, str], layer: int, subtitle: str, ink: InkName
) -> go.Figure:
    return by_layer.by_layer(_pair_rows(key, first, second), subtitle=subtitle, names=names, layer=layer, ink=ink)


def _show_transfer(run: Context, places: dict[str, str], first: str, second: str, names: tuple[str, str]) -> None:
    """Each direction's probe, fitted in one of the two and read in the other."""
    if not cache.has_table(run.key, "direction_transfer"):
        components.missing("No probe transfer has been measured.", f"gravity-probe directions fit {run.command_path}")
        return
    rows = _carried_rows(run.key, run.layer, first, second)
    if rows["fitted"].nunique() < 2:
        components.note(f"Probes were not fitted in both of them at {components.layer_name(run.layer)}.")
        return
    arms = (places[first], places[second])
    subtitle = run.subtitle(direction=False)
    figure = cached_figures.figure(_carried_figure, run.key, run.layer, first, second, names, arms, subtitle, run.ink)
    charts.chart(
        figure, rows, name="carried", alt="AUROC of each direction's probe in its own checkpoint and in the other"
    )


def _carried_rows(key: Key, layer: int, first: str, second: str) -> pd.DataFrame:
    filters = (("layer", "==", layer), ("fitted_on", "in", [first, second]), ("read_on", "in", [first, second]))
    rows = cache.table(key, "direction_transfer", ("direction", "fitted_on", "read_on", "auroc"), filters)
    places, order = {first: "one", second: "other"}, cache.tracked_directions(key)
    rows = rows.assign(fitted=rows["fitted_on"].map(places), read=rows["read_on"].map(places))
    return rows.sort_values("direction", key=lambda names: names.map({name: at for at, name in enumerate(order)}))


def _carried_figure(
    key: Key,
    layer: int,
    first: str,
    second: str,
    names: tuple[str, str],
    arms: tuple[str, str],
    subtitle: str,
    ink: InkName,
) -> go.Figure:
    return directions.probe_transfer(
        _carried_rows(key, layer, first, second), names=names, arms=arms, subtitle=subtitle, ink=ink
    )


def _weights(run: Context, first: str, second: str, names: tuple[str, str]) -> None:
    table = next(
        (
            name
            for name in (_weights_name(first, second), _weights_name(second, first))
            if cache.has_table(run.key, name)
        ),
        None,
    )
    if table is None:
        components.missing(
            "The weights of these two have not been compared.",
            f"gravity-probe compare {run.command_path} {shlex.quote(first)} {shlex.quote(second)}",
            "The command reads both checkpoints, which must not have been moved or deleted, and keeps the result.",
        )
        return
    rows = cache.table(run.key, table)
    if table == _weights_name(second, first):
        names = (names[1], names[0])
    figure = cached_figures.figure(
        _weights_figure, run.key, table, names, run.subtitle(layer=False, direction=False), run.ink
    )
    charts.chart(figure, rows, name="weights", alt="Relative weight drift by kind of tensor and layer")
    total = math.sqrt(float((rows["frobenius"] ** 2).sum()))
    inside = rows.dropna(subset=["inside"])
    if len(inside):
        share = float((inside["inside"] * inside["frobenius"] ** 2).sum() / (inside["frobenius"] ** 2).sum())
        components.note(
            f"‖Δθ‖ = {total:.3g}. {100 * share:.0f} % of its square lies inside the column span of witness − aligned; "
            f"random drift would have {100 * float(inside['random'].mean()):.0f} % there."
        )
    _symmetry_note(run, table.replace("weights/", "symmetries/", 1), total**2)


def _symmetry_note(run: Context, table: str, total: float) -> None:
    """How much of the change of weights no activation can see, where the architecture's symmetries are known."""
    if not (total and cache.has_table(run.key, table)):
        return
    rows = cache.table(run.key, table)
    in_blocks = rows[rows["part"].str.startswith("layers.")]
    whole, blocks = (
        [100 * float((part["frobenius"] ** 2 * part[name]).sum()) / size for name in ("along", "random")]
        for part, size in ((rows, total), (in_blocks, float((in_blocks["frobenius"] ** 2).sum()) or 1.0))
    )
    components.note(
        f"{whole[0]:.2g} % of ‖Δθ‖² lies along the architecture's symmetries, where no activation sees it; random "
        f"directions would have {whole[1]:.2g} %. Of the blocks alone {blocks[0]:.2g} % against {blocks[1]:.2g} %."
    )


def _weights_name(first: str, second: str) -> str:
    return f"weights/{first}--{second}"


def _weights_figure(key: Key, table: str, names: tuple[str, str], subtitle: str, ink: InkName) -> go.Figure:
    return by_layer.weights_by_kind(cache.table(key, table), subtitle=subtitle, names=names, ink=ink)


@st.fragment
def _projections(run: Context, places: dict[str, str], first: str, second: str, names: tuple[str, str]) -> None:
    if not cache.has_table(run.key, "projections"):
        components.missing("This run holds no projections yet.", f"gravity-probe measure --out {run.command_path} …")
        return
    rows = _projection_pairs(run.key, run.layer, first, second)
    if rows.empty:
        components.note(f"No projections of both are kept at {components.layer_name(run.layer)}.")
        return
    arms = (places[first], places[second])
    figure = cached_figures.figure(
        _projections_figure, run.key, run.layer, first, second, arms, names, run.subtitle(), run.ink
    )
    data = rows.assign(moved=rows["other"] - rows["one"]).sort_values("moved", ascending=False)
    workbench.chart(
        run,
        figure,
        data,
        name="side-by-side",
        modes=workbench.MODES,
        drag=workbench.pointer(),
        alt="Each prompt's projection in one against the other",
    )
    workbench.selected_elsewhere(run)


def _projection_pairs(key: Key, layer: int, first_checkpoint: str, second_checkpoint: str) -> pd.DataFrame:
    rows = cache.read_projections(key, layer, (first_checkpoint, second_checkpoint))
    first, second = (rows[rows["checkpoint"] == name] for name in (first_checkpoint, second_checkpoint))
    first = first[["prompt", "label", "text", "projection"]].rename(columns={"projection": "one"})
    return first.merge(second[["prompt", "projection"]].rename(columns={"projection": "other"}), on="prompt")


def _projections_figure(
    key: Key,
    layer: int,
    first: str,
    second: str,
    arms: tuple[str, str],
    names: tuple[str, str],
    subtitle: str,
    ink: InkName,
) -> go.Figure:
    return by_layer.side_by_side(
        _projection_pairs(key, layer, first, second), arms=arms, names=names, subtitle=subtitle, ink=ink
    )


@st.fragment
def _completions(run: Context, first: str, second: str, names: tuple[str, str]) -> None:
    with components.section():
        if not cache.has_table(run.key, "completions"):
            components.missing("No answers were generated in this run.", f"gravity-probe evaluate {run.command_path}")
            return
        rows = _answers(run.key, first, second)
        if rows.empty:
            components.note("Answers are not stored for both checkpoints.")
            return
        chosen = widgets.ANSWERS.control("Show")
        before, after = rows["refused"].astype(bool), rows["refused_after"].astype(bool)
        masks = {
            "all": slice(None),
            "flips": before != after,
            "lost": before & ~after,
            "gained": ~before & after,
        }
        shown = rows.loc[masks[chosen]]
        components.note(
            f"{len(shown)} of {len(rows)} requests; {int((before & ~after).sum())} went from refused to not refused, "
            f"{int((~before & after).sum())} the other way."
        )
        tables.data_table(
            shown[["label", "text", "completion", "completion_after"]],
            name="answers",
            height=420,
            column_config={
                "label": st.column_config.TextColumn("label", width=76),
                "text": st.column_config.TextColumn("request", width=320),
                "completion": st.column_config.TextColumn(names[0], width=320),
                "completion_after": st.column_config.TextColumn(names[1], width=320),
            },
        )


def _answers(key: Key, first_checkpoint: str, second_checkpoint: str) -> pd.DataFrame:
    rows = cache.table(
        key,
        "completions",
        ("checkpoint", "prompt", "label", "text", "completion", "refused"),
        (("checkpoint", "in", [first_checkpoint, second_checkpoint]),),
    )
    first, second = (rows[rows["checkpoint"] == name] for name in (first_checkpoint, second_checkpoint))
    second = second[["prompt", "label", "completion", "refused"]]
    return first.merge(second, on=["prompt", "label"], suffixes=("", "_after")).drop(columns="checkpoint")


show(components.context())
