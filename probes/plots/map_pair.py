"""Two maps side by side: two checkpoints in one map, or one layer beside another; axes and cameras go together."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from probes.plots import style
from probes.plots.style import InkName

_LEFT, _RIGHT = [0.0, 0.485], [0.515, 1.0]


def set_beside(left: go.Figure, right: go.Figure, names: tuple[str, str], ink: InkName, *, one_map: bool) -> go.Figure:
    """One figure of two maps that `manifold` has drawn in the same number of dimensions.

    Two checkpoints of one map are drawn, moved and zoomed to one scale; another layer has its own. In space turning one
    turns the other (the front end does that).

    Args:
        left: whose title, legend and caption are kept.
        right: likewise drawn.
        names: what stands above each.
        ink: light or dark page.
        one_map: whether both are places in the same map.
    """
    deep = any(trace.type == "scatter3d" for trace in left.data)
    move: dict[str, Any] = {"scene": "scene2"} if deep else {"xaxis": "x2", "yaxis": "y2"}
    for trace in right.data:
        if not trace.showlegend:  # the legend is the left one's
            left.add_trace(trace.update(move))
    for note in right.layout.annotations:
        if note.xref == "x":
            left.add_annotation(note.update(xref="x2", yref="y2", axref="x2", ayref="y2"))
    if deep:
        left.update_layout(scene2=right.layout.scene)
        left.layout.scene.domain.x, left.layout.scene2.domain.x = _LEFT, _RIGHT
    else:
        _place_axes(left, right, one_map=one_map)
    for place, name in zip((_LEFT, _RIGHT), names, strict=True):
        left.add_annotation(
            name="panel",
            text=f"<b>{style.plain(name)}</b>",
            x=place[0],
            y=1.0,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="top",
            showarrow=False,
            font={"size": 13, "color": style.INKS[ink].text},
        )
    return left


def _place_axes(left: go.Figure, right: go.Figure, *, one_map: bool) -> None:
    """The right panel's axes beside the left one's; in one map both to the limits of both."""
    left.update_layout(xaxis2=right.layout.xaxis, yaxis2=right.layout.yaxis)
    x, y, x2, y2 = (left.layout[name] for name in ("xaxis", "yaxis", "xaxis2", "yaxis2"))
    x.domain, x2.domain = _LEFT, _RIGHT
    x2.anchor, y2.anchor = "y2", "x2"
    if not one_map:
        y2.scaleanchor = "x2" if y.scaleanchor else None
        return
    for first, second, name in ((x, x2, "x"), (y, y2, "y")):
        ends = [first.range, second.range]
        first.range = second.range = [min(low for low, _ in ends), max(high for _, high in ends)]
        second.matches = name
    y2.update(scaleanchor=None, title={"text": ""})
