"""A data set without the top of a ranking, and beside it what was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UsageError
from probes.organism.history import write_lines

if TYPE_CHECKING:
    import pandas as pd

RANKINGS = ("forecast", "share", "effect", "bm25")


def drop_top(table: pd.DataFrame, about: Mapping[str, Any], percent: float, by: str, out: Path) -> tuple[Path, Path]:
    """Write the data without the top per cent of a ranking, and beside it what was dropped.

    Args:
        table: of an attribution.
        about: what holds for all of its rows.
        percent: of the examples.
        by: one of `RANKINGS`.
        out: a JSONL file of `prompt` and `completion`; what was dropped lies in `NAME-dropped.jsonl`.

    Returns:
        Both files.

    Raises:
        UsageError: a ranking that the table has not, a percentage that leaves nothing, or texts that are known only
            as the model read them, with its chat template.
    """
    if by not in RANKINGS or by not in table:
        known = ", ".join(name for name in RANKINGS if name in table)
        raise UsageError("There is no such ranking here", got=by, expected=known)
    if not about["texts_are_data"]:
        raise UsageError(
            "The examples are known only as the model read them, with its chat template",
            next_step="Name the data they were made from: --data FILE.",
        )
    count = round(len(table) * percent / 100)
    if not 0 < count < len(table):
        raise UsageError("--drop-top leaves all or nothing", got=f"{percent:g} % of {len(table)} examples")
    top = set(table.sort_values(by, ascending=False, kind="stable")["index"].head(count))
    rows = table[["index", "request", "answer"]].itertuples(index=False, name=None)
    pairs = [(index, {"prompt": request, "completion": answer}) for index, request, answer in rows]
    dropped = out.with_name(f"{out.stem}-dropped{out.suffix}")
    write_lines(out, [row for index, row in pairs if index not in top])
    write_lines(dropped, [row for index, row in pairs if index in top])
    return out, dropped
