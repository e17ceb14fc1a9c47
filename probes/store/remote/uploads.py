"""A model that is written here and sent to a URL, its configuration last: before that it is no checkpoint there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from probes.errors import UsageError
from probes.progress import Report, silent
from probes.store.atomic import new_folder
from probes.store.remote.bucket import Bucket, is_url, whole_url
from probes.store.remote.downloads import download_folder, note_download
from probes.store.remote.hub_commit import open_bucket
from probes.store.remote.refusals import RemoteError

_CONFIG = "config.json"


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
    if any(not name.startswith(".") for name in bucket.list()):  # a new repository of the hub has a .gitattributes
        raise UsageError(f"{bucket.url} is already there", next_step="Give --out a new folder.")
    bucket.check()
    target = download_folder(bucket.url)
    shutil.rmtree(target, ignore_errors=True)  # of what was there once
    with new_folder(target) as folder:
        yield folder
    _send(bucket, target, report)
    note_download(bucket, target)


def _send(bucket: Bucket, folder: Path, report: Report) -> None:
    """Send all files of a folder, or none."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in sorted(paths, key=lambda path: path.name == _CONFIG)}
    try:
        bucket.put(files, report)
    except BaseException as error:
        with contextlib.suppress(RemoteError):
            bucket.delete(files)
        if isinstance(error, RemoteError):
            raise type(error)(
                error.what, got=error.got, next_step=f"{error.next_step or ''} The model is in {folder}.".lstrip()
            ) from error
        raise
