"""JSON and TOML that people and other programs wrote: read whole and within bounds, or refused with the place.

Every fault is one sentence that names the file and the place in it: line and column where the text itself is at fault,
the keys that lead there where a value is. No document may hold the same key twice, a number that is not finite (unless
its reader allows it), text that no UTF-8 file can hold, more levels than `MAX_DEPTH`, or more bytes than its bound.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from probes.errors import GravityError, UsageError

MAX_BYTES = 1 << 30  # prompts and training data; all of it is held in memory
MAX_TOML_BYTES = 1 << 20
MAX_DEPTH = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_TEXT = "text that is no UTF-8 (half of a surrogate pair)"
_JSON_TOKEN = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"(?=\s*:))|"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)


class _RepeatedKeyError(ValueError):
    """An object has a key twice; the decoder knows its name, not its place."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for place, name in enumerate(names) if name in names[:place]))
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of)


def read_text(path: Path, *, kind: str = "file", limit: int = MAX_BYTES, error: type[GravityError] = UsageError) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        kind: what it is called in messages, e.g. `prompt file`.
        limit: most bytes that are read.
        error: raised for a fault of the content.

    Raises:
        UsageError: it is not there, or cannot be read.
        GravityError: it is not UTF-8 or has more than `limit` bytes: as `error`.
    """
    try:
        raw = bytearray()  # grown with the file: read(limit) would take all of that room at once
        with open(path, "rb") as file:
            while len(raw) <= limit and (chunk := file.read(1 << 20)):
                raw += chunk
    except FileNotFoundError:
        raise UsageError(f"There is no {kind} {path}") from None
    except (OSError, ValueError) as fault:  # ValueError: a name that no file can have
        reason = getattr(fault, "strerror", None) or str(fault)
        raise UsageError(f"{path} cannot be read as a {kind}", got=reason) from fault
    if len(raw) > limit:
        raise error(f"{path} is too large", expected=f"at most {limit:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        place = f"byte 0x{raw[fault.start]:02x} at position {fault.start}"
        raise error(f"{path} is not UTF-8", got=place, next_step="Save it as UTF-8 and try again.") from None


def read_json(
    path: Path,
    *,
    kind: str = "file",
    limit: int = MAX_BYTES,
    error: type[GravityError] = UsageError,
    finite: bool = True,
) -> Any:
    """The document of a JSON file; raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path, kind=kind, limit=limit, error=error), str(path), error=error, finite=finite)


def read_object(path: Path, *, kind: str, error: type[GravityError], finite: bool = True) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        UsageError: it is not there, or cannot be read.
        GravityError: it is no object, or as `parse_json`: as `error`.
    """
    document = read_json(path, kind=kind, error=error, finite=finite)
    if not isinstance(document, dict):
        raise error(f"{path} is no {kind}", got=type(document).__name__, expected="a JSON object")
    return document


def read_toml(
    path: Path, *, kind: str = "file", limit: int = MAX_TOML_BYTES, error: type[GravityError] = UsageError
) -> dict[str, Any]:
    """The document of a TOML file.

    Raises:
        UsageError: it is not there, or cannot be read.
        GravityError: it is not UTF-8, too large, no TOML, or holds what no document may: as `error`.
    """
    text = read_text(path, kind=kind, limit=limit, error=error)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise error(f"{path} is nested too deeply", expected=f"at most {MAX_DEPTH} levels") from None
    except ValueError as fault:  # also of a number with more digits than Python turns into one
        raise error(f"{path} is not TOML", got=str(fault)) from fault
    _refuse_faulty(document, str(path), "TOML", error)
    return document


def parse_json(text: str, name: str, *, error: type[GravityError] = UsageError, finite: bool = True) -> Any:
    """The document that a text is.

    Args:
        text: all of it.
        name: what it is called in messages, e.g. the path of its file.
        error: raised for any fault.
        finite: whether a number that is not finite is a fault; other programs write them among losses and limits.

    Raises:
        GravityError: it is no JSON, or holds what no document may: as `error`, with the place.
    """
    try:
        return _decode(text, name, error, finite=finite)
    except json.JSONDecodeError as fault:
        raise _syntax_error(fault, name, error) from fault


def parse_json_or_lines(text: str, name: str, *, error: type[GravityError] = UsageError) -> tuple[tuple[str, Any], ...]:
    """The documents of a text with their places: the one that it is, or one a line; raises as `parse_json`."""
    try:
        return ((name, _decode(text, name, error)),)
    except json.JSONDecodeError as fault:
        if fault.msg != "Extra data":
            raise _syntax_error(fault, name, error) from fault
    return tuple(_documents_of_lines(text, name, error))


def _syntax_error(fault: json.JSONDecodeError, name: str, error: type[GravityError]) -> GravityError:
    place = f"line {fault.lineno}, column {fault.colno}: {fault.msg}"
    return error(f"{name} is no whole JSON file", got=place)


def _documents_of_lines(text: str, name: str, error: type[GravityError]) -> Iterator[tuple[str, Any]]:
    # Not splitlines(), which also cuts at U+2028 and others that stand inside texts.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number},"
        try:
            yield place, _decode(line, place, error)
        except json.JSONDecodeError as fault:
            fault_text = f"column {fault.colno}: {fault.msg}"
            raise error(f"{place} is not JSON", got=fault_text, expected="one object a line, or one array") from fault


def _decode(text: str, name: str, error: type[GravityError], *, finite: bool = True) -> Any:
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise error(f"{name} is nested too deeply", expected=f"at most {MAX_DEPTH} levels") from None
    except _RepeatedKeyError as fault:
        fault_text = f"{_repeated_at(text)}: the key {str(fault)!r} for the second time"
        raise error(f"{name} has a key twice in one object", got=fault_text, expected="each key once") from None
    except ValueError as fault:  # a number with more digits than Python turns into one
        raise error(f"{name} holds a number that is too long", got=str(fault)) from fault
    surrogates = _SURROGATE_ESCAPE.search(text) is not None
    _refuse_faulty(document, name, "JSON", error, surrogates=surrogates, finite=finite)
    return document


def _repeated_at(text: str) -> str:
    """Line and column of the first key that its object has already."""
    opened: list[set[str]] = []
    for token in _JSON_TOKEN.finditer(text):
        if token["key"]:
            if token["key"] in opened[-1]:
                line = text.count("\n", 0, token.start()) + 1
                return f"line {line}, column {token.start() - text.rfind(chr(10), 0, token.start())}"
            opened[-1].add(token["key"])
        elif token[0] in "{[":
            opened.append(set())
        elif token[0] in "}]":
            opened.pop()
    return "the same key written in two ways"


def _refuse_faulty(
    document: Any,
    name: str,
    language: str,
    error: type[GravityError],
    *,
    surrogates: bool = False,
    finite: bool = True,
) -> None:
    """Refuse what no document may hold, with the keys that lead to it."""
    open_containers: list[tuple[Any, tuple[str | int, ...]]] = [((document,), ())]
    while open_containers:
        container, place = open_containers.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, dict | list):
                if len(place) >= MAX_DEPTH:
                    _refuse(name, language, place, f"more than {MAX_DEPTH} levels", error)
                open_containers.append((value, (*place, key)))
            elif finite and isinstance(value, float) and not math.isfinite(value):
                _refuse(name, language, (*place, key), f"{value}, which is no finite number", error)
            elif surrogates and isinstance(value, str) and _SURROGATE.search(value):
                _refuse(name, language, (*place, key), _SURROGATE_TEXT, error)
            if surrogates and isinstance(key, str) and _SURROGATE.search(key):
                _refuse(name, language, place, f"a key with {_SURROGATE_TEXT}", error)


def _refuse(name: str, language: str, place: tuple[str | int, ...], value: str, error: type[GravityError]) -> NoReturn:
    keys = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place[1:8]).removeprefix(".")
    at = f"{keys}{' …' if len(place) > 8 else ''}" or "its top"
    raise error(f"{name} is {language} that cannot be used", got=f"{value}, at {at}")
