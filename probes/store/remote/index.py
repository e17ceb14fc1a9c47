"""What belongs together: in a document beside the files there, and, with what this machine has of them, in one here."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from probes.errors import RunFolderError
from probes.store.atomic import file_sha256, is_unfinished, write_json
from probes.store.documents import parse_json, read_object
from probes.store.remote.bucket import Bucket, Entry
from probes.store.remote.remote_lock import LOCK

LISTING = ".gravity-probe.json"  # there, written last of all
INDEX = ".remote.json"  # here
SYNC_LOCK = ".remote.lock"  # here, while files come and go
_WEIGHTS = (".safetensors", ".bin", ".gguf")
_STATE = (".pt", ".pth")  # an optimiser's, a schedule's, of random numbers
SENT = "sha256:"  # begins the stamp of what we have sent
_HALF_DONE = "refusal_candidates.part.json"  # written anew by a worker at any moment, and gone in the end
OWN_FILES = frozenset({INDEX, SYNC_LOCK, ".lock", ".jobs.json", "gravity-probe-error.log", _HALF_DONE})


class Local(Entry):
    """A file there, with the time of change that its copy here has or will have: another time means another content."""

    changed: int


class Listing(BaseModel):
    """The files of a run as they were sent together.

    Attributes:
        revision: another one each time; what nobody has sent with a listing has a hash of what is there.
        files: by name.
    """

    revision: str
    files: dict[str, Entry]


class Index(BaseModel):
    """The run there as this machine saw it last.

    Attributes:
        url: where it is.
        revision: of the listing; None before there was one.
        files: every file there, whether or not it is here.
    """

    url: str
    revision: str | None = None
    files: dict[str, Local] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index of a mirror, to be looked at alone: it is the same object as long as the file is the same.

        Raises:
            RunFolderError: it is damaged.
        """
        about = (folder / INDEX).stat()
        return _read_index(folder, about.st_ino, about.st_mtime_ns)

    def write(self, folder: Path) -> None:
        """Keep it."""
        write_json(folder / INDEX, self.model_dump())

    def changes(self, folder: Path) -> dict[str, os.stat_result]:
        """Files here that are not as they were when they came or were sent, with their size and time."""
        abouts = {name: (folder / name).stat() for name in local_names(folder)}
        return {name: about for name, about in abouts.items() if not self.is_current(name, about)}

    def is_current(self, name: str, about: os.stat_result) -> bool:
        """Whether a file here has the size and time that it had then."""
        known = self.files.get(name)
        return known is not None and (known.size, known.changed) == (about.st_size, about.st_mtime_ns)


def local_names(folder: Path) -> Iterator[str]:
    """Every file of a run here that belongs there too."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_unfinished(Path(name))]
        inside = Path(parent).relative_to(folder)
        for name in files:
            if not is_unfinished(Path(name)) and not (inside == Path() and name in OWN_FILES):
                yield (inside / name).as_posix()


def entry_of(path: Path, about: os.stat_result) -> Local:
    """A file here as it is to stand in the index."""
    return Local(size=about.st_size, stamp=content_stamp(path), changed=about.st_mtime_ns)


def content_stamp(path: Path) -> str:
    """The stamp of a file that we have sent: its content's hash."""
    return f"{SENT}{file_sha256(path)}"


def is_content(path: Path, stamp: str) -> bool:
    """Whether a file's content is that of a stamp; a stamp of the store's own says nothing of it."""
    return not stamp.startswith(SENT) or content_stamp(path) == stamp


def expected_copy(entry: Entry, known: Local | None) -> Local:
    """An entry of the listing with the time that its copy here has, or is to have: whole seconds, as any disk keeps."""
    same = known is not None and (known.size, known.stamp) == (entry.size, entry.stamp)
    changed = known.changed if known is not None and same else time.time_ns() // 10**9 * 10**9
    return Local(size=entry.size, stamp=entry.stamp, changed=changed)


def comes_late(name: str) -> bool:
    """Whether a file stays there until it is opened: activations, and weights of checkpoints with a Trainer's state."""
    folder = name.split("/")[0]
    return folder == "activations" or (folder == "checkpoints" and name.endswith(_WEIGHTS + _STATE))


def only_trains(name: str) -> bool:
    """Whether a file is a Trainer's state, which nobody reads but a training that goes on."""
    return name.endswith(_STATE)


def listing_of(bucket: Bucket) -> Listing | None:
    """What belongs together there: as it was sent, else all that is there; None where nothing is.

    Raises:
        RemoteError: the store does not answer.
        RunFolderError: the listing is damaged.
    """
    content = bucket.read(LISTING)
    if content is not None:
        place = f"{bucket.url}/{LISTING}"
        try:
            return Listing.model_validate(parse_json(content.decode("utf-8", "replace"), place))
        except ValidationError:
            raise RunFolderError(
                f"{place} is damaged", next_step="Delete it: all that is there is read then."
            ) from None
    files = {name: entry for name, entry in bucket.list().items() if _is_safe(name) and name != LOCK}
    return Listing(revision=_hash_of(files), files=files) if files else None


def _hash_of(files: Mapping[str, Entry]) -> str:
    text = json.dumps({name: entry.model_dump() for name, entry in files.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_safe(name: str) -> bool:
    """Whether a name stays inside the folder, and is none of our own."""
    parts = name.split("/")
    return not name.startswith("/") and ".." not in parts and "" not in parts and name not in OWN_FILES


@lru_cache(maxsize=16)
def _read_index(folder: Path, inode: int, changed: int) -> Index:
    del inode, changed
    path = folder / INDEX
    try:
        return Index.model_validate(read_object(path, kind="index of a mirror", error=RunFolderError))
    except ValidationError:
        raise RunFolderError(f"{path} is damaged", next_step=f"Delete {folder}; it is brought again.") from None
