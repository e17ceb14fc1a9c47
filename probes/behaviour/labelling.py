"""A file of completions in, one judgement a row out: CSV, JSONL, or a JSON array, told by its content."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from probes.behaviour.judges import Exchange, Judge, JudgementCache, majority
from probes.errors import PromptError, UsageError
from probes.store.atomic import replacing


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
        """Read a file.

        Raises:
            UsageError: it is not there.
            PromptError: it is not UTF-8, not whole, or holds no rows.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UsageError(f"{path} cannot be read", got=error.strerror) from error
        except UnicodeDecodeError as error:
            raise PromptError(f"{path} is not UTF-8", got=str(error), next_step="Save it as UTF-8.") from error
        as_json = text.lstrip()[:1] in ("{", "[")
        rows = _json_rows(path, text) if as_json else _csv_rows(path, text)
        if not rows:
            raise PromptError(f"{path} holds no completions")
        return cls(tuple(rows), tuple(dict.fromkeys(name for row in rows for name in row)), not as_json)

    def exchanges(self, column: str, prompt_column: str | None) -> list[Exchange]:
        """One exchange a row; an absent cell is an empty answer.

        Raises:
            UsageError: there is no such column.
        """
        for name in filter(None, (column, prompt_column)):
            if name not in self.columns:
                near = get_close_matches(name, self.columns, n=1)
                raise UsageError(
                    f"There is no column {name!r}",
                    got=", ".join(map(repr, self.columns)),
                    next_step=f"Did you mean {near[0]!r}?" if near else "Name one of these with --column.",
                )
        return [
            Exchange(_text(row.get(prompt_column)) if prompt_column else "", _text(row.get(column)))
            for row in self.rows
        ]

    def write(self, path: Path, labels: Sequence[str], name: str) -> None:
        """Write the same rows with their labels as the column `name`, in the same format.

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
                writer = csv.DictWriter(file, [*self.columns, name])
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def label(
    exchanges: Sequence[Exchange],
    judges: Sequence[Judge],
    cache: JudgementCache,
    done: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """`{"row", "label", "reason"}` for each exchange, and what each judge said under `judges` if there are several."""
    said = [cache.ask(judge, exchanges, done) for judge in judges]
    found = []
    for number, row in enumerate(zip(*said, strict=True)):
        verdict = majority([each.label for each in row])
        reason = next((each.reason for each in row if each.label == verdict), "")
        one = {"row": number, "label": verdict, "reason": reason}
        if len(judges) > 1:
            one["judges"] = {judge.name: each.label for judge, each in zip(judges, row, strict=True)}
        found.append(one)
    return found


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise PromptError(f"{path} is no whole CSV file", got=f"{error} at line {reader.line_num}") from error
    if any(None in row for row in rows):
        raise PromptError(f"{path} has a row with more cells than the header has columns")
    return rows


def _json_rows(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise PromptError(f"{path} is no whole JSON file", got=str(error), expected="one object a line") from error
    if not all(isinstance(row, dict) for row in rows):
        raise PromptError(f"{path} holds something that is no record", expected="JSON objects")
    return rows
