"""Two maps side by side: two checkpoints in one map, or one layer beside another; axes and cameras go together."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from probes.plots import style
from probes.plots.sheet import Sheet
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
    pair, second = Sheet.of(left.to_dict()), Sheet.of(right.to_dict())
    deep = any(trace["type"] == "scatter3d" for trace in pair.data)
    move: dict[str, Any] = {"scene": "scene2"} if deep else {"xaxis": "x2", "yaxis": "y2"}
    pair.add_traces(trace | move for trace in second.data if not trace.get("showlegend"))  # the legend is the left's
    beside = {"xref": "x2", "yref": "y2", "axref": "x2", "ayref": "y2"}
    pair.add_annotations(note | beside for note in second.annotations if note.get("xref") == "x")
    if deep:
        pair.update_layout(scene={"domain": {"x": _LEFT}}, scene2=second.layout["scene"])
        pair.update_layout(scene2={"domain": {"x": _RIGHT}})
    else:
        _place_axes(pair, second, one_map=one_map)
    for place, name in zip((_LEFT, _RIGHT), names, strict=True):
        pair.add_annotation(
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
    return pair.figure()


def _place_axes(pair: Sheet, right: Sheet, *, one_map: bool) -> None:
    """The right panel's axes beside the left one's; in one map both to the limits of both."""
    x, y, x2, y2 = (sheet.layout[name] for sheet in (pair, right) for name in ("xaxis", "yaxis"))
    pair.update_layout(
        xaxis={"domain": _LEFT},
        xaxis2=x2 | {"domain": _RIGHT, "anchor": "y2"},
        yaxis2=y2 | {"anchor": "x2"},
    )
    if not one_map:
        pair.update_layout(yaxis2={"scaleanchor": "x2" if y.get("scaleanchor") else None})
        return
    for name, first, second in (("x", x, x2), ("y", y, y2)):
        ends = [first["range"], second["range"]]
        whole = [min(low for low, _ in ends), max(high for _, high in ends)]
        pair.update_layout(**{f"{name}axis": {"range": whole}, f"{name}axis2": {"range": whole, "matches": name}})
    pair.update_layout(yaxis2={"scaleanchor": None, "title": {"text": ""}})
