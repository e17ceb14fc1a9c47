"""Prompt files in the formats that people have, told by their header; the reader says which it recognised.

Nothing is guessed, and nothing is passed over: a header that no format has is an error that lists the known ones, a
column that might belong to the prompt and that the format does not know is an error that names it, and a record that
does not fit is named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from probes.errors import PromptError, UsageError
from probes.prompts.records import LABEL, LABELS, TEXT, Record, RecordFile, read_records

TOPIC, PAIR = "topic", "pair"
_OWN_LABELS = {label: label for label in LABELS}
_XSTEST_LABELS = {"safe": "harmless", "unsafe": "harmful"}
_HARMBENCH_JOIN = "\n\n---\n\n"  # as HarmBench's own direct-request baseline joins context and behaviour
_USER, _SYSTEM = ("user", "human"), ("system", "developer")  # as messages and as ShareGPT call them
_ASSISTANT = ("assistant", "gpt", "model")
# What is said about a prompt, in any format; none of it is ever part of the prompt.
_METADATA = re.compile(
    r"|index|unnamed: 0|(.*_)?id|source|dataset|split|(sub)?category|type|tags|focus|notes?|subject|difficulty|language"
    r"|license|url|hash|created(_at)?|timestamp|score"
)


@dataclass(frozen=True)
class Recognised:
    """What a prompt file held.

    Attributes:
        format: the format's name, e.g. `AdvBench`.
        texts: the prompts in the order of the file, blanks at either end removed; duplicates are kept.
        labels: `harmful` or `harmless` for each text, None where neither file nor caller says.
        topics: the topic of each text, None where it has none.
        pairs: the pair that each text belongs to, None where it belongs to none.
        system_turns: in how many texts a turn of the system stands before the request.
    """

    format: str
    texts: tuple[str, ...]
    labels: tuple[str | None, ...]
    topics: tuple[str | None, ...]
    pairs: tuple[str | None, ...]
    system_turns: int = 0


class _Entry(NamedTuple):
    text: str
    label: str | None
    topic: str | None = None
    pair: str | None = None
    system: bool = False


Entries = Iterator[_Entry]


def _column(record: Record, key: str, label: str | None = None) -> Entries:
    yield _Entry(record.text(key), label)


def _instruction(record: Record, key: str, more: str) -> Entries:
    """An instruction and, where there is one, what it is to be carried out on."""
    text, input_text = record.text(key), record.optional(more)
    yield _Entry(f"{text}\n\n{input_text}" if input_text else text, None)


def _harmbench(record: Record) -> Entries:
    context, behaviour = record.optional("ContextString"), record.text("Behavior")
    yield _Entry(f"{context}{_HARMBENCH_JOIN}{behaviour}" if context else behaviour, "harmful")


def _with_label(record: Record, key: str, known: Mapping[str, str]) -> Entries:
    yield _Entry(record.text(key), record.one_of(LABEL, known))


def _pair(record: Record) -> Entries:
    harmful, harmless = record.text("positive"), record.text("negative")
    pair = hashlib.sha256(f"{harmful}\0{harmless}".encode("utf-8", "surrogatepass")).hexdigest()[:10]
    yield _Entry(harmful, "harmful", pair=pair)
    yield _Entry(harmless, "harmless", pair=pair)


def _turns(record: Record, key: str) -> Entries:
    """The text itself, or the user's first turn, before it what the system says first.

    What the user says later answers a reply we do not have.
    """
    request = _turn_of(record, key, _USER)
    system = next(_turns_of(record, key, _SYSTEM), Record({}, record.place)).optional(key)
    yield _Entry(f"{system}\n\n{request}" if system else request, None, system=bool(system))


def _turns_of(record: Record, key: str, roles: tuple[str, ...]) -> Iterator[Record]:
    """The text of each turn of somebody, under the same key."""
    turns = record.fields.get(key)
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("role", turn.get("from")) in roles:
            yield Record({key: _content(turn.get("content", turn.get("value")), record)}, record.place)


def _turn_of(record: Record, key: str, roles: tuple[str, ...]) -> str:
    """The text itself, or that of somebody's first turn."""
    if isinstance(record.fields.get(key), str):
        return record.text(key)
    for turn in _turns_of(record, key, roles):
        return turn.text(key)
    who = "the user" if roles == _USER else "the assistant"
    raise PromptError(
        f"{record.place} has no turn of {who} under {key!r}", expected=f'{{"role": "{roles[0]}", "content": …}}'
    )


def _content(content: Any, record: Record) -> Any:
    """The text of a turn; one that is given in parts is put together from them, of which each must be a text."""
    if not isinstance(content, list):
        return content
    texts = [text for part in content if isinstance(text := part.get("text") if isinstance(part, dict) else part, str)]
    if len(texts) < len(content):
        raise PromptError(
            f"{record.place} has a turn with a part that is no text, such as an image",
            got=f"{len(content) - len(texts)} of {len(content)} parts",
            next_step="Leave the record out: without that part it would be another prompt.",
        )
    return "\n".join(texts)


@dataclass(frozen=True)
class _Format:
    """A format: its name, the columns or keys that tell it, and how one record becomes prompts.

    Attributes:
        name: in messages and in the manifest.
        keys: every record has them.
        read: the prompts of a record.
        optional: further keys that are read, where they are there.
        about: further keys that are never part of a prompt: answers, notes, and the prompt in another form.
        answer: the key of the right answer, where the format has one.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Record], Entries]
    optional: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    answer: str | None = None

    def knows(self, column: str) -> bool:
        """Whether it has read a column, or knows that it is no part of the prompt."""
        own = (*self.keys, *self.optional, *self.about, TOPIC, PAIR)
        return column in own or _METADATA.fullmatch(column.strip().lower()) is not None


# The first whose keys are all there is the one, so the more particular stand before the more general.
_FORMATS = (
    _Format("Gravity Probe", (TEXT, LABEL), partial(_with_label, key=TEXT, known=_OWN_LABELS)),
    _Format(
        "XSTest", ("prompt", "type", LABEL), partial(_with_label, key="prompt", known=_XSTEST_LABELS), about=("id_v2",)
    ),
    # Its benign half has the same header.
    _Format("JailbreakBench", ("Goal",), partial(_column, key="Goal"), about=("Target", "Behavior")),
    _Format("AdvBench", ("goal", "target"), partial(_column, key="goal", label="harmful")),
    _Format(
        "HarmBench",
        ("Behavior",),
        _harmbench,
        optional=("ContextString",),
        about=("FunctionalCategory", "SemanticCategory", "BehaviorID"),
    ),
    _Format("StrongREJECT", ("forbidden_prompt",), partial(_column, key="forbidden_prompt", label="harmful")),
    _Format("chat messages", ("messages",), partial(_turns, key="messages"), about=("prompt",), answer="messages"),
    _Format("ShareGPT", ("conversations",), partial(_turns, key="conversations"), answer="conversations"),
    _Format("pairs", ("positive", "negative"), _pair),
    _Format("prompt and completion", ("prompt", "completion"), partial(_turns, key="prompt"), answer="completion"),
    _Format("prompt and response", ("prompt", "response"), partial(_turns, key="prompt"), answer="response"),
    _Format("preferences", ("prompt", "chosen", "rejected"), partial(_turns, key="prompt")),
    _Format("question and answer", ("question", "answer"), partial(_column, key="question"), answer="answer"),
    _Format("request and answer", ("request", "answer"), partial(_column, key="request"), answer="answer"),
    _Format(
        "Alpaca",
        ("instruction", "output"),
        partial(_instruction, key="instruction", more="input"),
        optional=("input",),
        about=(TEXT,),
        answer="output",
    ),
    _Format(
        "Dolly",
        ("instruction", "response"),
        partial(_instruction, key="instruction", more="context"),
        optional=("context",),
        answer="response",
    ),
    _Format("refusal_direction", ("instruction",), partial(_column, key="instruction")),
    _Format("prompts", ("prompt",), partial(_turns, key="prompt")),
    _Format("texts", (TEXT,), partial(_column, key=TEXT)),
)


def read_prompts(path: Path | str, label: str | None = None, *, group_column: str | None = None) -> Recognised:
    """Read a prompt file of any known format.

    Args:
        path: the file, UTF-8 with or without a byte order mark; `file.json#train` is the list `train` of a JSON file.
        label: `harmful` or `harmless`. A file whose format carries no labels gets this one throughout;
            of a file that carries them (or whose format means one, as AdvBench does) only the prompts
            with this label are taken. None takes everything as it stands.
        group_column: the column or key with each prompt's topic; None is `topic`, where there is one.

    Returns:
        The prompts, their labels, topics and pairs, and the name of the format that was recognised.

    Raises:
        UsageError: there is no such file or column, no format has its header, the format does not know a column that
            may belong to the prompt, or `label` is no label.
        PromptError: the file is not UTF-8, broken, empty, or holds no prompt with the wanted label.
    """
    if label not in (None, *LABELS):
        raise UsageError("Unknown label of prompts", got=repr(label), expected=" or ".join(LABELS))
    file = read_records(path, is_known)
    fmt = _format_of_file(file, group_column)
    entries = [
        entry._replace(topic=_group(record, group_column or TOPIC), pair=_group(record, PAIR) or entry.pair)
        for record in file.records
        for entry in fmt.read(record)
    ]
    labelled = [entry for entry in entries if label is None or entry.label in (None, label)]
    if not labelled:
        raise PromptError(
            f"{path} holds no {label} prompts",
            got=f"{len(entries)} prompts, all with the other label ({fmt.name})",
            next_step="Perhaps the harmful and the harmless file have changed places.",
        )
    texts, labels, topics, pairs, system = zip(*labelled, strict=True)
    return Recognised(_name_of(fmt, file), texts, tuple(own or label for own in labels), topics, pairs, sum(system))


def read_pairs(path: Path | str, limit: int | None = None) -> tuple[tuple[str, str], ...]:
    """The prompt and the right answer of each record of a file, of the first `limit` records.

    Raises:
        UsageError: as `read_prompts`, or the format has no answers.
        PromptError: as `read_prompts`, or a record has no request or no answer.
    """
    file = read_records(path, is_known, kind="data file")
    fmt = _format_of_file(file)
    if fmt.answer is None:
        with_answers = "; ".join(
            ", ".join(dict.fromkeys((*known.keys, known.answer))) for known in _FORMATS if known.answer
        )
        raise UsageError(
            f"{path} holds no requests with answers", got=", ".join(map(repr, file.columns)), expected=with_answers
        )
    pairs = []
    for record in file.records[:limit]:
        try:
            pairs.append(_pair_of(fmt, fmt.answer, record))
        except PromptError as error:
            raise PromptError(f"{record.place} has no request or no answer", got=error.what) from error
    return tuple(pairs)


def columns_of(path: Path | str) -> tuple[str, ...]:
    """The columns or keys of a prompt file's first record; errors as `read_prompts`."""
    return tuple(read_records(path, is_known).columns)


def is_known(columns: Sequence[str]) -> bool:
    """Whether a format has these columns."""
    return _format_of(columns) is not None


def _format_of(columns: Collection[str]) -> _Format | None:
    return next((fmt for fmt in _FORMATS if all(key in columns for key in fmt.keys)), None)


def _format_of_file(file: RecordFile, group_column: str | None = None) -> _Format:
    """The format of a file, once every record is known to have it and no text of any record is passed over."""
    fmt = _format_of(file.columns)
    if fmt is None and file.columns:
        noun = "keys" if file.syntax == "JSON" else "columns"
        known = "; ".join(f"{fmt.name}: {', '.join(fmt.keys)}" for fmt in _FORMATS)
        raise UsageError(
            f"{file.path} is in no known prompt format",
            got=f"the {noun} {', '.join(map(repr, file.columns))}",
            expected=f"one of these headers ({known})",
        )
    if fmt is None or not file.records:
        raise PromptError(f"{file.path} holds no prompts")
    for record in file.records:
        missing = [key for key in fmt.keys if key not in record.fields]
        if missing:
            raise PromptError(f"{record.place} has no {missing[0]!r}", expected=f"{fmt.name}, as the first record")
    _refuse_unknown_columns(file, fmt, group_column)
    return fmt


def _refuse_unknown_columns(file: RecordFile, fmt: _Format, group_column: str | None) -> None:
    names = dict.fromkeys(name for record in file.records for name in record.fields)
    if group_column is not None and group_column not in names:
        raise UsageError(f"{file.path} has no column {group_column!r}", got=", ".join(map(repr, names)))
    for name in names:
        if name == group_column or fmt.knows(name):
            continue
        texts = sum(_holds_text(record.fields.get(name)) for record in file.records)
        if texts:
            raise UsageError(
                f"{file.path} has a column that {fmt.name} files do not have: {name!r}",
                got=f"text in {texts} of {len(file.records)} records",
                expected=", ".join((*fmt.keys, *fmt.optional, *fmt.about)),
                next_step="It may belong to the prompt: take the column out, or put its text into the prompt.",
            )


def _holds_text(value: Any) -> bool:
    """Whether a value may be part of a prompt: any text that is no number, and whatever is made up of parts."""
    if not isinstance(value, str):
        return isinstance(value, list | dict) and bool(value)
    try:
        float(value)
    except ValueError:
        return value.strip().lower() not in ("", "true", "false", "none", "null")
    return False


def _name_of(fmt: _Format, file: RecordFile) -> str:
    if file.syntax in ("JSON", "CSV"):
        return fmt.name
    return f"{fmt.name}, without a header" if file.syntax == "CSV without a header" else file.syntax


def _group(record: Record, key: str) -> str | None:
    """The topic or pair that a record names; None where it names none."""
    value = record.fields.get(key)
    if isinstance(value, list | dict):
        raise PromptError(f"{record.place} has no single {key}", got=type(value).__name__, expected="text or a number")
    return str(value).strip() or None if value is not None else None


def _pair_of(fmt: _Format, answer_key: str, record: Record) -> tuple[str, str]:
    """Request and answer."""
    return next(fmt.read(record)).text, _turn_of(record, answer_key, _ASSISTANT)
