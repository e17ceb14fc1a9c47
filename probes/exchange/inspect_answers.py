"""The answers in eval logs of Inspect (inspect_ai): JSON, or archives, whichever way they are compressed."""

from __future__ import annotations

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from probes.behaviour.ready_answers import ReadyAnswer
from probes.errors import PromptError
from probes.store.documents import MAX_BYTES, parse_json, read_text

_HEAD = re.compile(r'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:')  # the fields have an order in this format
_SAMPLE = re.compile(r"samples/[^/]+\.json")
_ATTACHMENT = re.compile(r"attachment://(\w+)")
_CUT_OFF = ("max_tokens", "model_length")
_BYTES = 512
_ZSTD = 93  # a method of compression that Inspect uses and that `zipfile` does not know


def is_eval_log(path: Path) -> bool:
    """Whether a file is an Inspect log, by its first bytes."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(_BYTES)
    return zipfile.is_zipfile(path) or _HEAD.match(head.decode("utf-8", errors="replace")) is not None


def read_eval_log(path: Path) -> tuple[ReadyAnswer, ...]:
    """The answers of a log, those of the first epoch before the others.

    Raises:
        PromptError: it is damaged, too large, compressed in a way that cannot be read here, or holds no samples.
    """
    samples = list(_packed_samples(path) if zipfile.is_zipfile(path) else _samples(path))
    if not samples:
        raise PromptError(
            f"{path} is an Inspect log without samples", next_step="Log them: inspect eval --log-samples."
        )
    return tuple(_answer(sample) for sample in sorted(samples, key=_epoch))


def _samples(path: Path) -> list[dict[str, Any]]:
    text = read_text(path, kind="eval log", error=PromptError)
    document = parse_json(text, str(path), error=PromptError, finite=False)
    samples = document.get("samples") if isinstance(document, dict) else None
    return [sample for sample in samples or () if isinstance(sample, dict)]


def _packed_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The samples of a `.eval` file, which is an archive with a file for each."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if _SAMPLE.fullmatch(entry.filename)]
            size = sum(entry.file_size for entry in entries)
            if size > MAX_BYTES:
                raise PromptError(
                    f"{path} is too large", got=f"{size:,} bytes", expected=f"at most {MAX_BYTES:,} bytes"
                )
            for entry in entries:
                text = _unpack(path, archive, entry).decode("utf-8")
                yield parse_json(text, f"{path}, {entry.filename},", error=PromptError, finite=False)
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError, OSError, EOFError) as fault:
        raise PromptError(f"{path} is no whole Inspect log", got=str(fault)) from fault
    except (NotImplementedError, RuntimeError) as fault:  # another compression, or a password
        raise PromptError(
            f"{path} cannot be unpacked here",
            got=str(fault),
            next_step="Convert it: inspect log convert --to json --output-dir FOLDER FILE.",
        ) from fault


def _unpack(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content of an entry, also where it is compressed as `zipfile` of this Python cannot read it.

    Raises:
        BadZipFile: it is damaged.
    """
    if entry.compress_type != _ZSTD:
        return archive.read(entry)
    import pyarrow as pa

    with open(path, "rb") as file:
        file.seek(entry.header_offset + 26)  # where the lengths of name and extra field stand, just before both
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        packed = file.read(entry.compress_size)
    try:
        content = pa.decompress(packed, decompressed_size=entry.file_size, codec="zstd", asbytes=True)
    except pa.ArrowException as fault:
        raise zipfile.BadZipFile(f"{entry.filename} cannot be decompressed") from fault
    if zlib.crc32(content) != entry.CRC:
        raise zipfile.BadZipFile(f"{entry.filename} is damaged")
    return content


def _epoch(sample: Mapping[str, Any]) -> int:
    epoch = sample.get("epoch")
    return epoch if isinstance(epoch, int) else 1


def _answer(sample: Mapping[str, Any]) -> ReadyAnswer:
    """A sample: the request is its input, whole or the user's turn of it."""
    attachments = sample.get("attachments")
    known = attachments if isinstance(attachments, dict) else {}
    choice = _first_choice(sample)
    message = choice.get("message")
    content = None if not isinstance(message, dict) else _text(message.get("content"), known)
    requests = (text for text in _requests(sample, known) if text)
    return ReadyAnswer(tuple(dict.fromkeys(requests)), content, choice.get("stop_reason") in _CUT_OFF)


def _first_choice(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _requests(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> Iterator[str]:
    for turns in (sample.get("input"), sample.get("messages")):
        if isinstance(turns, str):
            yield _text(turns, attachments)
        elif isinstance(turns, list):
            users = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
            yield from (_text(turn.get("content"), attachments) for turn in users[:1])


def _text(content: Any, attachments: Mapping[str, Any]) -> str:
    """The text of a message, with its thinking in the tags in which models write it."""
    if isinstance(content, str):
        return _ATTACHMENT.sub(lambda match: str(attachments.get(match[1], match[0])), content)
    parts = content if isinstance(content, list) else []
    return "".join(_part(part, attachments) for part in parts if isinstance(part, dict))


def _part(part: Mapping[str, Any], attachments: Mapping[str, Any]) -> str:
    if part.get("type") == "reasoning":
        return f"<think>{_text(part.get('reasoning'), attachments)}</think>"
    return _text(part.get("text"), attachments)
