"""One writer at a time: on a run folder of this machine, and on what it mirrors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from probes.errors import RunFolderError
from probes.store.atomic import is_unfinished, sweep
from probes.store.manifest import MANIFEST
from probes.store.remote.index import OWN_FILES
from probes.store.remote.mirror import Mirror
from probes.store.remote.places import mirror_of

LOCK = ".lock"
_OWN_BEFORE_MANIFEST = OWN_FILES | {"checkpoints", "lineage.toml", "prompts.jsonl", "training.json"}
_HELD: dict[Path, Mirror] = {}  # mirrors that this process holds over many writings


@contextlib.contextmanager
def holding_mirror(path: Path) -> Iterator[Mirror | None]:
    """Hold the mirror of a URL over many writings that follow each other: each of them is then a part of this one.

    An ordinary folder is not held: nobody has to be told of its files between two writings.

    Yields:
        The mirror, or None; errors as `writing_alone`.
    """
    if mirror_of(path) is None:
        yield None
        return
    with writing_alone(path) as mirror:
        assert mirror is not None
        _HELD[path] = mirror
        try:
            yield mirror
        finally:
            del _HELD[path]


@contextlib.contextmanager
def writing_alone(path: Path) -> Iterator[Mirror | None]:
    """Hold a run folder, new or not; what a killed process left half-written is removed.

    Yields:
        The mirror that the folder is, up to date and alone in writing there too; None for an ordinary folder.

    Raises:
        RunFolderError: another process writes to it, or it holds something that is no run.
    """
    if path in _HELD:
        yield _HELD[path]
        return
    if not (path / MANIFEST).exists() and path.is_dir() and any(not _is_own(child) for child in path.iterdir()):
        raise RunFolderError(
            f"{path} is not empty and holds no {MANIFEST}", next_step="Give --out a new folder, or one of a run."
        )
    path.mkdir(parents=True, exist_ok=True)
    mirror, lock = mirror_of(path), FileLock(path / LOCK)
    try:
        with mirror.alone() if mirror else contextlib.nullcontext():
            lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(
            f"Another process is writing to {path}", next_step="Wait for it, or give another --out."
        ) from None
    try:
        sweep(path)
        with mirror.session() if mirror else contextlib.nullcontext():
            yield mirror
    finally:
        lock.release()


def is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but locks, what a mirror knows of its URL, and what a kill left."""
    return all(child.name in OWN_FILES or is_unfinished(child) for child in path.iterdir())


def _is_own(child: Path) -> bool:
    """Whether a file in a folder without a manifest is one that a run has before its manifest, or was killed on."""
    return child.name in _OWN_BEFORE_MANIFEST or is_unfinished(child)
