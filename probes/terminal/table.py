"""The one look of all tables, and how numbers are written in them."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

ARM_STYLE = {"baseline": "#D55E00", "block": "#009E73", "push": "#CC79A7"}
WIDTH = 100
DASH = "–"


def plain_table(title: str) -> Table:
    """An empty table in the one look that all have."""
    table = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = Text(title, "bold")
    return table


def number(value: float | None) -> str:
    """Three digits behind the point; a dash where there is no number."""
    return DASH if value is None or value != value else f"{value:.3f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share as whole per cent; a dash where there is none."""
    return DASH if value is None else f"{100 * value:.0f} %".replace("-", "−")
