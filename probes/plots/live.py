"""What a prompt does in one or two checkpoints: each token's projection, and the tokens likeliest to come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName
from probes.prompts.tokens import visible

_TOKENS_HEIGHT, _NEXT_ROW, _TOP, _BELOW = 420, 22, 116, 52
_LABELS = 90  # tokens; more names would lie on each other
_LOUD = 4.0  # times the largest of the other tokens: a first token this far out would flatten all the rest
_WORD = 16  # characters of a token in a label
_PUSHED = "with the push"
_CUT: dict[str, Any] = {
    "name": "cut",
    "x": 0,
    "y": 1,
    "xref": "x",
    "yref": "paper",
    "text": " the first token lies outside",
    "xanchor": "left",
    "yanchor": "top",
    "showarrow": False,
}
_TOKENS_CAPTION = (
    "Each token of the rendered prompt: its activation's projection on the direction, in units of the direction's own "
    "length. A single token's projection is no measurement: the run's own numbers are means over prompts."
)
_NEXT_CAPTION = (
    "The model's own probabilities of the next token, without sampling temperature; the likeliest in any column. "
)


def shown_token(text: str) -> str:
    """A token as it can be seen, cut where it is long, escaped for Plotly."""
    seen = visible(text)
    return style.plain(seen[: _WORD - 1] + "…" if len(seen) > _WORD else seen)


def tokens(
    rows: pd.DataFrame,
    checkpoints: Sequence[tuple[str, str, str]],
    *,
    push: float,
    subtitle: str,
    ink: InkName = "light",
) -> go.Figure:
    """Draw each token's projection as bars, one colour a checkpoint, with the push as an outline.

    Args:
        rows: checkpoint, place, token, projection, pushed (NaN without a push).
        checkpoints: (checkpoint, arm, name) of each, in order.
        push: coefficient of the push; 0 is none.
        subtitle: run, layer and direction.
        ink: light or dark page.
    """
    caption = _TOKENS_CAPTION + (f" Outlined: with the push of {style.decimal(push)} at this layer." if push else "")
    fig = style.figure("Token by token", subtitle, ink, height=_TOKENS_HEIGHT, caption=caption, below=96)
    colours = style.INKS[ink]
    width = 0.8 / max(1, len(checkpoints))
    for index, (checkpoint, arm, name) in enumerate(checkpoints):
        own = rows[rows["checkpoint"] == checkpoint].sort_values("place")
        colour, title = style.mark_of(arm).colour, style.plain(name)
        bar = {"x": own["place"] + (index - (len(checkpoints) - 1) / 2) * width, "width": width * 0.86}
        fig.add("bar", **bar, **_projection_bars(own, title, colour if index == 0 else style.fade(colour, 0.55)))
        if push:
            outline = _outline(style.legible(colour, colours))
            fig.add("bar", **bar, **outline, name=f"{title}, {_PUSHED}", y=own["pushed"], showlegend=False)
    first = rows[rows["checkpoint"] == checkpoints[0][0]].sort_values("place")
    fig.update_xaxes(**_token_axis(list(first["place"]), list(first["token"])))
    fig.update_yaxes(title={"text": "projection (‖direction‖)"}, range=list(_limits(rows)), nticks=6)
    fig.add_hline(y=0, line={"color": colours.muted, "width": 1})
    fig.update_layout(
        barmode="overlay",
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )
    if cut_off(rows):
        fig.add_annotation(**_CUT, font={"size": 11, "color": colours.muted})
    return fig.figure()


def _projection_bars(own: pd.DataFrame, title: str, colour: str) -> dict[str, Any]:
    """One checkpoint's projections, token by token."""
    return {
        "name": title,
        "y": own["projection"],
        "hovertext": [
            f"{title}<br>{shown_token(text)}: {style.decimal(value, 3)}"
            for text, value in zip(own["token"], own["projection"], strict=True)
        ],
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _outline(colour: str) -> dict[str, Any]:
    """The look of a bar of what the push does: an outline that says nothing under the pointer."""
    return {"hoverinfo": "skip", "marker": {"color": "rgba(0,0,0,0)", "line": {"color": colour, "width": 1.4}}}


def _token_axis(places: list[int], words: list[str]) -> dict[str, Any]:
    """Names of the tokens; of a long prompt every second, third and so on."""
    every = -(-len(places) // _LABELS) if places else 1
    return {
        "tickvals": places[::every],
        "ticktext": [shown_token(text) for text in words][::every],
        "tickangle": -60 if len(places) > 12 else 0,
        "showline": False,
        "ticks": "",
        "range": [-0.7, max(0, len(places) - 1) + 0.7],
    }


def cut_off(rows: pd.DataFrame) -> bool:
    """Whether the first token, where massive activations live, lies so far out that the axis leaves it out."""
    size = rows[["projection", "pushed"]].abs().max(axis=1)
    first, later = size[rows["place"] == 0], size[rows["place"] > 0]
    return bool(len(later) and len(first) and first.max() > _LOUD * later.max())


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    shown = rows[rows["place"] > 0] if cut_off(rows) else rows
    values = shown[["projection", "pushed"]]
    low, high = min(0.0, float(values.min().min())), max(0.0, float(values.max().max()))
    room = 0.08 * ((high - low) or 1.0)
    return low - room * (low < 0), high + room


def next_tokens(
    rows: pd.DataFrame,
    checkpoints: Sequence[tuple[str, str, str]],
    *,
    push: float,
    subtitle: str,
    ink: InkName = "light",
) -> go.Figure:
    """Draw the probabilities of the next token, one panel a checkpoint, the same tokens in every panel.

    Args:
        rows: checkpoint, token, probability, pushed (NaN without a push); tokens in the order of the rows, the same for
            every checkpoint.
        checkpoints: (checkpoint, arm, name) of each, in order.
        push: coefficient of the push; 0 is none.
        subtitle: run, layer and direction.
        ink: light or dark page.
    """
    caption = _NEXT_CAPTION + (f"Outlined: with the push of {style.decimal(push)}." if push else "")
    words = [shown_token(text) for text in rows[rows["checkpoint"] == checkpoints[0][0]]["token"]]
    height = _TOP + _BELOW + _NEXT_ROW * max(4, len(words))
    base = style.figure("What comes next", subtitle, ink, height=height, caption=caption, below=_BELOW, left=130)
    names = [style.plain(name) for _, _, name in checkpoints]
    grid = Sheet.grid(1, len(names), names, shared_yaxes=True, horizontal_spacing=0.1)
    colours, places = style.INKS[ink], list(range(len(words)))[::-1]
    for column, (checkpoint, arm, _) in enumerate(checkpoints, start=1):
        own = rows[rows["checkpoint"] == checkpoint]
        bar: dict[str, Any] = {"y": places, "orientation": "h", "width": 0.74, "row": 1, "col": column}
        grid.add("bar", **bar, **_probability_bars(own, words, style.fade(style.mark_of(arm).colour, 0.75)))
        if push:
            grid.add("bar", **bar, **_outline(colours.text), x=own["pushed"])
    high = 1.04 * float(rows[["probability", "pushed"]].max().max() or 1.0)
    grid.update_xaxes(title={"text": "probability", "standoff": 6}, range=[0, high], **style.percent_ticks(high))
    grid.update_yaxes(
        tickvals=places,
        ticktext=[f"{word}\u2002" for word in words],
        showline=False,
        ticks="",
        range=[-0.6, len(words) - 0.4],
        tickfont={"size": 13, "color": colours.text},
    )
    grid.update_annotations(font={"size": 13, "color": colours.text})
    return style.dress(grid, base, margin={"r": 16, "t": _TOP}, barmode="overlay").figure()


def _probability_bars(own: pd.DataFrame, words: list[str], colour: str) -> dict[str, Any]:
    """One checkpoint's probabilities of these tokens."""
    return {
        "x": own["probability"],
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertext": [
            _hover(word, probability, pushed)
            for word, probability, pushed in zip(words, own["probability"], own["pushed"], strict=True)
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _hover(word: str, probability: float, pushed: float) -> str:
    more = f"<br>{style.percent(pushed, 2)} {_PUSHED}" if pd.notna(pushed) else ""
    return f"{word}: {style.percent(probability, 2)}{more}"
