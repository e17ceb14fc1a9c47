"""The lineage to scale: pretrained, witness and aligned on the way they came, and how far each arm went back."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.lineage import MIRROR, ROLES
from probes.plots import style
from probes.plots.limits import far_arms, leave
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_LANE, _TOP, _BELOW = 44, 100, 62
_CAPTION = (
    "Top lane: the history, drawn from the witness (1) to the aligned model (0). Below: each arm, from the aligned "
    "model to its last step; markers grow with the step. Whisker: 95 % interval over prompts, "
    "or from the lowest to the highest of several seeds, of which marks and numbers are the mean. "
    "‖δ‖: distance from the aligned model in activation units."
)

_BEFORE_LANE: dict[str, Any] = {
    "x": 0,
    "xref": "paper",
    "xshift": -12,
    "y": 0,
    "xanchor": "right",
    "showarrow": False,
}


def lineage_path(rows: pd.DataFrame, *, subtitle: str, witness: str = "witness", ink: InkName = "light") -> go.Figure:
    """Draw the lineage along the way back.

    Args:
        rows: arm, seed, step, return_fraction, low, high, distance, at one layer; roles at step 0.
        subtitle: run, layer and direction.
        witness: the witness's label, which says when something stands in for it.
        ink: light or dark page.
    """
    arms = style.in_order(set(rows["arm"].unique()) - set(ROLES))
    height = _TOP + _BELOW + _LANE * (len(arms) + 1)
    left = max(84, 24 + 7 * max((len(_name(rows, arm)) for arm in arms), default=8))
    fig = style.figure(
        "From the aligned model, back", subtitle, ink, height=height, caption=_CAPTION, below=_BELOW, left=left
    )
    colours = style.INKS[ink]
    for place in (0, 1):
        fig.add_vline(x=place, line={"color": colours.rule, "width": 1}, layer="below")
    reach = _history(fig, rows, witness, ink)
    lanes = {arm: _arm_lane(fig, rows[rows["arm"] == arm], arm, -lane, ink) for lane, arm in enumerate(arms, start=1)}
    far = far_arms(lanes, reach)
    reach += [place for arm, lane in lanes.items() if arm not in far for place in lane]
    low, high = min([-0.12, *reach]), max([1.12, *reach])
    for lane, arm in enumerate(arms, start=1):
        if arm in far:
            way = [(place, -float(lane)) for place in lanes[arm]]
            fig.add_annotations(leave(way, (low - 0.06, high + 0.06), (-len(arms) - 0.55, 0.75), "", arm, ink)[:1])
    fig.update_xaxes(
        title={"text": "return fraction (0 aligned, 1 witness)"}, range=[low - 0.06, high + 0.06], tickvals=[0, 0.5, 1]
    )
    fig.update_yaxes(visible=False, range=[-len(arms) - 0.55, 0.75])
    fig.update_layout(margin={"r": 184, "t": _TOP})
    _column_heads(fig, colours.muted)
    return fig.figure()


def lineage_rows(drift: pd.DataFrame) -> pd.DataFrame:
    """The rows that `lineage_path` draws, from the drift table of one layer.

    A mirror has no lane: its return begins at the witness.
    """
    names = ["arm", "seed", "step"]
    drift = drift[drift["arm"] != MIRROR]
    fraction = drift[drift["statistic"] == "return_fraction"][[*names, "value", "low", "high"]]
    distance = drift[drift["statistic"] == "displacement_norm"][[*names, "value"]]
    joined = fraction.merge(distance, on=names, how="left", suffixes=("", "_distance"))
    return joined.rename(columns={"value": "return_fraction", "value_distance": "distance"})


def _name(rows: pd.DataFrame, arm: str) -> str:
    seeds = rows[rows["arm"] == arm]["seed"].nunique()
    return f"{arm} ({seeds} seeds)" if seeds > 1 else arm


def _history(fig: Sheet, rows: pd.DataFrame, witness: str, ink: InkName) -> list[float]:
    """The top lane: roles where they lie, joined in the order of their making."""
    places = {"witness": 1.0, "aligned": 0.0}
    pretrained = rows[rows["arm"] == "pretrained"]["return_fraction"]
    if len(pretrained) and math.isfinite(pretrained.iloc[0]):
        places = {"pretrained": float(pretrained.iloc[0]), **places}
    path = list(places.values())
    colours = style.INKS[ink]
    line = {"color": colours.muted, "width": 1.4}
    fig.add("scatter", name="history", x=path, y=[0] * len(path), mode="lines", hoverinfo="skip", line=line)
    distance = dict(zip(rows["arm"], rows["distance"], strict=True))
    sides = _sides(places, [*path, *rows["return_fraction"].dropna()])
    for role, place in places.items():
        fig.add("scatter", **_role_mark(role, place, distance.get(role, 0.0), ink))
        fig.add_annotation(
            **_role_name(role, place, sides[role]),
            text=style.plain(witness) if role == "witness" else role,
            font={"size": 13, "color": style.legible(style.mark_of(role).colour, colours)},
        )
    if math.isfinite(distance.get("witness", math.nan)):
        fig.add_annotation(
            **_BEFORE_LANE,
            name="distance",
            text=f"‖v‖ = {style.decimal(distance['witness'])}",
            yshift=-16,
            font={"size": 12, "color": colours.muted},
        )
    fig.add_annotation(**_BEFORE_LANE, name="lane", text="history", font={"size": 13, "color": colours.muted})
    return [*path]


def _sides(places: dict[str, float], reach: list[float]) -> dict[str, str]:
    """How each role's name is anchored: centred, and outwards where pretrained model and witness lie close together.

    There the aligned model's name makes room for the pretrained one's.
    """
    pretrained = places.get("pretrained", math.inf)
    if abs(pretrained - 1) >= 0.35 * max(1.0, max(reach) - min(reach)):  # on a narrow page, room for both names
        return dict.fromkeys(places, "center")
    if pretrained < 1:
        return {"pretrained": "right", "witness": "left", "aligned": "right"}
    return {"pretrained": "left", "witness": "right", "aligned": "center"}


def _role_mark(role: str, place: float, distance: float, ink: InkName) -> dict[str, Any]:
    mark = style.mark_of(role)
    return {
        "name": role,
        "x": [place],
        "y": [0],
        "mode": "markers",
        "marker": {"color": mark.colour, "symbol": mark.symbol, "size": 15, "line": style.edge(mark, ink)},
        "hovertemplate": f"{role}<br>return fraction {style.decimal(place)}"
        f"<br>‖δ‖ {style.decimal(distance)}<extra></extra>",
    }


def _role_name(role: str, place: float, side: str) -> dict[str, Any]:
    """Where a role's name stands, above its mark."""
    return {
        "name": "role",
        "x": place,
        "y": 0,
        "showarrow": False,
        "yshift": 20,
        "xanchor": side,
        "xshift": -7 if role == "aligned" and side == "right" else 0,
    }


def _arm_lane(fig: Sheet, rows: pd.DataFrame, arm: str, lane: int, ink: InkName) -> list[float]:
    """One arm: its checkpoints as growing markers, its last step's interval, its numbers in the right columns."""
    mark, colours = style.mark_of(arm), style.INKS[ink]
    mean = rows.groupby("step")[["return_fraction", "distance"]].mean()
    mean = mean[mean["return_fraction"].notna()]
    if mean.empty:
        return []
    places = [0.0, *mean["return_fraction"]]
    sizes = [0.0, *(5 + 8 * (rank + 1) / len(mean) for rank in range(len(mean)))]
    fig.add(
        "scatter",
        name=arm,
        x=places,
        y=[lane] * len(places),
        mode="lines+markers",
        line={"color": mark.colour, "dash": mark.dash, "width": mark.width},
        marker={"color": mark.colour, "symbol": mark.symbol, "size": sizes, "opacity": 1, "line": {"width": 0}},
        customdata=[0, *mean.index],
        hovertemplate=f"{style.plain(arm)}<br>step %{{customdata}}: %{{x:.3f}}<extra></extra>",
    )
    last = rows[rows["step"] == rows["step"].max()]
    reach = places + _whisker(fig, last, lane, mark.colour)
    name = f"{style.plain(arm)} ({last['seed'].nunique()} seeds)" if last["seed"].nunique() > 1 else style.plain(arm)
    end, distance = float(mean["return_fraction"].iloc[-1]), float(mean["distance"].iloc[-1])
    fig.add_annotations(
        [
            _lane_text(name, 0, -12, lane, style.legible(mark.colour, colours)),
            _lane_text(style.decimal(end), 1, 76, lane, colours.text),
            _lane_text(style.decimal(distance), 1, 168, lane, colours.muted),
        ],
    )
    return reach


def _lane_text(text: str, place: int, shift: int, lane: int, colour: str) -> dict[str, Any]:
    """Text that ends so many pixels from the plot's left edge (0) or right one (1), at a lane."""
    return {
        "name": "lane",
        "x": place,
        "xref": "paper",
        "xshift": shift,
        "y": lane,
        "text": text,
        "showarrow": False,
        "xanchor": "right",
        "font": {"size": 13, "color": colour},
    }


def _whisker(fig: Sheet, last: pd.DataFrame, lane: int, colour: str) -> list[float]:
    """The interval of the last step; with several seeds, from the lowest seed to the highest."""
    low, high = (last["low"], last["high"]) if len(last) == 1 else (last["return_fraction"], last["return_fraction"])
    ends = [float(low.min()), float(high.max())]
    if not all(map(math.isfinite, ends)):
        return []
    fig.add(
        "scatter",
        name="interval",
        x=ends,
        y=[lane, lane],
        mode="lines+markers",
        hoverinfo="skip",
        line={"color": style.fade(colour, 0.55), "width": 1.2},
        marker={"symbol": "line-ns-open", "size": 10, "color": style.fade(colour, 0.8)},
    )
    return ends


def _column_heads(fig: Sheet, colour: str) -> None:
    heads = [_lane_text(text, 1, shift, 0, colour) for text, shift in (("went back", 76), ("distance ‖δ‖", 168))]
    fig.add_annotations([head | {"font": {"size": 12, "color": colour}} for head in heads])
