"""Checkpoints behind a URL: downloaded to the user's cache once, and again only what has changed there."""

from __future__ import annotations

import functools
from collections.abc import Container, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pydantic import RootModel, ValidationError

from probes.errors import CheckpointError, GravityError
from probes.store.atomic import write_json
from probes.store.documents import read_object
from probes.store.remote.bucket import Bucket, Entry, whole_url
from probes.store.remote.cache_folder import cache_folder
from probes.store.remote.hub_commit import open_bucket
from probes.store.remote.places import mirror_of
from probes.store.remote.refusals import UnreachableError

_INDEX = ".download.json"  # which version of each file of its folder is here
_WHOLE_TREE = 2  # folders deep: a Trainer's output with its checkpoint-N


class _Downloads(RootModel[dict[str, Entry]]):
    """Which version of each file of a folder is here."""


@functools.cache
def download_checkpoint(url: str, patterns: tuple[str, ...], *, depth: int = 1) -> Path:
    """The folder here (or GGUF file) of a checkpoint behind a URL; asked of the store once in a process.

    Args:
        url: its folder, or its GGUF file.
        patterns: of the names that are needed; no other file is downloaded.
        depth: of folders.

    Raises:
        CheckpointError: there is none.
        RemoteError: the store refuses, or does not answer and nothing is here yet.
    """
    url = whole_url(url)
    parent, _, file = url.rpartition("/")
    is_file = url.endswith(".gguf")
    bucket, folder = open_bucket(parent if is_file else url), download_folder(parent if is_file else url)
    try:
        entries = bucket.list(depth=depth)
    except UnreachableError:
        if not any(any(folder.glob(place)) for place in (_INDEX, f"*/{_INDEX}")[:depth]):
            raise
        return folder / file if is_file else folder  # as it was when it was last asked for
    needed = {name: entry for name, entry in entries.items() if _is_wanted(name, (file,) if is_file else patterns)}
    if not needed:
        bucket.check()
        raise CheckpointError(f"There is no checkpoint at {url}", expected="a folder as save_pretrained writes it")
    _delete_gone(folder, entries, depth)
    _download(bucket, folder, needed)
    return folder / file if is_file else folder


def download_trainer_folder(url: str, patterns: tuple[str, ...]) -> Path:
    """The folder here of a Trainer's output behind a URL, with the models in it; errors as `download_checkpoint`."""
    return download_checkpoint(url, patterns, depth=_WHOLE_TREE)


def fetch_weights(folder: Path) -> None:
    """Bring what was left behind a URL of a checkpoint inside a run's mirror; nothing for any other folder."""
    mirror = next(filter(None, map(mirror_of, (folder, *folder.parents))), None)
    if mirror is not None:
        mirror.fetch_folder(folder)


def note_download(bucket: Bucket, folder: Path) -> None:
    """The files of a folder here are those that lie there: they need not be downloaded."""
    entries = {name: entry for name, entry in bucket.list(depth=1).items() if (folder / name).is_file()}
    _write_index(folder, entries)


def download_folder(url: str) -> Path:
    """Where the checkpoint behind a URL is, or will be, on this machine."""
    protocol, _, path = url.partition("://")
    return cache_folder() / "checkpoints" / protocol / path


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    path = PurePosixPath(name)
    return ".." not in path.parts and any(fnmatch(path.name, pattern) for pattern in patterns)


def _delete_gone(folder: Path, remote: Container[str], depth: int) -> None:
    """Delete what has come and is there no more: a loader would take it for a part of the checkpoint."""
    for index in [path for place in (_INDEX, f"*/{_INDEX}")[:depth] for path in folder.glob(place)]:
        for name in _entries_here(index.parent):
            path = index.parent / name
            if path.relative_to(folder).as_posix() not in remote:
                path.unlink(missing_ok=True)


def _download(bucket: Bucket, folder: Path, needed: Mapping[str, Entry]) -> None:
    """Bring what is not here yet; a folder has its own index, so that its URL finds what came with its parent."""
    for name, entry in needed.items():
        target = folder / name
        entries = _entries_here(target.parent)
        if entries.get(target.name) == entry and target.is_file():
            continue
        try:
            bucket.get(name, target)
        except FileNotFoundError:
            raise CheckpointError(
                f"{bucket.url}/{name} has gone while it was downloaded", next_step="Start the command again."
            ) from None
        entries[target.name] = entry
        _write_index(target.parent, entries)


def _write_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    write_json(folder / _INDEX, {name: entry.model_dump() for name, entry in entries.items()})


def _entries_here(folder: Path) -> dict[str, Entry]:
    """What is here already; nothing where that cannot be read."""
    if not (folder / _INDEX).is_file():
        return {}
    try:
        return dict(
            _Downloads.model_validate(
                read_object(folder / _INDEX, kind="index of a download", error=CheckpointError)
            ).root
        )
    except (GravityError, ValidationError):
        return {}
