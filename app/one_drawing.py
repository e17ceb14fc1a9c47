"""A figure as it is sent to the browser, so that Plotly draws it once.

Streamlit's chart hands Plotly every figure a second time, as a copy. Plotly then compares: it draws nothing where
`layout.datarevision` is the same, no template has come anew, and columns are plain lists. A scene in space whose aspect
follows its data is drawn again all the same.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.plots.sheet import Part, Sheet, merge, unchecked

_AXES, _SCENE = re.compile(r"[xy]axis\d*"), "scene"


def to_send(figure: Sheet, *, selects: bool = False) -> go.Figure:
    """The same picture, with its template's settings in their places, and every column as a list.

    One that can be selected in says what clicks and drags do, as Streamlit would set it after a first drawing.
    """
    layout = {**figure.layout, "datarevision": 1}
    template = (layout.pop("template", None) or {}).get("layout", {})
    if selects:
        drag = layout.get("dragmode") or "pan"
        layout |= {"dragmode": drag, "clickmode": "event" if drag in ("lasso", "select") else "event+select"}
    drawn = Sheet(_in_lists(figure.data), _under(layout, template, figure), _in_lists(figure.frames))
    with unchecked():
        return drawn.figure()


def _under(layout: Part, template: Mapping[str, Any], figure: Sheet) -> Part:
    """A layout over a template's, in which one axis stands for all of its letter, and one scene for all."""
    kinds = {name: template[name] for name in ("xaxis", "yaxis", _SCENE) if name in template}
    whole: Part = {}
    merge(whole, {name: value for name, value in template.items() if name not in kinds})
    for name in dict.fromkeys([*_parts_of_traces(figure), *filter(_is_part, layout)]):
        merge(whole, {name: kinds.get(name.rstrip("0123456789"), {})})
    merge(whole, layout)
    return whole


def _parts_of_traces(figure: Sheet) -> Iterator[str]:
    """The axes or the scene that each trace is drawn in, as a layout names them; axes where there is no trace."""
    for trace in figure.data or [{"type": "scatter"}]:
        if trace["type"].endswith("3d") or trace["type"] in ("surface", "cone"):
            yield trace.get(_SCENE, _SCENE)
        else:
            for letter in "xy":
                yield trace.get(f"{letter}axis", letter).replace(letter, f"{letter}axis", 1)


def _is_part(name: str) -> bool:
    return bool(_AXES.fullmatch(name)) or name.startswith(_SCENE)


def _in_lists(value: Any) -> Any:
    """The same with every array, also one in Plotly's base64, as a list; what is no number is None."""
    if isinstance(value, dict):
        return _in_list(_decode(value)) if "bdata" in value else {name: _in_lists(own) for name, own in value.items()}
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        return _in_list(np.asarray(value))
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict | np.ndarray):
        return [_in_lists(own) for own in value]
    return value


def _decode(column: Mapping[str, Any]) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(column["bdata"]), dtype=column["dtype"])
    shape = str(column.get("shape", len(array)))
    return array.reshape([int(size) for size in shape.split(",")])


def _in_list(array: np.ndarray) -> list[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = np.where(np.isfinite(array), array, np.array(None, dtype=object))
    return array.tolist()
