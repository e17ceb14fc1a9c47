"""The records of a prompt or data file, whatever its syntax: JSON, lines of JSON, CSV, or one text a line.

The content decides, the name only where the content leaves a choice. A JSON file is parsed whole first, so that it may
be pretty-printed, a list of records or of texts, or an object with one list; of several lists `file.json#train` names
one. A CSV file needs no header where its shape says what its columns are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import PromptError, UsageError
from probes.store.documents import parse_json_or_lines, read_text

LABELS = ("harmful", "harmless")
TEXT, LABEL = "text", "label"  # the columns of our own files
PLAIN_TEXT = "plain text"
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SEPARATORS = (",", "\t", ";")  # spreadsheets of half the world write semicolons
_JSON_RECORDS = re.compile(r'\[\s*\{|\{\s*"')
_JSON_TEXTS = re.compile(r'\[\s*".*"\s*\]\s*', re.DOTALL)
_MAX_CELL = 1 << 30
_WORDS_OF_A_NAME = 3

Known = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Record:
    """One record of a file, which knows where it stands so that its faults can be named."""

    fields: Mapping[str, Any]
    place: str

    def text(self, key: str) -> str:
        """The text under a key, blanks at either end removed.

        Raises:
            PromptError: there is none.
        """
        value = self.fields.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        fault = "nothing" if value is None or isinstance(value, str) else type(value).__name__
        raise PromptError(f"{self.place} has no text under {key!r}", got=fault, expected="text, not blank")

    def optional(self, key: str) -> str:
        """The text under a key, empty where there is none; raises as `text` where it is no text."""
        value = self.fields.get(key)
        blank = value is None or (isinstance(value, str) and not value.strip())
        return "" if blank else self.text(key)

    def one_of(self, key: str, known: Mapping[str, str]) -> str:
        """What `known` says of the text under a key.

        Raises:
            PromptError: it is none of these.
        """
        value = self.fields.get(key)
        if isinstance(value, str) and value.strip() in known:
            return known[value.strip()]
        raise PromptError(f"{self.place} has an unknown {key}", got=repr(value), expected=" or ".join(known))


@dataclass(frozen=True)
class RecordFile:
    """What a file holds.

    Attributes:
        path: the file, and the part of it that was read.
        syntax: `JSON`, `CSV`, `CSV without a header`, `list of texts` or `plain text`.
        columns: the names of the header, or the keys of the first record.
        records: in the order of the file; a text is a record with the key `text`.
    """

    path: str
    syntax: str
    columns: tuple[str, ...]
    records: tuple[Record, ...]


def read_records(path: Path | str, is_known: Known, *, kind: str = "prompt file") -> RecordFile:
    """Read a file's records.

    Args:
        path: the file, UTF-8 with or without a byte order mark; `file.json#train` is the list `train` of a JSON file.
        is_known: whether column names are those of a record that somebody wants.
        kind: what the file is called in messages.

    Raises:
        UsageError: there is no such file or part of it, or the file holds several.
        PromptError: it is not UTF-8, broken, or holds something that is no record.
    """
    file, part = split_part(path)
    text, suffix = read_text(file, kind=kind, error=PromptError), file.suffix.lower()
    if not text.strip():
        return RecordFile(str(path), PLAIN_TEXT, (), ())
    if suffix in _JSON_SUFFIXES or _JSON_RECORDS.match(text.lstrip()) or _JSON_TEXTS.fullmatch(text.lstrip()):
        return _from_json(file, text, part, is_known)
    if part is not None:
        raise UsageError(f"{file} has no parts", got=f"#{part}", expected="a JSON file with several lists")
    delimiter = _known_delimiter(text, is_known) or _DELIMITERS.get(suffix)
    if delimiter:
        return _from_csv(file, text, delimiter, is_known)
    return _of_texts(str(file), [line for line in lines(text) if line.strip()], "line", PLAIN_TEXT)


def read_table(path: Path | str, is_known: Known, *, kind: str = "file") -> RecordFile:
    """Read a file of rows: JSON as `read_records` has it, or else CSV with a header; raises as `read_records`."""
    file, part = split_part(path)
    text = read_text(file, kind=kind, error=PromptError)
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(file, text, part, is_known)
    if not text.strip():
        return RecordFile(str(path), "CSV", (), ())
    (columns, *rows) = _csv_rows(file, text, "\t" if file.suffix.lower() == ".tsv" else ",")
    return _with_columns(file, tuple(name.strip() for name in columns[1]), rows, "CSV")


def split_part(path: Path | str) -> tuple[Path, str | None]:
    """The file, and the part of it that `file.json#part` names; a file whose own name has a # goes before."""
    file, _, part = str(path).rpartition("#")
    return (Path(file), part) if file and not Path(path).exists() else (Path(path), None)


def lines(text: str) -> list[str]:
    """The lines of a text. Not splitlines(), which also cuts at U+2028 and others that stand inside prompts."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _of_texts(name: str, texts: Iterable[Any], unit: str, syntax: str) -> RecordFile:
    records = tuple(Record({TEXT: text}, f"{name}, {unit} {number},") for number, text in enumerate(texts, start=1))
    return RecordFile(name, syntax, (TEXT,), records)


# JSON ----------------------------------------------------------------------------------------------------------------


def _from_json(path: Path, text: str, part: str | None, is_known: Known) -> RecordFile:
    documents = parse_json_or_lines(text, str(path), error=PromptError)
    if len(documents) > 1:
        if part is not None:
            raise UsageError(f"{path} has no parts", got=f"#{part}", expected="one JSON document with several lists")
        return _of_objects(str(path), documents)
    document = documents[0][1]
    name = str(path)
    if isinstance(document, dict):
        part = _part_of(path, document, is_known) if part is None else part
        if part is None:
            return _of_objects(name, [(f"{path}, record 1,", document)])
        if not isinstance(document.get(part), list):
            lists = ", ".join(_lists_of(document)) or "no lists"
            raise UsageError(f"{path} has no list {part!r}", got=lists, next_step=f"Name one: {path}#NAME.")
        name, document = f"{path}#{part}", document[part]
    if not isinstance(document, list):
        raise PromptError(f"{path} holds no records", got=type(document).__name__, expected="a list, or objects")
    if document and all(isinstance(value, str) for value in document):
        return _of_texts(name, document, "text", "list of texts")
    return _of_objects(name, [(f"{name}, record {number},", value) for number, value in enumerate(document, start=1)])


def _lists_of(document: Mapping[str, Any]) -> list[str]:
    """The names of an object's lists of records or of texts."""
    return [
        name
        for name, value in document.items()
        if isinstance(value, list) and value and isinstance(value[0], dict | str)
    ]


def _part_of(path: Path, document: Mapping[str, Any], is_known: Known) -> str | None:
    """The name of the one list of records in an object; None where the object is itself a record."""
    names = _lists_of(document)
    if not names or is_known(tuple(document)):
        return None
    if len(names) > 1:
        raise UsageError(
            f"{path} holds several lists of records", got=", ".join(names), next_step=f"Name one: {path}#{names[0]}."
        )
    return names[0]


def _of_objects(name: str, values: Iterable[tuple[str, Any]]) -> RecordFile:
    records = []
    for place, value in values:
        if not isinstance(value, dict):
            raise PromptError(f"{place} is no record", got=type(value).__name__, expected="a JSON object")
        records.append(Record(value, place))
    return RecordFile(name, "JSON", tuple(records[0].fields) if records else (), tuple(records))


# CSV -----------------------------------------------------------------------------------------------------------------


def _known_delimiter(text: str, is_known: Known) -> str | None:
    """What separates the columns of a file, whatever it is called: its first line names known ones, at least two."""
    for delimiter in _SEPARATORS:
        columns = [name.strip() for name in next(csv.reader(lines(text)[:1], delimiter=delimiter), [])]
        if len(columns) > 1 and is_known(columns) and all(len(name.split()) <= _WORDS_OF_A_NAME for name in columns):
            return delimiter
    return None


def _from_csv(path: Path, text: str, delimiter: str, is_known: Known) -> RecordFile:
    rows = _csv_rows(path, text, delimiter)
    columns = tuple(name.strip() for name in rows[0][1])
    if is_known(columns):
        return _with_columns(path, columns, rows[1:], "CSV")
    shape = _shape_of([cells for _, cells in rows])
    return _with_columns(
        path, shape or columns, rows if shape else rows[1:], "CSV without a header" if shape else "CSV"
    )


def _csv_rows(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """The cells of each row that is not blank, with the number of its last line."""
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        return [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise PromptError(f"{path} is no whole CSV file", got=f"{error} at line {reader.line_num}") from error


def _shape_of(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """The columns of a file without a header, where its shape says them: texts alone, or texts and labels."""
    if all(len(cells) == 1 for cells in rows):
        if any(all(mark in cells[0] for cells in rows) for mark in ("\t", ";")):
            return None  # columns, separated by something else
        return (TEXT,) if len(rows[0][0].split()) > 1 else None  # a single word may be a header
    if all(len(cells) == 2 for cells in rows):
        for place in (0, 1):
            if all(cells[place].strip() in LABELS for cells in rows):
                return (LABEL, TEXT) if place == 0 else (TEXT, LABEL)
    return None


def _with_columns(
    path: Path, columns: tuple[str, ...], rows: Iterable[tuple[int, Sequence[str]]], syntax: str
) -> RecordFile:
    repeated = next((name for place, name in enumerate(columns) if name and name in columns[:place]), None)
    if repeated is not None:
        raise PromptError(f"{path} has two columns of one name", got=repr(repeated))
    records = []
    for line, cells in rows:
        place = f"{path}, line {line},"
        if len(cells) != len(columns):
            more = "more" if len(cells) > len(columns) else "fewer"
            raise PromptError(f"{place} has {more} cells than the header has columns")
        records.append(Record(dict(zip(columns, cells, strict=True)), place))
    return RecordFile(str(path), syntax, columns, tuple(records))
