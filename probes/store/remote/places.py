"""From a place that a user names to a folder of this machine: the folder itself, or the mirror of a URL."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from probes.progress import Report, silent
from probes.store.manifest import MANIFEST
from probes.store.remote.bucket import is_url, whole_url
from probes.store.remote.hub_commit import open_bucket
from probes.store.remote.index import INDEX, Index
from probes.store.remote.mirror import Mirror


def mirror_of(folder: Path) -> Mirror | None:
    """The mirror that a folder is; None for an ordinary one."""
    return Mirror(Index.read(folder).url, folder) if (folder / INDEX).is_file() else None


def place_elsewhere(place: str) -> str:
    """A place as other machines find it: a folder in the mirror of a URL is named by that URL, all else as it is."""
    path = Path(place)
    for folder in (path, *path.parents):
        if (mirror := mirror_of(folder)) is not None:
            return f"{mirror.url}/{path.relative_to(folder).as_posix()}".removesuffix("/.")
    return place


def local_folder(place: Path | str, *, new: bool = False, weights: bool = False, report: Report = silent) -> Path:
    """The folder of a run: its own, or the mirror of a URL, brought up to date.

    Args:
        place: a folder, or a URL.
        new: whether there may be nothing yet.
        weights: whether the weights of its checkpoints are needed at once.
        report: told about every file that comes or goes.

    Raises:
        RunFolderError: nothing is there and it may not be new, or the store refuses, or does not answer.
    """
    if not is_url(place):
        return Path(place)
    mirror = Mirror.of_url(str(place))
    mirror.pull(report, weights=weights)
    if not new:
        mirror.check_run()
    return mirror.path


def mirrors_of_root(url: str) -> list[Path]:
    """Mirrors of the run at a URL, or of those right under it, each with its manifest; the rest comes with `pull`.

    Raises:
        RemoteError: the store refuses, or does not answer.
    """
    bucket = open_bucket(whole_url(url))
    names = sorted(bucket.list(depth=2))
    folders = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == MANIFEST]
    if not names:
        bucket.check()
    urls = [bucket.url if folder == PurePosixPath() else f"{bucket.url}/{folder}" for folder in folders]
    mirrors = [Mirror.of_url(place) for place in urls]
    return [mirror.path for mirror in mirrors if mirror.peek()]
