"""Two checkpoints side by side, layer by layer: one small picture a measure."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from probes.plots import style
from probes.plots.labels import EndLabel, label_ends
from probes.plots.prompt_marks import PROMPTS, hover_text
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

# column: title, axis limits, and the column that is its reference
_PANELS: tuple[tuple[str, str, tuple[float, float] | None, str | None], ...] = (
    ("distance", "distance (‖v‖)", None, None),
    ("cosine", "cosine", (-1.0, 1.0), None),
    ("cka", "CKA", (0.0, 1.0), None),
    ("overlap", "subspace overlap", (0.0, 1.0), "overlap_random"),
    ("angle_most", "principal angle (°)", (0.0, 90.0), "angle_least"),
    ("transfer", "transfer (AUROC)", (0.0, 1.0), "transfer_back"),
)
_LINE = "#2A6F97"
_CAPTION = (
    "Distance of the means over harmful prompts. Cosine: of both mean displacements from the aligned model (none for the aligned model itself). CKA: "  # noqa: E501
    "similarity of the two layers' prompts whatever the basis, 1 for the same. Overlap: share of ten leading "
    "directions that both have; dotted: of random ones. Angles: solid the largest, dotted the smallest of the ten. "
    "Transfer: a harmful/harmless probe fitted on the first, scored on the second, other prompts; dotted: the reverse."
)


def by_layer(
    rows: pd.DataFrame, *, subtitle: str, names: tuple[str, str], layer: int, ink: InkName = "light"
) -> go.Figure:
    """Draw how two checkpoints differ at each layer; what is not defined for the two is left out.

    Args:
        rows: layer and the columns of `pairs.parquet`, of one pair, `one` first.
        subtitle: run.
        names: of the two checkpoints.
        layer: the selected layer, marked.
        ink: light or dark page.
    """
    title = f"{style.plain(names[0][:1].upper() + names[0][1:])} against {style.plain(names[1])}"
    base = style.figure(title, subtitle, ink, height=640, caption=_CAPTION, left=46)
    panels = [panel for panel in _PANELS if rows[panel[0]].notna().any()]
    grid = Sheet.grid(
        2,
        3,
        [title for _, title, _, _ in panels],
        cells=len(panels),
        shared_xaxes=False,
        horizontal_spacing=0.075,
        vertical_spacing=0.17,
    )
    rows, colours = rows.sort_values("layer"), style.INKS[ink]
    for place, (column, _, limits, reference) in enumerate(panels):
        cell = {"row": place // 3 + 1, "col": place % 3 + 1}
        for name, dash in ((column, "solid"), (reference, "dot")):
            if name is None:
                continue
            values = rows[name] * (180 / math.pi if name.startswith("angle") else 1)
            grid.add(
                "scatter",
                name=name,
                x=rows["layer"],
                y=values,
                mode="lines+markers" if dash == "solid" else "lines",
                line={"color": _LINE if dash == "solid" else colours.muted, "width": 2, "dash": dash},
                marker={"size": 5},
                hovertemplate=f"{name.replace('_', ' ')}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
                **cell,
            )
        grid.add_vline(x=layer, line={"color": colours.rule, "width": 5}, layer="below", **cell)
        if limits is not None:
            room = 0.04 * (limits[1] - limits[0])
            grid.update_yaxes(range=[limits[0] - room, limits[1] + room], **cell)
        else:
            grid.update_yaxes(rangemode="tozero", **cell)
    grid.update_xaxes(title={"text": "layer", "standoff": 4}, nticks=8, tickformat="d", dtick=_every(rows))
    grid.update_yaxes(nticks=5)
    grid.update_annotations(font={"size": 13, "color": colours.text})
    return style.dress(grid, base, margin={"r": 16, "t": 116}).figure()


def _every(rows: pd.DataFrame) -> int:
    return max(1, len(rows) // 6)


def weights_by_kind(rows: pd.DataFrame, *, subtitle: str, names: tuple[str, str], ink: InkName = "light") -> go.Figure:
    """Draw the relative weight drift of each tensor, one line a kind of tensor.

    Args:
        rows: kind, layer (−1 outside the blocks), relative, of one pair of checkpoints.
        subtitle: run.
        names: of the two checkpoints.
        ink: light or dark page.
    """
    caption = (
        "Frobenius norm of the weights' difference over that of the first checkpoint's weights, tensor by tensor. "
        "Tensors outside the blocks stand at the left."
    )
    title = f"How far the weights went, {style.plain(names[0])} to {style.plain(names[1])}"
    fig = style.figure(title, subtitle, ink, height=400, caption=caption)
    labels = []
    high = 1.08 * float(rows["relative"].max() or 1.0)
    for place, (kind, own) in enumerate(rows.groupby("kind")):
        own = own.groupby("layer")["relative"].mean().sort_index()
        colour, dash = _KINDS[place % len(_KINDS)], ("solid", "dash", "dot")[place // len(_KINDS) % 3]
        name, ink_of_it = style.plain(kind), style.legible(colour, style.INKS[ink])
        fig.add(
            "scatter",
            name=str(kind),
            x=own.index,
            y=own,
            mode="lines+markers",
            marker={"size": 6, "color": colour},
            line={"color": colour, "width": 1.8, "dash": dash},
            customdata=[style.percent(value, 2) for value in own],
            hovertemplate=f"{name}, layer %{{x}}: %{{customdata}}<extra></extra>",
        )
        if own.index[-1] >= 0:
            labels.append(EndLabel(float(own.iloc[-1]), name, ink_of_it, 12))
        else:
            fig.add_annotation(
                name="end-label",
                x=own.index[-1],
                y=float(own.iloc[-1]),
                text=name,
                showarrow=False,
                xanchor="left",
                xshift=8,
                font={"size": 12, "color": ink_of_it},
            )
    fig.update_xaxes(title={"text": "layer (−1: outside the blocks)"}, dtick=max(1, int(rows["layer"].max()) // 8 or 1))
    fig.update_yaxes(title={"text": "relative drift"}, range=[0, high], **style.percent_ticks(high))
    fig.update_layout(margin={"r": 150})
    label_ends(fig, labels, (0.0, high), 400 - 148)
    return fig.figure()


_KINDS = ("#4477AA", "#66CCEE", "#228833", "#CCBB44", "#EE6677", "#AA3377", "#888888")  # Tol's bright


def side_by_side(
    rows: pd.DataFrame, *, arms: tuple[str, str], names: tuple[str, str], subtitle: str, ink: InkName = "light"
) -> go.Figure:
    """Draw each prompt's projection in one checkpoint against that in the other.

    Args:
        rows: prompt, label, text, one, other: projections on the reversion direction.
        arms: of both, for the colour of the second.
        names: of both.
        subtitle: run and layer.
        ink: light or dark page.
    """
    caption = (
        "Each point is one probe prompt: its projection on the way back in both checkpoints (0 the aligned mean, 1 the "
        "witness's). On the line it has not moved; above it lies further back in the second. "
        "Filled: harmful; open: harmless."
    )
    fig = style.figure("Where each prompt lies in both", subtitle, ink, height=520, caption=caption)
    colours, mark = style.INKS[ink], style.mark_of(arms[1])
    ends = [float(rows[["one", "other"]].min().min()), float(rows[["one", "other"]].max().max())]
    fig.add(
        "scatter",
        name="same",
        x=ends,
        y=ends,
        mode="lines",
        hoverinfo="skip",
        line={"color": colours.rule, "width": 1.5},
    )
    for label, symbol in (("harmless", "circle-open"), ("harmful", "circle")):
        own = rows[rows["label"] == label]
        fig.add_traces(
            [
                {
                    "type": style.flat_points(len(rows)),
                    "name": label,
                    "meta": PROMPTS,
                    "customdata": own["prompt"].tolist(),
                    "x": own["one"],
                    "y": own["other"],
                    "mode": "markers",
                    "marker": {
                        "color": mark.colour,
                        "symbol": symbol,
                        "size": 7,
                        "opacity": 0.8,
                        "line": {"width": 1, "color": mark.colour},
                    },
                    "hovertext": [hover_text(text) for text in own["text"]],
                    "hovertemplate": f"{label}: %{{x:.2f}} → %{{y:.2f}}<br>%{{hovertext}}<extra></extra>",
                }
            ]
        )
    fig.update_xaxes(title={"text": f"projection in {style.plain(names[0])} (return fraction)"})
    fig.update_yaxes(title={"text": f"in {style.plain(names[1])}"}, scaleanchor="x")
    return fig.figure()
