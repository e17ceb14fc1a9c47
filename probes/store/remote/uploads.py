"""What is written here and sent to a URL once it is whole: a model, or a file or folder that a command makes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from probes.errors import UsageError
from probes.progress import Report, silent
from probes.store.atomic import new_folder
from probes.store.manifest import MANIFEST
from probes.store.remote.bucket import Bucket, is_url, whole_url
from probes.store.remote.cache_folder import cache_folder
from probes.store.remote.downloads import download_folder, note_download
from probes.store.remote.hub_commit import open_bucket
from probes.store.remote.refusals import RemoteError

_LAST = ("config.json", MANIFEST)  # without these a folder there is no checkpoint, and no run


@contextlib.contextmanager
def new_checkpoint(place: Path | str, report: Report = silent) -> Iterator[Path]:
    """Hand out a folder to be filled with a model; it appears at `place`, a folder or a URL, once it is whole.

    What was sent to a URL lies in the cache as if it had been downloaded.

    Args:
        place: where nothing is yet.
        report: told about every file that is sent.

    Raises:
        UsageError: something is there already.
        RemoteError: the store refuses, or does not answer; what was filled is still in the cache.
    """
    if not is_url(place):
        with new_folder(Path(place)) as folder:
            yield folder
        return
    bucket = open_bucket(whole_url(place))
    _refuse_present(bucket)
    target = download_folder(bucket.url)
    shutil.rmtree(target, ignore_errors=True)  # of what was there once
    with new_folder(target) as folder:
        yield folder
    try:
        _send(bucket, _files_in(target), report)
    except RemoteError as error:
        raise type(error)(
            error.what, got=error.got, next_step=f"{error.next_step or ''} The model is in {target}.".lstrip()
        ) from error
    note_download(bucket, target)


@dataclass(frozen=True)
class Outgoing:
    """A file or folder that is to be written.

    Attributes:
        path: where it is written here.
        url: what the folder of `path` stands for; None where it stays here.
    """

    path: Path
    url: str | None = None

    def place_of(self, written: Path) -> str:
        """Where the user finds what was written at `path`, beside it or in it."""
        if self.url is None:
            return str(written)
        return f"{self.url}/{written.relative_to(self.path.parent).as_posix()}".removesuffix("/.")


@contextlib.contextmanager
def outgoing(place: Path | str, report: Report = silent, *, overwrite: bool = False) -> Iterator[Outgoing]:
    """Hand out a path to be written to: that of `place`, or one here, whose file or folder is then sent to that URL.

    Args:
        place: a path or a URL.
        report: told about every file that is sent.
        overwrite: replace what is at the URL; a path is the writer's business.

    Raises:
        UsageError: something is at the URL already.
        RemoteError: the store refuses, or does not answer: nothing is there then, but for what was replaced before.
    """
    if not is_url(place):
        yield Outgoing(Path(place))
        return
    url = whole_url(place)
    parent, _, name = url.rpartition("/")
    if overwrite:
        open_bucket(url).check()
    else:
        _refuse_present(open_bucket(url))
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="outgoing-", dir=cache) as home:
        path = Path(home) / name
        yield Outgoing(path, parent)
        bucket, files = (open_bucket(url), _files_in(path)) if path.is_dir() else (open_bucket(parent), _files_in(home))
        if overwrite:
            bucket.put(files, report)
        else:
            _refuse_present(bucket, files)  # a writer may have added a suffix
            _send(bucket, files, report)


def _files_in(folder: Path | str) -> dict[str, Path]:
    """Its files by name, that which makes a checkpoint or a run of them last."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths, key=lambda path: path.name in _LAST)}


def _refuse_present(bucket: Bucket, names: Collection[str] | None = None) -> None:
    """Refuse what would be written over: anything at a URL, or these names; and a bucket that is not there."""
    depth = None if names is None else max((name.count("/") + 1 for name in names), default=1)
    present = {name for name in bucket.list(depth=depth) if not name.startswith(".")}  # such as .gitattributes
    if names is not None:
        present &= set(names)
    if present:
        place = bucket.url if names is None else f"{bucket.url}/{min(present)}"
        raise UsageError(f"{place} is already there", next_step="Give --out a new name.")
    bucket.check()


def _send(bucket: Bucket, files: Mapping[str, Path], report: Report) -> None:
    """Send all files, or none."""
    try:
        bucket.put(files, report)
    except BaseException:
        with contextlib.suppress(RemoteError):
            bucket.delete(files)
        raise
