"""Layers: a statistic over layers and steps, and the prompts behind the cell that was chosen."""

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
    in_turn,
    module_ranks,
    state,
    tables,
    widgets,
)
from app.cache import Key
from app.components import Context
from probes.drift import WITHOUT_WITNESS
from probes.lineage import NO_WITNESS
from probes.plots import heatmap, roc, spectrum, style
from probes.plots.style import InkName
from probes.statistics import ALPHA, DIRECTIONS, STATISTICS, statistic_of

_CHART = "chart-map"
_NO_ROWS = "the witness stands there where the aligned model stands, or the site is not a block's output."


def show(run: Context) -> None:
    """Draw the page."""
    known = direction_choice.known_directions(run)
    direction = direction_choice.other_than_reversion(known)
    drifts = STATISTICS if run.has_witness else WITHOUT_WITNESS
    offered = [*([] if direction else drifts), *(DIRECTIONS if known else [])]
    first = "return_fraction" if run.has_witness and not direction else offered[0]
    statistic = state.selection().statistic
    statistic = statistic if statistic in offered else first
    of = (direction or direction_choice.REVERSION) if statistic in DIRECTIONS else ""
    rows = cache.map_rows(run.key, statistic, run.arm, run.seed, of)
    components.header("Layers", f"{statistic_of(statistic).title}, layer by layer", _lead(run, rows))
    _choices(known, direction, offered, statistic)
    with components.section():
        if rows.empty:
            components.missing(
                f"This run holds no {statistic_of(statistic).title.lower()} of {run.trajectory}.",
                f"gravity-probe measure --out {run.command_path} …",
            )
        else:
            figure = cached_figures.figure(
                _map_figure,
                run.key,
                statistic,
                run.arm,
                run.seed,
                of,
                (run.layer, run.step),
                run.catalogue.headline,
                _subtitle(run, of, layer=False, trajectory=True),
                run.ink,
            )
            charts.chart(
                figure,
                rows,
                name="map",
                on_select=_on_click,
                alt=f"{statistic} of {run.trajectory} over layers and steps; a click on a cell opens it",
            )
            components.note("Click a cell, or choose layer and step in the sidebar, for its prompts. ★ headline layer.")
    in_turn.pause()
    with components.section():
        module_ranks.show_ranks(run)
    with components.section():
        _cell(run, direction)


def _choices(known: list[str], direction: str, offered: list[str], statistic: str) -> None:
    left, right = st.columns([3, 2])
    with left:
        components.choose(
            "Statistic",
            offered,
            statistic,
            lambda name: state.change(statistic=name),
            name="statistic",
            format_func=lambda name: statistic_of(name).title,
            help=statistic_of(statistic).reading,
        )
    requested = state.selection().statistic
    if requested and requested not in offered:
        components.absent("statistic", requested, statistic_of(statistic).title)
    if known:
        with right:
            direction_choice.choose_direction(
                known,
                direction or (direction_choice.REVERSION if direction_choice.REVERSION in known else known[0]),
                "Of another direction than the reversion: what its probes read, and how it turned.",
                statistic=requested if requested in DIRECTIONS else "",
            )


def _map_figure(
    key: Key,
    statistic: str,
    arm: str,
    seed: int,
    direction: str,
    selected: tuple[int, int],
    headline: int,
    subtitle: str,
    ink: InkName,
) -> go.Figure:
    """The heat map of one statistic of one trajectory, of the drift or of a fitted direction."""
    return heatmap.heatmap(
        cache.map_rows(key, statistic, arm, seed, direction),
        statistic=statistic,
        subtitle=subtitle,
        selected=selected,
        headline=headline,
        limits=cache.map_limits(key, statistic, direction),
        ink=ink,
    )


def _subtitle(run: Context, direction: str, **parts: bool) -> str:
    """A figure's subtitle, with the direction that it is about."""
    if not direction:
        return run.subtitle(**parts)
    return f"{run.subtitle(**parts, direction=False)} · direction {style.plain(direction)}"


def _lead(run: Context, rows: pd.DataFrame) -> str:
    """What the map says: the selected cell, where and when the value is largest, and when it is first beyond chance."""
    known = rows[rows["value"].notna()].reset_index(drop=True)
    if known.empty:
        return ""
    own = known[(known["step"] == run.step) & (known["layer"] == run.layer)]["value"]
    value = style.decimal(float(own.iloc[0])) if len(own) else "not defined"
    top = known.loc[known["value"].idxmax()]
    words = (
        f"{run.trajectory.capitalize()}, step {run.step:,}: {value} at {components.layer_name(run.layer)}; largest, "
        f"{style.decimal(float(top['value']))}, at {components.layer_name(int(top['layer']))}, step {top['step']:,.0f}."
    )
    if int(top["layer"]) != run.catalogue.headline:
        words += " The largest of many layers is no test: the headline layer was pre-registered."
    return words + _when(run)


def _when(run: Context) -> str:
    """The first step beyond the alarm's nulls at the headline layer; nothing where they were not drawn."""
    layer, level = run.catalogue.headline, run.manifest.config.get("alpha", ALPHA)
    if not cache.has_table(run.key, "nulls") or cache.tests(run.key, layer).empty:
        return ""
    first = cache.first_beyond(run.key, layer, (run.arm, run.seed), level)
    at = f"at {components.layer_name(layer)} (p ≤ {level:g})"
    if first is None:
        return f" No step is beyond every null of the alarm {at}."
    return f" First beyond every null of the alarm {at}: step {first:,}."


def _on_click() -> None:
    """Select the cell that was clicked."""
    event = st.session_state.get(_CHART)
    points = event["selection"]["points"] if event else []
    for point in points:
        spot = point.get("customdata")
        if spot is not None and len(spot) == 2 and all(math.isfinite(value) for value in spot):
            state.change(layer=int(spot[0]), step=int(spot[1]))


def _cell(run: Context, direction: str) -> None:
    """What lies behind the chosen cell."""
    st.header(f"The prompts at {components.layer_name(run.layer)}, step {run.step:,}", anchor=False)
    _behind(run, direction)


@st.fragment
def _behind(run: Context, direction: str) -> None:
    with components.section():  # an error in a fragment does not reach the section around it
        view = widgets.PROMPTS.control("View", label_visibility="collapsed")
        _VIEWS[view](run, direction)


def _checkpoints(run: Context, extra: tuple[int, ...] = ()) -> dict[str, str]:
    """The roles and the chosen steps: checkpoint → the name it is shown by."""
    names = {"aligned": "aligned", "witness": run.witness, "pretrained": "pretrained"}
    for step in sorted({run.step, *extra}):
        names[run.catalogue.checkpoints[run.arm, run.seed, step]] = f"{run.arm} {step:,}"
    return names


def _project(run: Context, names: dict[str, str], direction: str) -> pd.DataFrame:
    """Their projections; empty, with the reason said, where there are none."""
    if direction and not cache.has_table(run.key, "direction_projections"):
        components.missing(
            "This run holds no projections on fitted directions.", f"gravity-probe directions fit {run.command_path}"
        )
        return pd.DataFrame()
    if not direction and not cache.has_table(run.key, "projections"):
        components.missing(
            "This run holds no projections yet.",
            f"gravity-probe measure --out {run.command_path} …",
            "Rerun the command that made the run: it resumes where it stopped.",
        )
        return pd.DataFrame()
    table = cache.read_projections(run.key, run.layer, tuple(names), direction)
    if table.empty and direction:
        components.note(f"Nothing is kept of {direction} at {components.layer_name(run.layer)}.")
    elif table.empty:
        components.note(
            f"No projections are kept at {components.layer_name(run.layer)}: "
            + (_NO_ROWS if run.has_witness else f"the way back is not defined, {NO_WITNESS}.")
        )
    return table


def _show(names: dict[str, str], table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    drawn = set(table["checkpoint"].unique())
    return tuple((checkpoint, name) for checkpoint, name in names.items() if checkpoint in drawn)


def _distributions(run: Context, direction: str) -> None:
    steps = run.catalogue.steps[run.arm, run.seed]
    further = widgets.SeveralOf(
        "steps", [str(step) for step in steps if step != run.step], all_at_first=False, drawn=str(run.step)
    )
    names = _checkpoints(run, tuple(map(int, further.chosen())))
    table = _project(run, names, direction)
    if table.empty:
        return
    if len(steps) > 1:
        further.control("Further steps", format_func=lambda step: f"{int(step):,}")
    figure = cached_figures.projections_figure(
        run.key, run.layer, _show(names, table), direction, _subtitle(run, direction), run.ink
    )
    charts.chart(
        figure,
        table.drop(columns="checkpoint"),
        name="projections",
        alt="Projections of harmful and harmless prompts on the reversion direction, one row a checkpoint",
    )


def _roc(run: Context, direction: str) -> None:
    names = _checkpoints(run)
    table = _project(run, names, direction)
    if table.empty:
        return
    shown = _show(names, table)
    figure = cached_figures.figure(
        _roc_figure, run.key, run.layer, shown, direction, _subtitle(run, direction), run.ink
    )
    data = table[["checkpoint", "label", "prompt", "projection", "text"]]
    charts.chart(figure, data, name="roc", alt="Receiver operating characteristic, one curve a checkpoint")
    if direction or not cache.has_table(run.key, "pairs"):
        return
    own = cache.table(run.key, "pairs", ("one", "other", "transfer"), (("layer", "==", run.layer),))
    own = own[(own["one"] == own["other"]) & own["one"].isin([checkpoint for checkpoint, _ in shown])]
    words = [f"{names[row.one]} {row.transfer:.2f}" for row in own.itertuples() if math.isfinite(row.transfer)]
    if words:
        components.note(
            "A probe fitted for the purpose (difference of class means, fitted on one fold, scored on the other) "
            f"reaches AUROC: {', '.join(words)}."
        )


def _roc_figure(
    key: Key, layer: int, shown: tuple[tuple[str, str], ...], direction: str, subtitle: str, ink: InkName
) -> go.Figure:
    rows = cache.read_projections(key, layer, tuple(name for name, _ in shown), direction)
    return roc.roc(rows, shown, subtitle=subtitle, ink=ink)


def _spectrum(run: Context, _: str) -> None:
    if not cache.has_table(run.key, "spectra"):
        components.missing("This run holds no spectra yet.", f"gravity-probe map {run.command_path}")
        return
    of = widgets.SPREAD.control("Spread of", widget=st.radio, horizontal=True)
    rows = cache.table(run.key, "spectra", None, (("layer", "==", run.layer),))
    names = _checkpoints(run)
    shown, rows = _show(names, rows), rows[rows["checkpoint"].isin(names)]
    if rows.empty:
        components.note(f"No spectrum is kept at {components.layer_name(run.layer)}; choose a block in the sidebar.")
        return
    subtitle = run.subtitle(direction=False)
    figure = cached_figures.figure(_spectrum_figure, run.key, run.layer, shown, of, subtitle, run.ink)
    charts.chart(figure, rows[rows["of"] == of], name="spectrum", alt=f"Share of variance of the {of} by axis")


def _spectrum_figure(
    key: Key, layer: int, shown: tuple[tuple[str, str], ...], of: str, subtitle: str, ink: InkName
) -> go.Figure:
    rows = cache.table(key, "spectra", None, (("layer", "==", layer),))
    return spectrum.spectrum(rows, shown, of=of, subtitle=subtitle, ink=ink)


def _movers(run: Context, direction: str) -> None:
    """The prompts that moved most along the direction between the aligned model and the chosen step."""
    name = run.catalogue.checkpoints[run.arm, run.seed, run.step]
    table = _project(run, {"aligned": "aligned", name: name}, direction)
    if table.empty:
        return
    before = table[table["checkpoint"] == "aligned"].set_index("prompt")["projection"]
    after = table[table["checkpoint"] == name][["prompt", "label", "text", "projection"]]
    if before.empty or after.empty:
        components.note("The projections of one of the two checkpoints are not kept.")
        return
    after = after.assign(moved=after["projection"] - after["prompt"].map(before))
    after = after.sort_values("moved", ascending=False)[["moved", "label", "text"]]
    along, unit = ("the way back", "of the return fraction") if not direction else (direction, "of the activations")
    components.note(
        f"How far each prompt's activation moved along {along}, from the aligned model to {run.trajectory}, "
        f"step {run.step:,}, in units {unit}; largest first."
    )
    tables.data_table(
        after,
        name="movers",
        height=420,
        column_config={
            "moved": st.column_config.NumberColumn("moved", width="small"),
            "label": st.column_config.TextColumn("label", width="small"),
            "text": st.column_config.TextColumn("prompt", width="large"),
        },
    )


def _readout(run: Context, direction: str) -> None:
    """The tokens that the direction writes, at the aligned model and at the chosen step."""
    direction_choice.readout(run, direction or direction_choice.REVERSION, run.checkpoint)


_VIEWS = {"densities": _distributions, "roc": _roc, "tokens": _readout, "spectrum": _spectrum, "movers": _movers}

show(components.context())
