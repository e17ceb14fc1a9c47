"""One look for every figure: the colours and marks of each meaning, the type, and the registered Plotly templates.

A colour means one thing in the whole project (Okabe and Ito's palette), and a symbol or a line style says it too.
`gravity` is the template on white, `gravity-dark` the same one on a dark page.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import plotly.graph_objects as go
import plotly.io as pio

from probes.plots.arms import CONTROL as CONTROL
from probes.plots.arms import MARKS as MARKS
from probes.plots.arms import Mark as Mark
from probes.plots.arms import in_order as in_order
from probes.plots.arms import is_control as is_control
from probes.plots.arms import mark_of as mark_of
from probes.plots.sheet import Sheet
from probes.statistics import decimal as decimal
from probes.statistics import percent as percent

InkName = Literal["light", "dark"]
FONT = '"Source Sans", "Source Sans 3", "Helvetica Neue", Helvetica, Arial, sans-serif'
SERIF = '"Source Serif", "Source Serif 4", Georgia, "Times New Roman", serif'
WEBGL_FROM = 6000  # points of a figure; fewer are drawn sooner without a WebGL context, and saved as true vectors
TOP = 84  # pixels above a plot, for title and subtitle
_LEGEND_LINE = 21  # pixels
_LONG_NAME = 18  # characters of a name in a legend, of which two stand in a line
CAPTION_WIDTH = 82  # characters; Plotly does not wrap text, and a figure may be as narrow as 480 pixels


@dataclass(frozen=True)
class Ink:
    """The neutral colours of a page, light or dark."""

    background: str
    text: str
    muted: str
    rule: str
    band: str
    middle: str


INKS: dict[InkName, Ink] = {
    "light": Ink("#FFFFFF", "#1F2328", "#6A7077", "#E3E5E8", "rgba(110,118,128,0.10)", "#F7F7F5"),
    "dark": Ink("#14171A", "#E8E8E4", "#9AA1A9", "#2C3137", "rgba(170,178,188,0.10)", "#1F2428"),
}


def fade(colour: str, opacity: float) -> str:
    """A `#rrggbb` colour with an opacity."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{opacity:g})"


def on_scale(scale: Sequence[tuple[float, str]], share: float) -> str:
    """The colour of a scale ((place, `#rrggbb`), rising from 0 to 1) at a share of it."""
    share = min(max(share, 0.0), 1.0)
    above = next(index for index, (place, _) in enumerate(scale) if place >= share)
    (low, first), (high, second) = scale[max(above - 1, 0)], scale[above]
    part = (share - low) / (high - low) if high > low else 0.0
    channels = zip(_channels(first), _channels(second), strict=True)
    mixed = (round(start + part * (end - start)) for start, end in channels)
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def legible(colour: str, ink: Ink) -> str:
    """The colour moved towards the page's ink, for small type that must be read."""
    mixed = (round(0.6 * own + 0.4 * text) for own, text in zip(_channels(colour), _channels(ink.text), strict=True))
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def edge(mark: Mark, ink: InkName) -> dict[str, Any]:
    """The outline that a role's mark needs to be seen on the page: amber on white is too pale alone."""
    return {"width": 1.4, "color": legible(mark.colour, INKS[ink])}


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def plain(text: object) -> str:
    """Text from a run, made harmless: Plotly reads a little HTML in every label."""
    return html.escape(str(text), quote=False)


def template_name(ink: InkName) -> str:
    """Name of the registered template for a light or dark page."""
    return "gravity" if ink == "light" else "gravity-dark"


def _axis(ink: Ink) -> dict[str, Any]:
    """An axis in the plane."""
    return {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": ink.rule,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": ink.rule,
        "tickfont": {"size": 12, "color": ink.muted},
        "title": {"font": {"size": 13, "color": ink.text}, "standoff": 10},
    }


def _space_axis(ink: Ink) -> dict[str, Any]:
    """An axis in space."""
    return {
        "backgroundcolor": ink.background,
        "gridcolor": ink.rule,
        "zerolinecolor": ink.rule,
        "tickfont": {"size": 11, "color": ink.muted},
        "title": {"font": {"size": 12, "color": ink.text}},
    }


def _title(ink: Ink) -> dict[str, Any]:
    """Title and subtitle, at the figure's own upper left corner."""
    return {
        "font": {"family": SERIF, "size": 18, "color": ink.text},
        "subtitle": {"font": {"family": FONT, "size": 13, "color": ink.muted}},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 14},
    }


def _template(ink: Ink) -> go.layout.Template:
    hover = {"family": FONT, "size": 13, "color": ink.text}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink.text},
            "title": _title(ink),
            "paper_bgcolor": ink.background,
            "plot_bgcolor": ink.background,
            "margin": {"l": 64, "r": 24, "t": TOP, "b": 64},
            "xaxis": _axis(ink),
            "yaxis": _axis(ink),
            "scene": {axis: _space_axis(ink) for axis in ("xaxis", "yaxis", "zaxis")},
            "showlegend": False,
            "legend": {"font": {"size": 12, "color": ink.text}, "title": {"text": ""}},
            "hoverlabel": {"bgcolor": ink.background, "bordercolor": ink.rule, "font": hover, "align": "left"},
            "hovermode": "closest",
            "dragmode": False,
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": ink.muted, "activecolor": ink.text},
        }
    )


for _name, _ink in INKS.items():
    pio.templates[template_name(_name)] = _template(_ink)


@cache
def _template_parts(ink: InkName) -> dict[str, Any]:
    return pio.templates[template_name(ink)].to_plotly_json()


def figure(
    title: str, subtitle: str, ink: InkName, *, height: int, caption: str = "", below: int = 64, left: int = 64
) -> Sheet:
    """A sheet for a figure that will stand alone when saved.

    Args:
        title: what is shown.
        subtitle: run, layer and direction, under the title.
        ink: the page it goes on.
        height: of the whole figure in pixels, without the caption.
        caption: the statistic's definition and what the marks mean, in small type below the axes.
        below: pixels between the plot and the caption, for the axis and its title.
        left: pixels left of the plot, for the axis and its names; title and caption begin at the figure's edge.
    """
    caption = caption.replace(" %", "\u00a0%").replace(" / ", "\u00a0/ ")
    caption = re.sub("⟨.*?⟩", lambda match: match.group().replace(" ", "\u00a0"), caption)
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, CAPTION_WIDTH)]
    room = 16 * len(lines) + 10 if lines else 0
    fig = Sheet(
        layout={
            "template": _template_parts(ink),
            "title": {"text": title, "subtitle": {"text": subtitle}},
            "height": height + room,
            "margin": {"b": below + room, "l": left},
            "uirevision": "keep",
        }
    )
    if lines:
        fig.add_annotation(
            name="caption",
            text="<br>".join(lines),
            xref="paper",
            yref="paper",
            x=0,
            y=0,
            yshift=-below,
            xshift=-left,
            xanchor="left",
            yanchor="top",
            align="left",
            showarrow=False,
            font={"size": 12, "color": INKS[ink].muted},
        )
    return fig


def dress(grid: Sheet, base: Sheet, *, margin: dict[str, int], **layout: Any) -> Sheet:
    """Give a grid of panels the look, title, height and caption of an empty sheet.

    Args:
        grid: the panels; their own titles stay.
        base: what `figure` made.
        margin: sides that differ from the base's, pixels.
        layout: what else is set.
    """
    base.update_layout(margin=margin)
    grid.add_annotations(base.annotations)
    grid.update_layout(**{name: part for name, part in base.layout.items() if name != "annotations"}, **layout)
    return grid


def colour_bar(colours: Ink) -> dict[str, Any]:
    """The thin scale beside a map of colours."""
    return {
        "thickness": 10,
        "len": 1.04,
        "outlinewidth": 0,
        "ticks": "",
        "x": 1.02,
        "nticks": 5,
        "tickfont": {"size": 12, "color": colours.muted},
    }


def legend_above() -> dict[str, Any]:
    """A legend in lines above the plot, which a click does not change."""
    place = {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"}
    return {**place, "itemclick": False, "itemdoubleclick": False}


def legend_room(names: Sequence[str]) -> int:
    """Pixels that a legend of these names needs above a narrow plot, beyond its first two lines."""
    in_a_row = 2 if max(map(len, names), default=0) > _LONG_NAME else 3
    return _LEGEND_LINE * max(0, -(-len(names) // in_a_row) - 2)


def percent_ticks(high: float) -> dict[str, Any]:
    """Tick values of an axis of shares from 0 to `high` and their texts, as `19 %`: three to six, at round numbers."""
    high = high if math.isfinite(high) and high > 0 else 1.0
    scale = 10.0 ** math.floor(math.log10(high))
    step = next(factor * scale for factor in (0.2, 0.5, 1.0, 2.0) if high <= 5 * factor * scale)
    places = max(0, -math.floor(math.log10(100 * step) + 1e-9))
    values = [count * step for count in range(math.floor(high / step + 1e-9) + 1)]
    return {"tickvals": values, "ticktext": [percent(value, places) for value in values]}


def flat_points(count: int) -> str:
    """The kind of trace that draws so many points in the plane smoothly."""
    return "scattergl" if count > WEBGL_FROM else "scatter"
