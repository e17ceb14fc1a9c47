"""A run behind a URL, and the folder here that it is worked on in: brought up to date before, sent back after a stage.

Files that have changed come before the work, activations and the weights of its checkpoints when they are first
opened. What a stage has left is sent file by file, then the manifest, then the listing that says which files belong
together: whoever reads there meanwhile has the state before or the state after. A process that is killed leaves what
it did here, and the next command sends it. Of two that have changed the same run, the second is refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from probes.errors import RunFolderError
from probes.progress import Progress, Report, silent
from probes.store.manifest import MANIFEST
from probes.store.pace import Pace
from probes.store.remote.bucket import Bucket, Entry, whole_url
from probes.store.remote.cache_folder import mirror_folder
from probes.store.remote.hub_commit import open_bucket
from probes.store.remote.index import (
    INDEX,
    LISTING,
    SYNC_LOCK,
    Index,
    Listing,
    Local,
    comes_late,
    content_stamp,
    entry_of,
    expected_copy,
    is_content,
    listing_of,
    local_names,
    only_trains,
)
from probes.store.remote.refusals import ConflictError, RemoteError, UnreachableError
from probes.store.remote.remote_lock import holder, unlock, writing_alone

_ATTEMPTS, _PAUSE = 4, 1.0  # to read a run that is being sent meanwhile; seconds between


class _OutdatedError(Exception):
    """A file there is no longer the one that the listing names."""


class Mirror:
    """One run behind a URL, and its folder here."""

    def __init__(self, url: str, folder: Path) -> None:
        """Nothing is asked of the store yet.

        Args:
            url: where the run is.
            folder: where it is worked on.
        """
        self.url, self.path = url, folder
        self._present: set[str] | None = None  # files here since the session began; what goes meanwhile goes there too
        self._pace = Pace()

    @functools.cached_property
    def bucket(self) -> Bucket:
        """Where the run is; opened when it is first asked, so that reading what is here needs nothing of it."""
        return open_bucket(self.url)

    @classmethod
    def of_url(cls, url: str) -> Mirror:
        """The mirror of a URL, in this user's cache."""
        url = whole_url(url)
        mirror = cls(url, mirror_folder(url))
        if not (mirror.path / INDEX).exists():
            mirror.path.mkdir(parents=True, exist_ok=True)
            Index(url=url).write(mirror.path)
        return mirror

    # From there ----------------------------------------------------------------------------------------------

    def pull(self, report: Report = silent, *, weights: bool = False) -> None:
        """Bring the folder here up to date, after sending what a killed process has left unsent.

        While a process of this machine writes to the run, its folder here is the newest there is, and stays as it is.

        Args:
            report: told about every file.
            weights: bring checkpoints' weights and a Trainer's state too; else weights come when they are opened.

        Raises:
            ConflictError: both sides have changed.
            RemoteError: the store refuses, or does not answer.
        """
        with self._alone(), contextlib.suppress(Timeout), FileLock(self.path / ".lock", timeout=0):
            if not self._update(report, weights=weights):
                return
            with writing_alone(self.bucket):
                self._send(self._changes(), set(), report)

    def peek(self) -> bool:
        """Bring the manifest alone; whether there is one. The other files come with `pull`."""
        with self._alone():
            index = Index.read(self.path)
            if index.revision is None and MANIFEST not in index.changes(self.path):
                entry = self.bucket.list(depth=1).get(MANIFEST)
                if entry is None:
                    return False
                manifest = self._get(MANIFEST, expected_copy(entry, None), as_it_is=True)
                Index(url=self.url, files={MANIFEST: manifest}).write(self.path)
        return (self.path / MANIFEST).is_file()

    def check_run(self) -> None:
        """Refuse a place that holds no run."""
        if not (self.path / MANIFEST).is_file():
            raise RunFolderError(f"There is no run at {self.url}", expected=f"a folder with {MANIFEST}")

    def knows(self, name: str, size: int | None = None) -> bool:
        """Whether a file that is not here lies there, as large as it must be (None: however large)."""
        known = Index.read(self.path).files.get(name)
        return known is not None and size in (None, known.size)

    def fetch(self, name: str) -> None:
        """Bring one file that was left there until now; nothing where it is here, or is not there either.

        Raises:
            RemoteError: it has changed there meanwhile, or the store does not answer.
        """
        known = None if (self.path / name).exists() else Index.read(self.path).files.get(name)
        if known is None:
            return
        try:
            self._get(name, known)
        except _OutdatedError:
            raise RemoteError(
                f"{self.url}/{name} has changed since this run was opened", next_step="Start the command again."
            ) from None

    def fetch_folder(self, folder: Path, *, to_train: bool = False) -> None:
        """Bring what was left there of a folder of the run and can be read, as `fetch`; to train on, all of it."""
        prefix = "" if folder == self.path else f"{folder.relative_to(self.path).as_posix()}/"
        for name in Index.read(self.path).files:
            if name.startswith(prefix) and (to_train or not only_trains(name)):
                self.fetch(name)

    def _update(self, report: Report, *, weights: bool) -> bool:
        """Bring what has changed; whether something here has still to be sent."""
        for _ in range(_ATTEMPTS):
            listing = listing_of(self.bucket)
            try:
                return self._bring(listing, report, weights=weights)
            except _OutdatedError:
                if self._is_abandoned(listing):
                    return self._bring(listing, report, weights=weights, as_it_is=True)
            time.sleep(_PAUSE)
        raise RemoteError(
            f"{self.url} is being written to right now",
            got=self.describe()["writer"],
            next_step=f"Try again in a minute. If its writer is gone: gravity-probe status {self.url} --unlock.",
        )

    def _is_abandoned(self, listing: Listing | None) -> bool:
        """Whether files that are not as the listing says stay so: nobody is sending any more."""
        owner, now = holder(self.bucket), listing_of(self.bucket)
        return (self._present is not None or owner is None or owner.is_gone) and now == listing

    def _bring(self, listing: Listing | None, report: Report, *, weights: bool, as_it_is: bool = False) -> bool:
        """As `_update`, by a listing.

        Raises:
            _OutdatedError: a file is another than the listing says, unless it is to be taken as it is.
        """
        index = Index.read(self.path)
        if listing is None:
            if index.revision is not None:
                raise RemoteError(
                    f"{self.url} is gone; its files are still in {self.path}",
                    next_step=f"Delete {self.path / INDEX} to keep them as an ordinary run, or the folder.",
                )
            self.bucket.check()
            return bool(self._changes())
        same = self._same_as_there(index, listing)
        known, changes = {**index.files, **same}, set(index.changes(self.path)).difference(same)
        if MANIFEST in changes and listing.revision != index.revision:
            raise ConflictError(
                f"{self.url} has changed there, and here in a way that was never sent",
                got=f"other work in {self.path}",
                next_step=f"Delete {self.path} to go on with what is there, or copy it away first.",
            )
        files = {name: expected_copy(entry, known.get(name)) for name, entry in listing.files.items()}
        outdated = [name for name, entry in files.items() if entry != known.get(name) or self._is_absent(name, changes)]
        needed = [name for name in outdated if weights or not comes_late(name)]
        files |= self._get_all({name: files[name] for name in needed}, report, as_it_is=as_it_is)
        for name in (*set(outdated).difference(needed), *set(known).difference(listing.files, changes)):
            (self.path / name).unlink(missing_ok=True)
        Index(url=self.url, revision=listing.revision, files=files).write(self.path)
        return bool(self._changes())

    def _same_as_there(self, index: Index, listing: Listing) -> dict[str, Local]:
        """Files here that have changed into what is there: a push was cut off behind them."""
        same = {}
        for name, about in index.changes(self.path).items():
            entry = listing.files.get(name)
            if entry is not None and entry.size == about.st_size and entry.stamp == content_stamp(self.path / name):
                same[name] = Local(**entry.model_dump(), changed=about.st_mtime_ns)
        return same

    def _is_absent(self, name: str, changes: set[str]) -> bool:
        return name not in changes and not (self.path / name).exists()

    def _get_all(self, files: dict[str, Local], report: Report, *, as_it_is: bool) -> dict[str, Local]:
        """Bring files, several at a time, and the manifest after all others; errors as `_get`."""
        get = functools.partial(self._get, as_it_is=as_it_is)
        names, entries = [name for name in files if name != MANIFEST], {}
        with ThreadPoolExecutor(self.bucket.at_a_time) as pool:
            brought = pool.map(get, names, [files[name] for name in names])
            for count, (name, entry) in enumerate(zip(names, brought, strict=True)):
                report(Progress(f"Fetching from {self.url}", count, len(files), name))
                entries[name] = entry
        if MANIFEST in files:
            entries[MANIFEST] = get(MANIFEST, files[MANIFEST])
        return entries

    def _get(self, name: str, entry: Local, *, as_it_is: bool = False) -> Local:
        """Bring a file, and give it the time by which it is known to be as it came.

        Raises:
            _OutdatedError: there is another one by now, or none.
        """
        target = self.path / name
        try:
            self.bucket.get(name, target)
        except FileNotFoundError:
            raise _OutdatedError from None
        os.utime(target, ns=(entry.changed, entry.changed))
        if target.stat().st_size == entry.size and is_content(target, entry.stamp):
            return entry
        if as_it_is:
            return entry_of(target, target.stat())
        target.unlink()
        raise _OutdatedError

    # Back there ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self) -> Iterator[Mirror]:
        """Write to the run: alone, from the newest state on; what is left at the end, also of a failure, is sent.

        Raises:
            ConflictError: both sides have changed.
            RemoteError: another process writes to it, the store refuses, or does not answer.
        """
        with writing_alone(self.bucket):
            self._present = set()
            with self._alone():
                self._update(silent, weights=False)
                self._present = set(local_names(self.path))
            try:
                yield self
            except BaseException:
                with contextlib.suppress(RunFolderError):
                    self.push()
                raise
            else:
                self.push()
            finally:
                self._present = None

    def push_soon(self) -> None:
        """Send what stages have left, if that takes a small share of the time and the store answers.

        Else a later stage or the end of the session will.
        """
        if self._pace.is_due:
            with contextlib.suppress(UnreachableError):
                self.push()

    def push(self, report: Report = silent) -> None:
        """Send what has changed here; called while writing alone.

        Raises:
            ConflictError: somebody else has changed the run there.
            RemoteError: the store refuses, or does not answer.
        """
        with self._pace.measure(self.bucket.seconds_between), self._alone():
            names = set(local_names(self.path))
            gone = (self._present or set()) - names
            self._send(self._changes(), gone, report)
            self._present = None if self._present is None else names

    def _changes(self) -> Mapping[str, os.stat_result]:
        return Index.read(self.path).changes(self.path)

    def _send(self, changes: Mapping[str, os.stat_result], gone: set[str], report: Report) -> None:
        """Send files, the manifest, the listing, in this order; then delete what went."""
        index = Index.read(self.path)
        gone &= index.files.keys()
        if not changes and not gone:
            return
        listing = listing_of(self.bucket)
        if (None if listing is None else listing.revision) != index.revision:
            raise ConflictError(
                f"Somebody else has changed {self.url}",
                got=f"this run's work in {self.path}, which was not sent",
                next_step=f"Delete {self.path} to go on with what is there, or copy it away first.",
            )
        names = sorted(changes, key=lambda name: (name == MANIFEST, name))
        fresh = {name: entry_of(self.path / name, changes[name]) for name in names}
        files = {name: entry for name, entry in index.files.items() if name not in gone} | fresh
        revision = secrets.token_hex(16)
        entries = {name: Entry(size=entry.size, stamp=entry.stamp) for name, entry in files.items()}
        content = Listing(revision=revision, files=entries).model_dump_json(indent=1).encode()
        self.bucket.put({name: self.path / name for name in names} | {LISTING: content}, report)
        Index(url=self.url, revision=revision, files=files).write(self.path)
        self.bucket.delete(sorted(gone))

    # Both ----------------------------------------------------------------------------------------------------

    def alone(self) -> FileLock:
        """No other process of this machine brings or sends files meanwhile."""
        return self._alone()

    def _alone(self) -> FileLock:
        return FileLock(self.path / SYNC_LOCK)

    def describe(self) -> dict[str, Any]:
        """Its `url`, how many files were `left_there`, and who writes to it in words (`writer`; None: nobody).

        Raises:
            RemoteError: the store refuses, or does not answer.
        """
        owner = holder(self.bucket)
        left = sum(not (self.path / name).exists() for name in Index.read(self.path).files)
        return {"url": self.url, "left_there": left, "writer": None if owner is None else str(owner)}

    def unlock(self) -> str | None:
        """Take the lock away from whoever holds it; who that was, in words."""
        owner = unlock(self.bucket)
        return None if owner is None else str(owner)
