"""What a prompt does in one or two checkpoints: each token's projection, and the tokens likeliest to come next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from probes.plots import style
from probes.plots.style import InkName
from probes.prompts.tokens import visible

_TOKENS_HEIGHT, _NEXT_ROW, _TOP, _BELOW = 420, 22, 116, 52
_LABELS = 90  # tokens; more names would lie on each other
_LOUD = 4.0  # times the largest of the other tokens: a first token this far out would flatten all the rest
_WORD = 16  # characters of a token in a label
_PUSHED = "with the push"
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
        mark = style.mark_of(arm)
        places = own["place"] + (index - (len(checkpoints) - 1) / 2) * width
        title = style.plain(name)
        hover = [
            f"{title}<br>{shown_token(text)}: {style.decimal(value, 3)}"
            for text, value in zip(own["token"], own["projection"], strict=True)
        ]
        fig.add_bar(
            name=title,
            x=places,
            y=own["projection"],
            width=width * 0.86,
            hovertext=hover,
            marker={"color": mark.colour if index == 0 else style.fade(mark.colour, 0.55), "line": {"width": 0}},
            hovertemplate="%{hovertext}<extra></extra>",
        )
        if push:
            fig.add_bar(
                name=f"{title}, {_PUSHED}",
                x=places,
                y=own["pushed"],
                width=width * 0.86,
                hoverinfo="skip",
                marker={"color": "rgba(0,0,0,0)", "line": {"color": style.legible(mark.colour, colours), "width": 1.4}},
                showlegend=False,
            )
    first = rows[rows["checkpoint"] == checkpoints[0][0]].sort_values("place")
    every = -(-len(first) // _LABELS) if len(first) else 1
    fig.update_xaxes(
        tickvals=list(first["place"])[::every],
        ticktext=[shown_token(text) for text in first["token"]][::every],
        tickangle=-60 if len(first) > 12 else 0,
        showline=False,
        ticks="",
        range=[-0.7, max(0, len(first) - 1) + 0.7],
    )
    low, high = _limits(rows)
    fig.update_yaxes(title={"text": "projection (‖direction‖)"}, range=[low, high], nticks=6)
    fig.add_hline(y=0, line={"color": colours.muted, "width": 1})
    fig.update_layout(
        barmode="overlay",
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )
    if cut_off(rows):
        fig.add_annotation(
            name="cut",
            x=0,
            y=1,
            xref="x",
            yref="paper",
            text=" the first token lies outside",
            xanchor="left",
            yanchor="top",
            showarrow=False,
            font={"size": 11, "color": colours.muted},
        )
    return fig


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
    base = style.figure("What comes next", subtitle, ink, height=height, caption=caption, below=_BELOW, left=130).layout
    grid = make_subplots(
        1,
        len(checkpoints),
        shared_yaxes=True,
        horizontal_spacing=0.1,
        subplot_titles=[style.plain(name) for _, _, name in checkpoints],
    )
    colours, high = style.INKS[ink], float(rows[["probability", "pushed"]].max().max() or 1.0)
    places = list(range(len(words)))[::-1]
    for column, (checkpoint, arm, _) in enumerate(checkpoints, start=1):
        own, mark = rows[rows["checkpoint"] == checkpoint], style.mark_of(arm)
        grid.add_bar(
            x=own["probability"],
            y=places,
            orientation="h",
            width=0.74,
            row=1,
            col=column,
            marker={"color": style.fade(mark.colour, 0.75), "line": {"width": 0}},
            hovertext=[
                _hover(word, probability, pushed)
                for word, probability, pushed in zip(words, own["probability"], own["pushed"], strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        if push:
            grid.add_bar(
                x=own["pushed"],
                y=places,
                orientation="h",
                width=0.74,
                row=1,
                col=column,
                hoverinfo="skip",
                marker={"color": "rgba(0,0,0,0)", "line": {"color": colours.text, "width": 1.4}},
            )
    high *= 1.04
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
    titles = list(grid.layout.annotations)
    grid.update_layout(
        template=base.template,
        title=base.title,
        height=base.height,
        uirevision="keep",
        barmode="overlay",
        margin={"l": 130, "r": 16, "t": _TOP, "b": base.margin.b},
        annotations=[*titles, *base.annotations],
    )
    return grid


def _hover(word: str, probability: float, pushed: float) -> str:
    more = f"<br>{style.percent(pushed, 2)} {_PUSHED}" if pd.notna(pushed) else ""
    return f"{word}: {style.percent(probability, 2)}{more}"
