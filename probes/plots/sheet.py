"""A figure while it is drawn: plain dicts, under the names of Plotly's own methods, and Plotly's figure at the end.

Plotly checks all that a figure holds again with each trace, line and note that is added to it: most of the time of
drawing would go there. A sheet is checked once, when it is done, and not even then inside `unchecked`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

Part = dict[str, Any]
_checks: ContextVar[bool] = ContextVar("checks", default=True)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Figures that are done in here are not checked by Plotly: pictures that tests have checked come sooner."""
    token = _checks.set(False)
    try:
        yield
    finally:
        _checks.reset(token)


@dataclass
class Sheet:
    """A figure that is being drawn.

    Attributes:
        data: its traces, each with its `type`.
        layout: as in Plotly.
        frames: of one that can be played.
        rows: of panels.
        columns: of panels.
        cells: how many panels there are, row by row; the last row may have fewer than the others.
    """

    data: list[Part] = field(default_factory=list)
    layout: Part = field(default_factory=dict)
    frames: list[Part] = field(default_factory=list)
    rows: int = 1
    columns: int = 1
    cells: int = 1

    @classmethod
    def of(cls, figure: Part) -> Sheet:
        """A figure that was done, as its `to_dict` gives it, to draw further on it."""
        return cls(figure["data"], figure["layout"], figure.get("frames", []))

    @classmethod
    def grid(cls, rows: int, columns: int, titles: Sequence[str], *, cells: int | None = None, **spacing: Any) -> Sheet:
        """Empty panels with these titles.

        Args:
            rows: of panels.
            columns: of panels.
            titles: above each panel, row by row; an empty one is left out.
            cells: how many panels there are, where the last row has fewer; None: all.
            spacing: what else `plotly.subplots.make_subplots` reads.
        """
        cells = rows * columns if cells is None else cells
        layout = copy.deepcopy(_panels(rows, columns, cells, tuple(sorted(spacing.items()))))
        notes = zip(layout.get("annotations", []), titles, strict=False)
        layout["annotations"] = [note | {"text": title} for note, title in notes if title]
        return cls(layout=layout, rows=rows, columns=columns, cells=cells)

    # Traces ----------------------------------------------------------------------------------------------------

    def add(self, kind: str, *, row: int = 0, col: int = 0, **about: Any) -> None:
        """Put a trace on the sheet, or into a panel of it."""
        self.data.append({"type": kind, **about, **(self._axes_of(row, col) if row else {})})

    def add_traces(
        self, traces: Iterable[Mapping[str, Any]], rows: Sequence[int] = (), cols: Sequence[int] = ()
    ) -> None:
        """Put traces on the sheet, or each into the panel in its row and column."""
        if not rows:
            self.data += map(dict, traces)
            return
        for trace, row, col in zip(traces, rows, cols, strict=True):
            self.data.append({**trace, **self._axes_of(row, col)})

    # Layout ----------------------------------------------------------------------------------------------------

    @property
    def annotations(self) -> list[Part]:
        """The notes on the sheet."""
        return self.layout.setdefault("annotations", [])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.layout.get("height") or 450)

    def add_annotation(self, **about: Any) -> None:
        """Put a note on the sheet."""
        self.annotations.append(about)

    def add_annotations(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Put notes on the sheet."""
        self.annotations.extend(map(dict, notes))

    def add_shape(self, **about: Any) -> None:
        """Put a shape on the sheet."""
        self.layout.setdefault("shapes", []).append(about)

    def add_hline(self, y: int | float, **about: Any) -> None:
        """Put a line across the plot."""
        self.add_shape(type="line", x0=0, x1=1, xref="x domain", y0=y, y1=y, yref="y", **about)

    def add_vline(self, x: int | float, *, row: int = 1, col: int = 1, **about: Any) -> None:
        """Put an upright line into the plot, or into a panel."""
        axes = self._axes_of(row, col)
        self.add_shape(type="line", x0=x, x1=x, xref=axes["xaxis"], y0=0, y1=1, yref=f"{axes['yaxis']} domain", **about)

    def update_layout(self, **about: Any) -> None:
        """Set parts of the layout; what they do not name stays."""
        merge(self.layout, about)

    def update_xaxes(self, *, row: int = 0, col: int = 0, **about: Any) -> None:
        """Set parts of the x axes: of all panels, or of those in a row, a column, or both."""
        for axis in self.axes("x", row=row, col=col):
            merge(axis, about)

    def update_yaxes(self, *, row: int = 0, col: int = 0, **about: Any) -> None:
        """Set parts of the y axes, likewise."""
        for axis in self.axes("y", row=row, col=col):
            merge(axis, about)

    def update_annotations(self, **about: Any) -> None:
        """Set parts of every note that there is."""
        for note in self.annotations:
            merge(note, about)

    def axes(self, letter: str, *, row: int = 0, col: int = 0) -> list[Part]:
        """The axes of the panels, to be changed: of all, or of those in a row, a column, or both."""
        places = (divmod(cell, self.columns) for cell in range(self.cells))
        cells = [cell for cell, (y, x) in enumerate(places) if row in (0, y + 1) and col in (0, x + 1)]
        return [self.layout.setdefault(f"{letter}axis{_suffix(cell)}", {}) for cell in cells]

    def _axes_of(self, row: int, col: int) -> dict[str, str]:
        """What a trace says of the panel it is in."""
        suffix = _suffix((row - 1) * self.columns + col - 1)
        return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}

    # The figure ------------------------------------------------------------------------------------------------

    def figure(self) -> go.Figure:
        """What was drawn.

        Raises:
            ValueError: Plotly knows no such property or value; not inside `unchecked`.
        """
        drawn = {"data": _plain(self.data), "layout": _plain(self.layout), "frames": _plain(self.frames)}
        return go.Figure(drawn) if _checks.get() else _AsDrawn(drawn)


class _AsDrawn(go.Figure):
    """A figure of which nothing is asked but its parts: Plotly's own would copy them all, and again to give them.

    Columns stay arrays, which Plotly's own would write in base64.
    """

    def __init__(self, parts: Part) -> None:
        self._parts = parts if parts["frames"] else {"data": parts["data"], "layout": parts["layout"]}

    def to_dict(self) -> Part:
        """Its traces, its layout and, where it can be played, its frames: no copy."""
        return self._parts


def merge(part: Part, about: Mapping[str, Any]) -> None:
    """Set in a part what `about` names, dicts within dicts; None takes a property away."""
    for name, value in about.items():
        own = part.get(name)
        if value is None:
            part.pop(name, None)
        elif isinstance(value, Mapping):
            part[name] = dict(own) if isinstance(own, dict) else {}
            merge(part[name], value)
        else:
            part[name] = value


@lru_cache(maxsize=32)
def _panels(rows: int, columns: int, cells: int, spacing: tuple[tuple[str, Any], ...]) -> Part:
    """The layout of empty panels, each with a note above it."""
    from plotly.subplots import make_subplots

    specs: list[list[Part | None]] = [
        [{} if row * columns + column < cells else None for column in range(columns)] for row in range(rows)
    ]
    panels = make_subplots(rows, columns, specs=specs, subplot_titles=["title"] * cells, **dict(spacing))
    layout = panels.layout.to_plotly_json()
    layout.pop("template", None)
    return layout


def _suffix(cell: int) -> str:
    return "" if cell == 0 else str(cell + 1)


def _plain(value: Any) -> Any:
    """A part as Plotly reads it without its check: no None in dicts, columns and indexes of tables as arrays."""
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items() if own is not None}
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return [_plain(own) for own in value]
    if isinstance(value, pd.Series | pd.Index):
        return np.asarray(value)
    return value
