"""Per-prompt projections on the reversion direction: harmful above the line, harmless below, one row a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from probes.plots import style
from probes.plots.sheet import Sheet
from probes.plots.style import InkName

_ROW, _TOP, _BELOW = 92, 84, 64
_HEIGHT = 0.40  # of a row, the highest point of a density
# Points drawn a class and row, and in all, evenly taken; more only darken the strips, and take time to draw.
_AT_MOST, _IN_ALL, _FEWEST = 80, 1600, 8
_TEXT = 140  # characters of a prompt under the pointer
_MARKS = "Filled, above the line: harmful prompts. Open, below: harmless ones. Ticks: means."
_CAPTION = (
    "Each point is one probe prompt: its activation's projection on the reversion direction, in units of the "
    f"distance between the aligned model's and the witness's means on harmful prompts. {_MARKS}"
)


def projections(
    table: pd.DataFrame,
    checkpoints: Sequence[tuple[str, str]],
    *,
    subtitle: str,
    direction: str = "",
    ink: InkName = "light",
) -> go.Figure:
    """Draw densities and strips.

    Args:
        table: checkpoint, arm, label, projection, text, at one layer.
        checkpoints: (checkpoint, name) of each row, from the top.
        subtitle: run, layer and direction.
        direction: what the projections are on, in the activations' units; empty for the reversion, whose unit is the
            return fraction.
        ink: light or dark page.
    """
    left = max(64, 26 + 7 * max((len(name) for _, name in checkpoints), default=8))
    height = _TOP + _BELOW + _ROW * max(1, len(checkpoints))
    most = min(_AT_MOST, max(_FEWEST, _IN_ALL // max(1, 2 * len(checkpoints))))
    caption = _caption(direction, table, most)
    fig = style.figure("Prompt by prompt", subtitle, ink, height=height, caption=caption, below=_BELOW, left=left)
    colours = style.INKS[ink]
    for place in (0, 1) if not direction else ():
        fig.add_vline(x=place, line={"color": colours.rule, "width": 1}, layer="below")
    curves = _curves(table, [checkpoint for checkpoint, _ in checkpoints])
    peak = _peak(curves.values())
    for index, (checkpoint, name) in enumerate(checkpoints):
        rows, level = table[table["checkpoint"] == checkpoint], -float(index)
        if rows.empty:
            continue
        mark = style.mark_of(str(rows["arm"].iloc[0]))
        fig.add_hline(y=level, line={"color": colours.rule, "width": 1}, layer="below")
        for label, side in (("harmful", 1), ("harmless", -1)):
            if (checkpoint, label) in curves:
                own, curve = rows[(rows["label"] == label) & rows["projection"].notna()], curves[checkpoint, label]
                thinned = own.iloc[:: -(-len(own) // most)]
                _half(fig, own, thinned, curve, label, name, level, side, mark, peak)
        fig.add_annotation(
            name="row",
            x=0,
            xref="paper",
            xshift=-10,
            y=level,
            text=style.plain(name),
            showarrow=False,
            xanchor="right",
            font={"size": 13, "color": style.legible(mark.colour, colours)},
        )
    fig.update_yaxes(visible=False, range=[-len(checkpoints) + 0.45, 0.55])
    unit = "activation units" if direction else "return fraction: 0 aligned mean, 1 witness mean"
    fig.update_xaxes(title={"text": f"projection ({unit})"}, nticks=9)
    return fig.figure()


def _caption(direction: str, table: pd.DataFrame, most: int) -> str:
    every = int(table.groupby(["checkpoint", "label"]).size().max()) if len(table) else 0
    thinned = f" Of {every:,} prompts a class at most {most} are drawn as points." if every > most else ""
    if not direction:
        return _CAPTION + thinned
    return (
        f"Each point is one probe prompt: its activation's projection on the aligned model's direction "
        f"{style.plain(direction)}, in activation units. {_MARKS}{thinned}"
    )


def density(values: Float[np.ndarray, " prompt"], grid: Float[np.ndarray, " place"]) -> Float[np.ndarray, " place"]:
    """Gaussian kernel density on `grid`, bandwidth by Silverman's rule; a single value is a narrow bump."""
    spread = min(np.std(values), np.subtract(*np.percentile(values, [75, 25])) / 1.349) if len(values) > 1 else 0.0
    width = max(0.9 * spread * len(values) ** -0.2, 0.01)
    bumps = np.exp(-0.5 * ((grid[:, None] - values[None, :]) / width) ** 2)
    return bumps.sum(axis=1) / (len(values) * width * np.sqrt(2 * np.pi))


def _grid(values: np.ndarray) -> np.ndarray:
    room = 0.25 * (np.ptp(values) or 0.2)
    return np.linspace(values.min() - room, values.max() + room, 161)


Curve = tuple[Float[np.ndarray, " place"], Float[np.ndarray, " place"]]


def _curves(table: pd.DataFrame, checkpoints: Sequence[str]) -> dict[tuple[str, str], Curve]:
    """The density of each checkpoint and class that has prompts, with the places at which it is given."""
    shown = table[table["checkpoint"].isin(checkpoints)].dropna(subset=["projection"])
    values = {
        name: own.to_numpy(dtype=np.float64) for name, own in shown.groupby(["checkpoint", "label"])["projection"]
    }
    grids = {name: _grid(own) for name, own in values.items()}
    return {name: (grid, density(values[name], grid)) for name, grid in grids.items()}


def _peak(curves: Iterable[Curve]) -> float:
    """The highest density: every row is drawn to one scale, except that a very narrow one may not flatten the rest."""
    tops = [float(heights.max()) for _, heights in curves]
    return float(min(max(tops), 3 * np.median(tops))) if tops else 1.0


def _half(
    fig: Sheet,
    rows: pd.DataFrame,
    shown: pd.DataFrame,
    density_curve: Curve,
    label: str,
    name: str,
    level: float,
    side: int,
    mark: style.Mark,
    peak: float,
) -> None:
    grid, heights = density_curve
    curve = level + side * np.minimum(_HEIGHT * heights / peak, _HEIGHT * 1.08)
    filled = label == "harmful"
    title = f"{style.plain(name)}, {label}"
    fig.add(
        "scatter",
        name=f"density {name} {label}",
        x=[grid[0], *grid, grid[-1]],
        y=[level, *curve, level],
        mode="lines",
        fill="toself",
        fillcolor=style.fade(mark.colour, 0.42 if filled else 0.10),
        hoverinfo="skip",
        line={
            "color": style.fade(mark.colour, 0.95 if filled else 0.6),
            "width": 1.2,
            "dash": "solid" if filled else "dot",
        },
    )
    fig.add(
        "scatter",
        name=f"prompts {name} {label}",
        x=shown["projection"],
        y=[level + side * 0.05] * len(shown),
        mode="markers",
        marker={
            "symbol": "circle" if filled else "circle-open",
            "size": 5,
            "opacity": 0.55,
            "color": mark.colour,
            "line": {"width": 0.8, "color": mark.colour},
        },
        hovertext=[_prompt(text) for text in shown["text"].tolist()],
        hovertemplate=f"<b>{title}</b>: %{{x:.2f}}<br>%{{hovertext}}<extra></extra>",
    )
    mean = float(rows["projection"].to_numpy(dtype=np.float64).mean())
    fig.add(
        "scatter",
        name=f"mean {name} {label}",
        x=[mean, mean],
        y=[level, level + side * 0.30],
        mode="lines",
        line={"color": mark.colour, "width": 2.4},
        hovertemplate=f"{title}<br>mean {style.decimal(mean, 3)}<extra></extra>",
    )


def _prompt(text: object) -> str:
    """A prompt for the pointer: escaped, broken into lines, cut where it is long."""
    shown = " ".join(str(text).split())
    shown = shown[: _TEXT - 1] + "…" if len(shown) > _TEXT else shown
    return "<br>".join(style.plain(shown[start : start + 70]) for start in range(0, len(shown), 70))
