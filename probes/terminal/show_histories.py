"""Histories side by side: a column a history, a row what is said of an arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from probes.statistics import decimal, percent
from probes.terminal.table import DASH, plain_table
from probes.verdict.sentences import QUALIFIER_WORDS

Row = Mapping[str, Any]


def histories_table(comparison: Mapping[str, Any]) -> Table:
    """The comparison as a table."""
    table = plain_table("Histories side by side, last checkpoint of every trajectory")
    table.add_column("")
    for history in comparison["histories"]:
        table.add_column(Path(history["run"]).name, justify="right")
    for label, cells in _rows(comparison["histories"]):
        table.add_row(label, *cells)
    table.caption = Text("\n".join(_sentences(comparison)), "dim")
    return table


def histories_markdown(comparison: Mapping[str, Any]) -> str:
    """The same in Markdown."""
    names = [Path(history["run"]).name for history in comparison["histories"]]
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in _rows(comparison["histories"])]
    return "\n".join([*lines, "", *_sentences(comparison)])


def _rows(histories: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """A row for every arm of every measure; several seeds stand in one cell."""
    arms = list(dict.fromkeys(row["arm"] for history in histories for row in history["trajectories"]))
    yield "layer", [str(history["layer"]) for history in histories]
    for measure, show in _MEASURES.items():
        for arm in arms if measure not in _OF_BASELINE else ["baseline"]:
            cells = [
                "; ".join(show(row) for row in history["trajectories"] if row["arm"] == arm) for history in histories
            ]
            if any(cell.strip(f"{DASH}; ") for cell in cells):
                yield f"{measure}, `{arm}`", [cell or DASH for cell in cells]


def _sentences(comparison: Mapping[str, Any]) -> list[str]:
    """For each arm with a level, how many histories reached level 4."""
    return [f"{arm}: {_of_histories(histories)}." for arm, histories in comparison["arms"].items()]


def _of_histories(histories: Mapping[str, Any]) -> str:
    p = histories["p"]
    return histories["words"] if p is None else f"{histories['words']} (binomial p {p:.2g})"


def _safety(row: Row) -> str:
    safety = row["safety"]
    if safety is None or safety["refusal_before"] is None:
        return DASH
    before, after = (percent(safety[name]) for name in ("refusal_before", "refusal_after"))
    return f"{safety['answer']}, {before} → {after}"


def _level(row: Row) -> str:
    return DASH if row["level"] is None else str(row["level"])


def _decided_by(row: Row) -> str:
    if row["decided_by"] is None:
        return DASH
    power = "" if row["power"] is None else f" (power {percent(row['power'])})"
    return f"{row['decided_by']}{power}"


def _axis(row: Row) -> str:
    axis = row["off_refusal_axis"]
    return DASH if axis is None else QUALIFIER_WORDS[axis["answer"]]


def _comparison(name: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        comparison = row[name]
        if comparison is None or comparison["difference"] is None:
            return DASH
        low, high = decimal(comparison["low"]), decimal(comparison["high"])
        return f"{QUALIFIER_WORDS[comparison['answer']]}, {decimal(comparison['difference'])} ({low} to {high})"

    return show


_MEASURES: Mapping[str, Callable[[Row], str]] = {
    "safety": _safety,
    "return fraction": lambda row: decimal(row["return_fraction"]),
    "alignment": lambda row: decimal(row["alignment_crossfit"]),
    "level": _level,
    "decided by": _decided_by,
    "off the refusal axis?": _axis,
    "more than its mirror?": _comparison("mirror"),
    "more than continued alignment?": _comparison("continued"),
}
_OF_BASELINE = ("decided by", "off the refusal axis?", "more than its mirror?", "more than continued alignment?")
