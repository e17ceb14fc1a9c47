"""Ways in which a file goes wrong: cut off, garbled, of another encoding, or whole and yet not what it should be."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[bytes, random.Random], tuple[bytes, str]]

DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
# What may stand where something else was expected.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**6, 10**30, 1e308, -0.5, float("nan"), float("inf")),
    *("", " ", "x", "x" * 5000, "../../outside", "\0", "\ud800", "=1+1", "nan", "1e999"),
    *([], {}, [[]], [None], {"a": 1}, ["x", 1], DEEP),
)
LITERALS = ("null", "-1", "1e999", "NaN", '"x"', "''", "[]", "{}", "1" * 5000, "../..", "true", "0x10", "=1")
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(path: Path, rng: random.Random) -> str:
    """Change one file in one way; returns what was done, in a few words."""
    kinds = list(_BY_BYTES)
    if path.suffix in (".json", ".jsonl"):
        kinds += [mutate_json] * 12
    elif path.suffix == ".safetensors":
        kinds += [mutate_header] * 8
    if path.suffix in (".json", ".jsonl", ".toml", ".csv", ".txt", ".tsv"):
        kinds += [mutate_line, mutate_literal, mutate_encoding] * 3
    content, change = rng.choice(kinds)(path.read_bytes(), rng)
    path.write_bytes(content)
    return change


def truncate(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Cut the end off."""
    end = rng.randrange(len(content) + 1)
    return content[:end], f"cut after {end} of {len(content)} bytes"


def garble(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Turn a few bytes into others."""
    garbled, count = bytearray(content), rng.choice((1, 1, 2, 8))
    places = [rng.randrange(len(content)) for _ in range(count)] if content else []
    for place in places:
        garbled[place] = rng.randrange(256)
    return bytes(garbled), f"other bytes at {places}"


def repeat_part(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Let a part stand twice, or leave it out."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    times = rng.choice((0, 2))
    return content[:start] + content[start:end] * times + content[end:], f"bytes {start} to {end} stand {times} times"


def insert(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Put something between."""
    place = rng.randrange(len(content) + 1)
    alien = rng.choice((b"\0", b"\xff\xfe", b"\n\n", b'"', b"{", b"]", b",", b"\xed\xa0\x80", b"\x1b[2J", b"," * 99))
    return content[:place] + alien + content[place:], f"{alien[:8]!r} at {place}"


def empty(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Leave nothing, or nothing but blanks or zeros."""
    blank = rng.choice((b"", b"\n", b" ", b"\0" * len(content)))
    return blank, f"{len(blank)} blank bytes"


def mutate_encoding(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Write the text as another program would."""
    text = content.decode("utf-8", "replace")
    name = rng.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cr", "crlf"))
    if name in ("cr", "crlf"):
        return text.replace("\n", "\r" if name == "cr" else "\r\n").encode(), name
    return text.encode(name, "replace"), name


def mutate_line(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Leave a line out, let it stand twice, or change places with another."""
    rows = content.split(b"\n")
    first, second = rng.randrange(len(rows)), rng.randrange(len(rows))
    operation = rng.choice(("out", "twice", "swap"))
    if operation == "swap":
        rows[first], rows[second] = rows[second], rows[first]
    else:
        rows[first : first + 1] = [rows[first]] * (2 if operation == "twice" else 0)
    return b"\n".join(rows), f"line {first} {operation}"


def mutate_literal(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Put another word or number in the place of one."""
    words = list(re.finditer(rb"[\w.+-]+", content))
    if not words:
        return content, "nothing"
    word, literal = rng.choice(words), rng.choice(LITERALS)
    return content[: word.start()] + literal.encode() + content[word.end() :], f"{word[0][:20]!r} is {literal[:20]}"


def mutate_json(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one value or key of a document, or of a line that is one."""
    lines = content.decode().split("\n") if b"\n{" in content.rstrip() else [content.decode()]
    number = rng.choice([place for place, line in enumerate(lines) if line.strip()])
    try:
        document = json.loads(lines[number])
    except ValueError:
        return garble(content, rng)
    holder: dict[str, Any] = {"": document}
    change = _change(holder, rng)
    lines[number] = json.dumps(holder.get(""), ensure_ascii=rng.random() < 0.5)
    return "\n".join(lines).encode("utf-8", "surrogatepass"), change


def _change(holder: dict[str, Any], rng: random.Random) -> str:
    places = list(_places(holder, ()))
    container, key, name = rng.choice(places)
    operation = rng.choice(("value", "value", "value", "out", "rename", "wrap", "copy"))
    if operation == "out" and key != "":
        del container[key]
    elif operation == "rename" and isinstance(container, dict) and key != "":
        container[f"{key}x"] = container.pop(key)
    elif operation == "wrap":
        container[key] = [container[key]]
    elif operation == "copy":
        source, other_key, other_name = rng.choice(places)
        container[key] = json.loads(json.dumps(source[other_key]))
        return f"{name} is what {other_name} is"
    else:
        value = rng.choice(VALUES)
        container[key] = value
        return f"{name} is {repr(value)[:40]}"
    return f"{name}: {operation}"


def _places(node: Any, path: tuple[Any, ...]) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key, ".".join(map(str, (*path, key))).lstrip(".") or "all of it"
        if isinstance(node[key], dict | list):
            yield from _places(node[key], (*path, key))


def mutate_header(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change the description of a safetensors file, its length with it or not."""
    size = struct.unpack("<Q", content[:8])[0]
    header, change = mutate_json(content[8 : 8 + size], rng)
    length = rng.choice((len(header), len(header), len(header), size, 2**63, 0))
    return struct.pack("<Q", length) + header + content[8 + size :], f"header: {change}, of {length} bytes"


_BY_BYTES: tuple[Mutation, ...] = (truncate, garble, repeat_part, insert, empty)
