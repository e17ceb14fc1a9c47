"""Prompt files in the formats that people have, told by their header; the reader says which it recognised.

The file's content decides, its name only where the content leaves a choice: an array or lines of JSON
objects, a CSV with a known header, or plain text with one prompt a line. Nothing is guessed: a header that
no format has is an error that lists the known ones, and a record that does not fit is named.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from probes.errors import PromptError, UsageError

LABELS = ("harmful", "harmless")
PLAIN_TEXT = "plain text"
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_LOOKS_LIKE_JSON = re.compile(r'\[\s*\{|\{\s*"')
_OWN_LABELS = {label: label for label in LABELS}
_XSTEST_LABELS = {"safe": "harmless", "unsafe": "harmful"}
_HARMBENCH_JOIN = "\n\n---\n\n"  # as HarmBench's own direct-request baseline joins context and behaviour


@dataclass(frozen=True)
class Recognised:
    """What a prompt file held.

    Attributes:
        format: the format's name, e.g. `AdvBench`.
        texts: the prompts in the order of the file, blanks at either end removed; duplicates are kept.
        labels: `harmful` or `harmless` for each text, None where neither file nor caller says.
    """

    format: str
    texts: tuple[str, ...]
    labels: tuple[str | None, ...]


Found = tuple[str, str | None]


@dataclass(frozen=True)
class _Record:
    """One record of a file, which knows where it stands so that its faults can be named."""

    fields: Mapping[str, Any]
    where: str

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        got = "nothing" if value is None or isinstance(value, str) else type(value).__name__
        raise PromptError(f"{self.where} has no text under {key!r}", got=got, expected="text, not blank")

    def optional(self, key: str) -> str:
        value = self.fields.get(key)
        blank = value is None or (isinstance(value, str) and not value.strip())
        return "" if blank else self.text(key)

    def one_of(self, key: str, known: Mapping[str, str]) -> str:
        value = self.fields.get(key)
        if isinstance(value, str) and value.strip() in known:
            return known[value.strip()]
        raise PromptError(f"{self.where} has an unknown {key}", got=repr(value), expected=" or ".join(known))


def _column(record: _Record, key: str, label: str | None = None) -> Iterator[Found]:
    yield record.text(key), label


def _harmbench(record: _Record) -> Iterator[Found]:
    context, behaviour = record.optional("ContextString"), record.text("Behavior")
    yield f"{context}{_HARMBENCH_JOIN}{behaviour}" if context else behaviour, "harmful"


def _alpaca(record: _Record) -> Iterator[Found]:
    text, more = record.text("instruction"), record.optional("input")
    yield f"{text}\n\n{more}" if more else text, None


def _labelled(record: _Record, key: str, known: Mapping[str, str]) -> Iterator[Found]:
    yield record.text(key), record.one_of("label", known)


def _pair(record: _Record) -> Iterator[Found]:
    yield record.text("positive"), "harmful"
    yield record.text("negative"), "harmless"


def _turns(record: _Record, key: str) -> Iterator[Found]:
    """The text itself, or the user's first turn: what the user says later answers a reply we do not have."""
    turns = record.fields.get(key)
    if isinstance(turns, str):
        yield record.text(key), None
        return
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("role") == "user":
            yield _Record({key: _content(turn.get("content"))}, record.where).text(key), None
            return
    raise PromptError(
        f"{record.where} has no turn of the user under {key!r}", expected='{"role": "user", "content": …}'
    )


def _content(content: Any) -> Any:
    """The text of a turn; one that is given in parts is put together from its text parts."""
    if not isinstance(content, list):
        return content
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


@dataclass(frozen=True)
class _Format:
    """A format: its name, the columns or keys that tell it, and how one record becomes prompts."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[_Record], Iterator[Found]]


# The first whose keys are all there is the one, so the more particular stand before the more general.
_FORMATS = (
    _Format("Gravity Probe", ("text", "label"), partial(_labelled, key="text", known=_OWN_LABELS)),
    _Format("XSTest", ("prompt", "type", "label"), partial(_labelled, key="prompt", known=_XSTEST_LABELS)),
    _Format("JailbreakBench", ("Goal",), partial(_column, key="Goal")),  # its benign half has the same header
    _Format("AdvBench", ("goal", "target"), partial(_column, key="goal", label="harmful")),
    _Format("HarmBench", ("Behavior",), _harmbench),
    _Format("StrongREJECT", ("forbidden_prompt",), partial(_column, key="forbidden_prompt", label="harmful")),
    _Format("chat messages", ("messages",), partial(_turns, key="messages")),
    _Format("pairs", ("positive", "negative"), _pair),
    _Format("prompt and completion", ("prompt", "completion"), partial(_turns, key="prompt")),
    _Format("question and answer", ("question", "answer"), partial(_column, key="question")),
    _Format("Alpaca", ("instruction", "output"), _alpaca),
    _Format("refusal_direction", ("instruction",), partial(_column, key="instruction")),
)


def read_prompts(path: Path | str, label: str | None = None) -> Recognised:
    """Read a prompt file of any known format.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        label: `harmful` or `harmless`. A file whose format carries no labels gets this one throughout;
            of a file that carries them (or whose format means one, as AdvBench does) only the prompts
            with this label are taken. None takes everything as it stands.

    Returns:
        The prompts, their labels, and the name of the format that was recognised.

    Raises:
        UsageError: there is no such file, no format has its header, or `label` is no label.
        PromptError: the file is not UTF-8, broken, empty, or holds no prompt with the wanted label.
    """
    path = Path(path)
    if label not in (None, *LABELS):
        raise UsageError("Unknown label of prompts", got=repr(label), expected=" or ".join(LABELS))
    name, found = _parsed(path, _decoded(path))
    if not found:
        raise PromptError(f"{path} holds no prompts")
    wanted = [(text, own or label) for text, own in found if label is None or own in (None, label)]
    if not wanted:
        raise PromptError(
            f"{path} holds no {label} prompts",
            got=f"{len(found)} prompts, all with the other label ({name})",
            next_step="Perhaps the harmful and the harmless file have changed places.",
        )
    texts, labels = zip(*wanted, strict=True)
    return Recognised(name, texts, labels)


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no prompt file {path}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read as a prompt file", got=error.strerror) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not UTF-8",
            got=f"byte 0x{raw[error.start]:02x} at position {error.start}",
            next_step="Save it as UTF-8 and try again.",
        ) from None


def _parsed(path: Path, text: str) -> tuple[str, list[Found]]:
    """The format's name and all prompts of the file."""
    suffix, head = path.suffix.lower(), text.lstrip()
    if not head:
        return PLAIN_TEXT, []
    if suffix in _JSON_SUFFIXES or _LOOKS_LIKE_JSON.match(head):
        records = _from_array(path, text) if head.startswith("[") else _from_lines(path, text)
        where = "keys"
    elif suffix == ".csv" or _has_known_header(text):
        records, where = _from_csv(path, text), "columns"
    else:
        return PLAIN_TEXT, [(line.strip(), None) for line in _lines(text) if line.strip()]
    if not records:
        return "no records", []
    fmt = _format_of(records[0].fields)
    if fmt is None:
        raise _unknown(path, f"the {where} {', '.join(map(repr, records[0].fields))}")
    return fmt.name, [found for record in records for found in _read_as(fmt, record)]


def _format_of(fields: Mapping[str, Any]) -> _Format | None:
    return next((fmt for fmt in _FORMATS if all(key in fields for key in fmt.keys)), None)


def _read_as(fmt: _Format, record: _Record) -> Iterator[Found]:
    missing = [key for key in fmt.keys if key not in record.fields]
    if missing:
        raise PromptError(f"{record.where} has no {missing[0]!r}", expected=f"{fmt.name}, as the first record")
    return fmt.read(record)


def _unknown(path: Path, got: str) -> UsageError:
    known = "; ".join(f"{fmt.name}: {', '.join(fmt.keys)}" for fmt in _FORMATS)
    return UsageError(f"{path} is in no known prompt format", got=got, expected=f"one of these headers ({known})")


def _has_known_header(text: str) -> bool:
    """Whether a file that is not called CSV is one: its first line names known columns, at least two."""
    columns = [name.strip() for name in next(csv.reader(_lines(text)[:1]), [])]
    return len(columns) > 1 and _format_of(dict.fromkeys(columns)) is not None


def _lines(text: str) -> list[str]:
    """The file's lines. Not splitlines(), which also cuts at U+2028 and others that stand inside prompts."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _from_csv(path: Path, text: str) -> list[_Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    records = []
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for fields in reader:
            where = f"{path}, line {reader.line_num},"
            if None in fields:
                raise PromptError(f"{where} has more cells than the header has columns")
            records.append(_Record(fields, where))
    except csv.Error as error:
        raise PromptError(f"{path} is no whole CSV file", got=f"{error} at line {reader.line_num}") from error
    if not records and _format_of(dict.fromkeys(reader.fieldnames)) is None:
        raise _unknown(path, f"the columns {', '.join(map(repr, reader.fieldnames))}")
    return records


def _from_array(path: Path, text: str) -> list[_Record]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise PromptError(f"{path} is no whole JSON file", got=str(error)) from error
    return [_object(value, f"{path}, record {number},") for number, value in enumerate(values, start=1)]


def _from_lines(path: Path, text: str) -> list[_Record]:
    records = []
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise PromptError(
                f"{where} is not JSON", got=str(error), expected="one object a line, or one array of objects"
            ) from error
        records.append(_object(value, where))
    return records


def _object(value: Any, where: str) -> _Record:
    if not isinstance(value, dict):
        raise PromptError(f"{where} is no record", got=type(value).__name__, expected="a JSON object")
    return _Record(value, where)
