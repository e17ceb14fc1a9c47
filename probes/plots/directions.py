"""Directions: how one turned over a fine-tuning run, and what its probe still reads."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import EARLIER, ROLES
from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.step_axis import TITLE, StepAxis
from probes.plots.style import InkName
from probes.statistics import statistic_of

# column of `direction_tracks`: panel title, axis limits
_PANELS: tuple[tuple[str, str, tuple[float, float] | None], ...] = (
    ("angle", "turned from the aligned model's (°)", None),
    ("norm", "gap between the classes (activation norm)", None),
    ("auroc", "the aligned model's probe, read here (AUROC)", (0.0, 1.0)),
    ("refit", "a probe refitted here (AUROC)", (0.0, 1.0)),
)
_PANEL = 175.0  # pixels that a panel is wide on a narrow page
_TURN_TOP, _TURN_HEIGHT = 137, 641  # pixels, with a legend of two lines
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
    base = style.figure(title, subtitle, ink, height=_TURN_HEIGHT, caption=_CAPTION, left=52)
    grid = Sheet.grid(2, 2, [text for _, text, _ in _PANELS], horizontal_spacing=0.1, vertical_spacing=0.17)
    runs = rows[~rows["arm"].isin(ROLES)]
    axis, colours = StepAxis.of([0, *runs["step"]]), style.INKS[ink]
    roles = rows[rows["arm"].isin(ROLES)].groupby("arm", observed=True)[[column for column, *_ in _PANELS]].first()
    traces: list[list[dict[str, Any]]] = []
    rules: list[dict[str, Any]] = []
    for place, (column, _, limits) in enumerate(_PANELS):
        cell = {"row": place // 2 + 1, "col": place % 2 + 1}
        traces.append(_references(roles[column].dropna(), axis, named=place == 0))
        rules += _rules(roles[column].dropna(), column, place, colours)
        for arm in style.in_order(runs["arm"])[::-1]:
            for order, (seed, run) in enumerate(runs[runs["arm"] == arm].groupby("seed")):
                own = run.sort_values("step")
                if (arm, seed) == chosen:
                    traces[-1] += _band(own, arm, column, axis)
                traces[-1].append(_line(own, arm, int(seed), column, axis, named=place == order == 0))
        low, high = limits or (0.0, float(rows[column].max()) if rows[column].notna().any() else 1.0)
        room = 0.05 * ((high - low) or 1.0)
        grid.update_yaxes(range=[low - room, high + room], nticks=6, **cell)
    places = [place for place, panel in enumerate(traces) for _ in panel]
    grid.add_traces(
        [trace for panel in traces for trace in panel],
        rows=[place // 2 + 1 for place in places],
        cols=[place % 2 + 1 for place in places],
    )
    grid.update_xaxes(**axis.ticks(_PANEL))
    grid.update_xaxes(title={"text": TITLE, "standoff": 4}, row=2)
    grid.update_annotations(font={"size": 13, "color": colours.text})
    above = style.legend_room([trace["name"] for trace in traces[0] if trace["showlegend"]])
    base.update_layout(height=base.height + above)
    return style.dress(
        grid,
        base,
        margin={"r": 16, "t": _TURN_TOP + above},
        shapes=rules,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.07, "yanchor": "bottom", "traceorder": "reversed"},
    ).figure()


def _rules(roles: pd.Series, column: str, place: int, colours: style.Ink) -> list[dict[str, Any]]:
    """Thin lines across a panel: where the witness and the pretrained model lie, and the half of an AUROC."""
    at = "" if place == 0 else str(place + 1)
    across = {"type": "line", "xref": f"x{at} domain", "yref": f"y{at}", "x0": 0, "x1": 1, "layer": "below"}
    rules = []
    for role in EARLIER:
        if role in roles:
            value, line = float(roles[role]), {"color": style.fade(style.mark_of(role).colour, 0.6), "width": 1.1}
            rules.append({**across, "y0": value, "y1": value, "line": line})
    if column in ("auroc", "refit"):
        rules.append({**across, "y0": 0.5, "y1": 0.5, "line": {"color": colours.rule, "width": 1, "dash": "dot"}})
    return rules


def _references(roles: pd.Series, axis: StepAxis, *, named: bool) -> list[dict[str, Any]]:
    """The marks of the roles, apart at the left."""
    marks = []
    for role in reversed(ROLES):
        if role in roles:
            mark = style.mark_of(role)
            marks.append(
                {
                    "type": "scatter",
                    "name": role,
                    "x": [axis.zero],
                    "y": [float(roles[role])],
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
        "showlegend": named,
        "line": {"color": mark.colour, "dash": mark.dash, "width": mark.width},
        "marker": {"symbol": mark.symbol, "size": 6, "color": mark.colour},
        "customdata": [[step, style.decimal(cosine)] for step, cosine in zip(run["step"], run["cosine"], strict=True)],
        "hovertemplate": f"{style.plain(arm)}, seed {seed}, step %{{customdata[0]}}<br>"
        f"{style.plain(statistic_of(column).title)} %{{y:.3f}} (cosine to the aligned model's %{{customdata[1]}})"
        "<extra></extra>",
    }


_CARRIED_TOP = 146
_CARRIED_CAPTION = (
    "Probes fitted in one checkpoint and read in it or in the other, on other prompts. 0.5 tells nothing; "
    "below it the probe reads the wrong way round."
)


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
        caption=_CARRIED_CAPTION,
    )
    colours = style.INKS[ink]
    fig.add_vline(x=0.5, line={"color": colours.rule, "width": 1, "dash": "dot"}, layer="below")
    for place, fitted in enumerate(("one", "other")):
        colour = _probe_colour(arms, place)
        own = rows[rows["fitted"] == fitted]
        for read in ("one", "other"):
            read_here = own[own["read"] == read].set_index("direction")["auroc"]
            auroc = [read_here.get(direction, math.nan) for direction in directions]
            fig.add("scatter", **_reads(auroc, arms[place], colour, names, home=fitted == read, place=place))
        fig.add_annotation(**_key(names, place, colour, left), font={"size": 13, "color": colours.text})
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
    return fig.figure()


def _probe_colour(arms: tuple[str, str], place: int) -> str:
    """The checkpoint's colour; of two steps of one arm, the first choice is the paler."""
    colour = style.mark_of(arms[place]).colour
    return style.fade(colour, 0.5) if arms[0] == arms[1] and place == 0 else colour


def _reads(
    auroc: list[float], arm: str, colour: str, names: tuple[str, str], *, home: bool, place: int
) -> dict[str, Any]:
    """What the probes of one checkpoint read in it (filled) or in the other (open), a lane a direction."""
    where_read = "there" if home else f"in {style.plain(names[1 - place])}"
    title = f"fitted in {style.plain(names[place])}, read {where_read}"
    return {
        "name": title,
        "x": auroc,
        "y": list(range(len(auroc)))[::-1],
        "mode": "markers",
        "cliponaxis": False,
        "marker": {
            "color": colour,
            "symbol": style.mark_of(arm).symbol + ("" if home else "-open"),
            "size": 10 if home else 11,
            "line": {"width": 0 if home else 1.8, "color": colour},
        },
        "hovertemplate": f"{title}<br>AUROC %{{x:.3f}}<extra></extra>",
    }


def _key(names: tuple[str, str], place: int, colour: str, left: int) -> dict[str, Any]:
    """A line of the key above the plot."""
    return {
        "name": "key",
        "x": 0,
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xshift": -left,
        "yshift": 52 - 22 * place,
        "xanchor": "left",
        "showarrow": False,
        "text": f"<span style='color:{colour}'>⬤</span> probe of {style.plain(names[place])}, read there   "
        f"<span style='color:{colour}'>◯</span> read in {style.plain(names[1 - place])}",
    }
