"""Directions: how one turned over a fine-tuning run, what its probe still reads, and what moving along it does."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.lineage import ROLES
from probes.plots import style
from probes.plots.step_axis import StepAxis
from probes.plots.style import InkName
from probes.statistics import statistic_of

# column of `direction_tracks`: panel title, axis limits
_PANELS: tuple[tuple[str, str, tuple[float, float] | None], ...] = (
    ("angle", "turned from the aligned model's (°)", None),
    ("norm", "gap between the classes (activation norm)", None),
    ("auroc", "the aligned model's probe, read here (AUROC)", (0.0, 1.0)),
    ("refit", "a probe refitted here (AUROC)", (0.0, 1.0)),
)
_TURN_HEIGHT = 662
_CAPTION = (
    "Angle: between the direction fitted at each checkpoint and the one fitted at the aligned model. Gap: distance "
    "of the two classes' means along it. AUROC: the probability that a positive prompt lies above a negative one, "
    "probes fitted on one fold and read on the other; 0.5 tells nothing. Bands: 95 % intervals of the selected "
    "trajectory."
)


def turning(
    rows: pd.DataFrame, *, direction: str, chosen: tuple[str, int], subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw angle, norm, and both AUROCs by step, every arm and seed.

    Args:
        rows: arm, seed, step and the columns of `direction_tracks` of one direction at one layer, roles included.
        direction: its name, for the title.
        chosen: arm and seed of which the intervals are drawn.
        subtitle: run and layer.
        ink: light or dark page.
    """
    title = f"How {style.plain(direction)} turned"
    base = style.figure(title, subtitle, ink, height=_TURN_HEIGHT, caption=_CAPTION, left=52).layout
    grid = make_subplots(
        2, 2, horizontal_spacing=0.1, vertical_spacing=0.17, subplot_titles=[text for _, text, _ in _PANELS]
    )
    runs = rows[~rows["arm"].isin(ROLES)]
    axis, colours = StepAxis.of([0, *runs["step"]]), style.INKS[ink]
    traces: list[list[dict[str, Any]]] = []
    rules: list[dict[str, Any]] = []
    for place, (column, _, limits) in enumerate(_PANELS):
        cell = {"row": place // 2 + 1, "col": place % 2 + 1}
        traces.append(_references(rows, column, axis, named=place == 0))
        rules += _rules(rows, column, place, colours)
        for arm in style.in_order(runs["arm"])[::-1]:
            for seed, run in runs[runs["arm"] == arm].groupby("seed"):
                own = run.sort_values("step")
                if (arm, seed) == chosen:
                    traces[-1] += _band(own, arm, column, axis)
                traces[-1].append(_line(own, arm, int(seed), column, axis, named=place == 0))
        low, high = limits or (0.0, float(rows[column].max()) if rows[column].notna().any() else 1.0)
        room = 0.05 * ((high - low) or 1.0)
        grid.update_yaxes(range=[low - room, high + room], nticks=6, **cell)
    places = [place for place, panel in enumerate(traces) for _ in panel]
    grid.add_traces(
        [trace for panel in traces for trace in panel],
        rows=[place // 2 + 1 for place in places],
        cols=[place % 2 + 1 for place in places],
    )
    ticks = go.Figure()
    axis.apply(ticks, colours)
    grid.update_xaxes(
        range=list(axis.range), tickvals=ticks.layout.xaxis.tickvals, ticktext=ticks.layout.xaxis.ticktext
    )
    grid.update_xaxes(title={"text": ticks.layout.xaxis.title.text, "standoff": 4}, row=2)
    grid.update_annotations(font={"size": 13, "color": colours.text})
    titles = list(grid.layout.annotations)
    grid.update_layout(
        shapes=rules,
        template=base.template,
        title=base.title,
        height=base.height,
        uirevision="keep",
        showlegend=True,
        margin={"l": 52, "r": 16, "t": 158, "b": base.margin.b},
        annotations=[*titles, *base.annotations],
        legend={"orientation": "h", "x": 0, "y": 1.07, "yanchor": "bottom", "traceorder": "reversed"},
    )
    return grid


def _rules(rows: pd.DataFrame, column: str, place: int, colours: style.Ink) -> list[dict[str, Any]]:
    """Thin lines across a panel: where the witness and the pretrained model lie, and the half of an AUROC."""
    at = "" if place == 0 else str(place + 1)
    across = {"type": "line", "xref": f"x{at} domain", "yref": f"y{at}", "x0": 0, "x1": 1, "layer": "below"}
    rules = []
    for role in ("pretrained", "witness"):
        values = rows[rows["arm"] == role][column].dropna()
        if len(values):
            value, line = float(values.iloc[0]), {"color": style.fade(style.mark_of(role).colour, 0.6), "width": 1.1}
            rules.append({**across, "y0": value, "y1": value, "line": line})
    if column in ("auroc", "refit"):
        rules.append({**across, "y0": 0.5, "y1": 0.5, "line": {"color": colours.rule, "width": 1, "dash": "dot"}})
    return rules


def _references(rows: pd.DataFrame, column: str, axis: StepAxis, *, named: bool) -> list[dict[str, Any]]:
    """The marks of the roles, apart at the left."""
    marks = []
    for role in reversed(ROLES):
        values = rows[rows["arm"] == role][column].dropna()
        if len(values):
            mark = style.mark_of(role)
            marks.append(
                {
                    "type": "scatter",
                    "name": role,
                    "x": [axis.zero],
                    "y": [float(values.iloc[0])],
                    "mode": "markers",
                    "marker": {"color": mark.colour, "symbol": mark.symbol, "size": 10},
                    "legendgroup": role,
                    "showlegend": named,
                    "cliponaxis": False,
                    "hovertemplate": f"{role}<br>%{{y:.3f}}<extra></extra>",
                }
            )
    return marks


def _band(run: pd.DataFrame, arm: str, column: str, axis: StepAxis) -> list[dict[str, Any]]:
    if f"{column}_low" not in run:
        return []
    known = run[run[f"{column}_low"].notna() & run[f"{column}_high"].notna()]
    x = [axis.position(step) for step in known["step"]]
    return [
        {
            "type": "scatter",
            "x": x + x[::-1],
            "y": [*known[f"{column}_high"], *known[f"{column}_low"][::-1]],
            "mode": "none",
            "fill": "toself",
            "fillcolor": style.fade(style.mark_of(arm).colour, 0.15),
            "hoverinfo": "skip",
            "legendgroup": arm,
            "showlegend": False,
        }
    ]


def _line(run: pd.DataFrame, arm: str, seed: int, column: str, axis: StepAxis, *, named: bool) -> dict[str, Any]:
    mark = style.mark_of(arm)
    return {
        "type": "scatter",
        "name": style.plain(arm),
        "x": [axis.position(step) for step in run["step"]],
        "y": run[column].to_numpy(),
        "mode": "lines+markers",
        "legendgroup": arm,
        "showlegend": named and seed == 0,
        "line": {"color": mark.colour, "dash": mark.dash, "width": mark.width},
        "marker": {"symbol": mark.symbol, "size": 6, "color": mark.colour},
        "customdata": [[step, style.decimal(cosine)] for step, cosine in zip(run["step"], run["cosine"], strict=True)],
        "hovertemplate": f"{style.plain(arm)}, seed {seed}, step %{{customdata[0]}}<br>"
        f"{style.plain(statistic_of(column).title)} %{{y:.3f}} (cosine to the aligned model's %{{customdata[1]}})"
        "<extra></extra>",
    }


_MEDIATION_ROW = 26
_MEDIATION_CAPTION = (
    "Necessity: the fine-tuned checkpoint with its motion along the reversion taken back. Sufficiency: the aligned "
    "model with that motion put in. Controls: random directions of the same length, isotropic or with the activations' "
    "covariance, every draw a point. Only what the reversion does and the controls do not is its own."
)
_KINDS = {"none": "as it is", "reversion": "along the reversion", "random": "random", "covariance": "random, matched"}
_MEASURES = {
    "refusal": "refused",
    "compliance": "complied",
    "incoherent": "incoherent",
    "over_refusal": "refused harmless ones",
}


def mediation(rows: pd.DataFrame, *, arm: str, subtitle: str, ink: InkName = "light") -> go.Figure:
    """Draw what harmful requests meet with and without the motion along the reversion, beside random directions.

    Args:
        rows: test, direction, refusal, compliance, incoherent, n of one checkpoint.
        arm: that checkpoint's, for its colour.
        subtitle: run, layers and checkpoint.
        ink: light or dark page.
    """
    kinds = rows["direction"].str.split(":").str[0]
    rows = rows.assign(
        lane=kinds.map(_KINDS),
        group=rows["test"],
        own=kinds.isin(["none", "reversion"]),
        name=rows["direction"],
        arm=["aligned" if test == "sufficiency" else arm for test in rows["test"]],
        untouched=kinds == "none",
    )
    lanes = [words for words in _KINDS.values() if words in set(rows["lane"])]
    return _rates(
        rows,
        lanes,
        ("refusal", "compliance", "incoherent"),
        "Is the way back what changes behaviour?",
        subtitle,
        _MEDIATION_CAPTION,
        ink,
    )


_EFFECT_CAPTION = (
    "What the model answers as it is, with the direction ablated at every block, and with it added behind the layer, "
    "in units of its own length. Crosses: random directions of the same length; only what they do not do is the "
    "direction's own. The first two of harmful requests, the last of harmless ones."
)


def effects(rows: pd.DataFrame, *, direction: str, arm: str, subtitle: str, ink: InkName = "light") -> go.Figure:
    """Draw what a direction does to answers when it is ablated or added, beside random directions.

    Args:
        rows: mode, coefficient, along, refusal, compliance, over_refusal, n of one direction and checkpoint.
        direction: its name.
        arm: the checkpoint's, for its colour.
        subtitle: run, layer and checkpoint.
        ink: light or dark page.
    """
    untouched = rows["along"] == "none"
    rows = rows.assign(
        lane=[_lane(mode, amount) for mode, amount in zip(rows["mode"], rows["coefficient"], strict=True)],
        group="",
        own=untouched | (rows["along"] == direction),
        name=rows["along"],
        arm=arm,
        untouched=untouched,
    )
    order = rows.sort_values(["mode", "coefficient"], key=lambda column: column.replace(_MODES))
    lanes = list(dict.fromkeys(order["lane"]))
    title = f"What {style.plain(direction)} does"
    return _rates(rows, lanes, ("refusal", "compliance", "over_refusal"), title, subtitle, _EFFECT_CAPTION, ink)


_MODES = {"none": 0, "ablate": 1, "add": 2}


def _lane(mode: str, amount: float) -> str:
    words = {"none": "as it is", "ablate": "ablated"}.get(mode, mode)
    return words if mode in ("none", "ablate") else f"added × {style.decimal(amount)}"


def _rates(
    rows: pd.DataFrame,
    lanes: list[str],
    measures: tuple[str, ...],
    title: str,
    subtitle: str,
    caption: str,
    ink: InkName,
) -> go.Figure:
    """Shares of answers: a lane an intervention, a column a measure, a row of panels a group."""
    colours, groups = style.INKS[ink], list(dict.fromkeys(rows["group"]))
    height = 116 + 64 + len(groups) * (34 + _MEDIATION_ROW * len(lanes))
    base = style.figure(title, subtitle, ink, height=height, caption=caption, left=150).layout
    grid = make_subplots(
        max(1, len(groups)),
        len(measures),
        shared_yaxes=True,
        shared_xaxes=True,
        horizontal_spacing=0.075,
        vertical_spacing=0.14 if len(groups) > 1 else 0.0,
        subplot_titles=[f"{group}: {_MEASURES[name]}".removeprefix(": ") for group in groups for name in measures],
    )
    traces, spots = [], []
    for row, group in enumerate(groups, start=1):
        for column, measure in enumerate(measures, start=1):
            for (lane, own), part in rows[rows["group"] == group].groupby(["lane", "own"]):
                traces.append(_marks(part, measure, len(lanes) - 1 - lanes.index(lane), own=bool(own)))
                spots.append((row, column))
    grid.add_traces(traces, rows=[row for row, _ in spots], cols=[column for _, column in spots])
    grid.update_yaxes(
        tickvals=list(range(len(lanes))),
        ticktext=lanes[::-1],
        range=[-0.6, len(lanes) - 0.4],
        showgrid=True,
        gridcolor=colours.rule,
        showline=False,
        ticks="",
    )
    grid.update_xaxes(range=[-0.1, 1.06], tickvals=[0, 0.5, 1], ticktext=["0 %", "50 %", "100 %"])
    grid.update_xaxes(title={"text": "share of requests", "standoff": 4}, row=max(1, len(groups)), col=2)
    grid.update_annotations(font={"size": 13, "color": colours.text})
    titles = list(grid.layout.annotations)
    grid.update_layout(
        template=base.template,
        title=base.title,
        height=base.height,
        uirevision="keep",
        showlegend=False,
        margin={"l": 150, "r": 16, "t": 116, "b": base.margin.b},
        annotations=[*titles, *base.annotations],
    )
    return grid


def _marks(part: pd.DataFrame, measure: str, height: int, *, own: bool) -> dict[str, Any]:
    """The points of one lane: the model's own, open where nothing was done to it, or the random directions'."""
    mark = style.mark_of(str(part["arm"].iloc[0])) if own else style.CONTROL
    empty = own and bool(part["untouched"].iloc[0])
    return {
        "type": "scatter",
        "x": part[measure].to_numpy(),
        "y": [height] * len(part),
        "mode": "markers",
        "cliponaxis": False,
        "marker": {
            "color": mark.colour,
            "symbol": f"{mark.symbol}-open" if empty else mark.symbol,
            "size": 11 if own else 8,
            "line": {"width": 2 if empty else 0, "color": mark.colour},
        },
        "hovertext": [
            _share(name, value, None if measure == "over_refusal" else int(n))
            for name, value, n in zip(part["name"], part[measure], part["n"], strict=True)
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _share(name: str, value: float, count: int | None) -> str:
    """Under the pointer; the table counts the harmful requests only."""
    of = f" of {count}" if count is not None else ""
    return f"{style.plain(name)}<br>{style.percent(value)}{of}" if math.isfinite(value) else ""


_CARRIED_TOP = 146


def probe_transfer(
    rows: pd.DataFrame, *, names: tuple[str, str], arms: tuple[str, str], subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw what each direction's probe reads in two checkpoints, at home and carried over.

    Args:
        rows: direction, fitted, read, auroc; `fitted` and `read` are `one` or `other`.
        names: of both checkpoints.
        arms: of both, for their colours.
        subtitle: run and layer.
        ink: light or dark page.
    """
    directions = list(dict.fromkeys(rows["direction"]))
    left = 30 + round(6.2 * max((len(name) for name in directions), default=6))
    fig = style.figure(
        "Probes carried over",
        subtitle,
        ink,
        height=_CARRIED_TOP + 64 + 24 * max(4, len(directions)),
        left=left,
        caption="Probes fitted in one checkpoint and read in it or in the other, on other prompts. 0.5 tells nothing; "
        "below it the probe reads the wrong way round.",
    )
    colours = style.INKS[ink]
    fig.add_vline(x=0.5, line={"color": colours.rule, "width": 1, "dash": "dot"}, layer="below")
    for place, (fitted, name, arm) in enumerate(zip(("one", "other"), names, arms, strict=True)):
        mark = style.mark_of(arm)
        faint = arms[0] == arms[1] and fitted == "one"  # two steps of one arm: the earlier choice is the paler
        colour = style.fade(mark.colour, 0.5) if faint else mark.colour
        for read, checkpoint in zip(("one", "other"), names, strict=True):
            own = rows[(rows["fitted"] == fitted) & (rows["read"] == read)].set_index("direction")["auroc"]
            home = fitted == read
            title = f"fitted in {style.plain(name)}, read {'there' if home else f'in {style.plain(checkpoint)}'}"
            fig.add_scatter(
                name=title,
                x=[own.get(direction, math.nan) for direction in directions],
                y=[len(directions) - 1 - row for row in range(len(directions))],
                mode="markers",
                cliponaxis=False,
                marker={
                    "color": colour,
                    "symbol": mark.symbol + ("" if home else "-open"),
                    "size": 10 if home else 11,
                    "line": {"width": 0 if home else 1.8, "color": colour},
                },
                hovertemplate=f"{title}<br>AUROC %{{x:.3f}}<extra></extra>",
            )
        fig.add_annotation(
            name="key",
            x=0,
            y=1,
            xref="paper",
            yref="paper",
            xshift=-left,
            yshift=52 - 22 * place,
            xanchor="left",
            showarrow=False,
            font={"size": 13, "color": colours.text},
            text=f"<span style='color:{colour}'>⬤</span> probe of {style.plain(name)}, read there   "
            f"<span style='color:{colour}'>◯</span> read in {style.plain(names[1 - place])}",
        )
    fig.update_yaxes(
        tickvals=list(range(len(directions))),
        ticktext=[style.plain(name) for name in directions[::-1]],
        range=[-0.6, len(directions) - 0.4],
        showgrid=True,
        gridcolor=colours.rule,
        showline=False,
        ticks="",
    )
    fig.update_xaxes(title={"text": "AUROC"}, range=[-0.02, 1.02], nticks=6)
    fig.update_layout(margin={"t": _CARRIED_TOP})
    return fig
