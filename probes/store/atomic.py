"""Files that appear whole or not at all: written beside their place, synced, renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from probes.errors import UsageError

_BESIDE = ".writing-"


def fingerprint(value: Any) -> str:
    """Sha256 of a JSON-able value: equal values have equal fingerprints whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes; read once for as long as its size and its time of change stay what they are."""
    about = path.stat()
    return _sha256(str(path), about.st_ino, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=65536)
def _sha256(path: str, inode: int, size: int, changed: int) -> str:
    del inode, size, changed
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_unfinished(path: Path) -> bool:
    """Whether this is what a killed process left half-written."""
    return path.name.startswith(_BESIDE)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside `path` and rename it into place."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text beside `path` and rename it into place."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Write safetensors with a description, beside `path` and then into it; equal content has equal bytes."""
    from safetensors.numpy import save

    whole = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(about))
    # The library writes the description in an order that differs from call to call.
    size = int.from_bytes(whole[:8], "little")
    document = json.loads(whole[8 : 8 + size])
    head = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with replacing(path) as beside:
        beside.write_bytes(len(head).to_bytes(8, "little") + head + whole[8 + size :])


def place_beside(path: Path) -> Path:
    """Where this process writes a file before it is renamed to `path`; two that make the same one do not meet."""
    return path.with_name(f"{_BESIDE}{platform.node()}-{os.getpid()}-{path.name}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a path beside `path`; what was written there is synced and takes its place, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = place_beside(path)
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Hand out a folder beside `path` to be filled; it takes its name once it is whole, or is removed.

    Raises:
        UsageError: `path` is there already.
    """
    if path.exists():
        raise UsageError(f"{path} is already there", next_step="Give --out a new folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{_BESIDE}{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what a killed process left half-written, files and checkpoints' folders; called under the lock."""
    for orphan in [*path.glob(f"{_BESIDE}*"), *path.glob(f"*/{_BESIDE}*")]:
        if orphan.is_dir():
            shutil.rmtree(orphan)
        else:
            orphan.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link costs nothing and stays whole when the other run is deleted; elsewhere, a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
