"""A file of completions in, one judgement a row out: CSV, JSONL, or a JSON array, told by its content."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.behaviour.judges import Exchange, Judge, JudgementCache, majority
from probes.errors import PromptError, UsageError, did_you_mean
from probes.prompts.formats import is_known
from probes.prompts.records import read_table
from probes.store.atomic import replacing
from probes.store.rows import csv_cell


@dataclass(frozen=True)
class Completions:
    """The rows of a file, as they stand in it.

    Attributes:
        rows: one mapping a row.
        columns: the names in the order of the file.
        is_csv: whether it was CSV; else JSON.
    """

    rows: tuple[Mapping[str, Any], ...]
    columns: tuple[str, ...]
    is_csv: bool

    @classmethod
    def read(cls, path: Path) -> Completions:
        """Read a file; `file.json#test` is the list `test` of a JSON file.

        Raises:
            UsageError: it is not there, or holds several lists.
            PromptError: it is not UTF-8, not whole, or holds no rows.
        """
        file = read_table(path, is_known, kind="file of completions")
        if not file.records:
            raise PromptError(f"{path} holds no completions")
        if file.syntax == "list of texts":
            raise PromptError(f"{path} holds something that is no record", got="texts", expected="JSON objects")
        rows = tuple(record.fields for record in file.records)
        return cls(rows, tuple(dict.fromkeys(name for row in rows for name in row)), file.syntax == "CSV")

    def exchanges(self, column: str, prompt_column: str | None) -> list[Exchange]:
        """One exchange a row; an absent cell is an empty answer.

        Raises:
            UsageError: there is no such column.
        """
        for name in filter(None, (column, prompt_column)):
            if name not in self.columns:
                raise UsageError(
                    f"There is no column {name!r}" + did_you_mean(name, self.columns),
                    got=", ".join(map(repr, self.columns)),
                    next_step="Name one of these with --column.",
                )
        return [
            Exchange(_text(row.get(prompt_column)) if prompt_column else "", _text(row.get(column)))
            for row in self.rows
        ]

    def write(self, path: Path, labels: Sequence[str], name: str) -> None:
        """Write the same rows with their labels as the column `name`, in the same format (CSV as `csv_cell` has it).

        Raises:
            UsageError: the file is there already, or has such a column.
        """
        if path.exists():
            raise UsageError(f"{path} is already there", next_step="Give --out another name.")
        if name in self.columns:
            raise UsageError(f"The file has a column {name!r} already", next_step="Give --label-column another name.")
        rows = [{**row, name: label} for row, label in zip(self.rows, labels, strict=True)]
        with replacing(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            if self.is_csv:
                writer = csv.writer(file)
                columns = [*self.columns, name]
                writer.writerow(map(csv_cell, columns))
                writer.writerows([csv_cell(row.get(column)) for column in columns] for row in rows)
            else:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def label(
    exchanges: Sequence[Exchange],
    judges: Sequence[Judge],
    cache: JudgementCache,
    done: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """`{"row", "label", "reason"}` for each exchange, and what each judge said under `judges` if there are several."""
    by_judge = [cache.ask(judge, exchanges, done) for judge in judges]
    rows = []
    for number, judgements in enumerate(zip(*by_judge, strict=True)):
        verdict = majority([judgement.label for judgement in judgements])
        reason = next((judgement.reason for judgement in judgements if judgement.label == verdict), "")
        row = {"row": number, "label": verdict, "reason": reason}
        if len(judges) > 1:
            row["judges"] = {judge.name: judgement.label for judge, judgement in zip(judges, judgements, strict=True)}
        rows.append(row)
    return rows


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
