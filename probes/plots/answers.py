"""Answers under interventions: shares of refusals and compliance, beside those under random directions."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_MEDIATION_ROW = 26
_MEDIATION_CAPTION = (
    "Necessity: the fine-tuned checkpoint with each prompt's projection on the reversion clamped to its value in the "
    "aligned model. Sufficiency: the other way round. Controls: other directions clamped likewise, isotropic or with "
    "the activations' covariance, every draw a point. Only what the reversion does and the controls do not is its own."
)
_KINDS = {"none": "as it is", "reversion": "along the reversion", "random": "random", "covariance": "random, matched"}
_MEASURES = {
    "refusal": "refused",
    "compliance": "complied",
    "incoherent": "incoherent",
    "over_refusal": "refused harmless ones",
}


def mediation(rows: pd.DataFrame, *, arm: str, subtitle: str, ink: InkName = "light") -> go.Figure:
    """Draw what harmful requests meet with and without the motion along the reversion, beside control directions.

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
    lanes = [words for words in _KINDS.values() if words in set(rows["lane"].unique())]
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
    base = style.figure(title, subtitle, ink, height=height, caption=caption, left=150)
    grid = Sheet.grid(
        max(1, len(groups)),
        len(measures),
        [f"{group}: {_MEASURES[name]}".removeprefix(": ") for group in groups for name in measures],
        shared_yaxes=True,
        shared_xaxes=True,
        horizontal_spacing=0.075,
        vertical_spacing=0.14 if len(groups) > 1 else 0.0,
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
    return style.dress(grid, base, margin={"r": 16, "t": 116}, showlegend=False).figure()


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
