"""A folder behind a URL, through fsspec: its files are read, written, listed and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from probes.errors import UsageError
from probes.progress import Progress, Report, silent
from probes.store.atomic import replacing
from probes.store.remote.refusals import RemoteError, in_sentences, no_such_bucket

_URL = re.compile(r"^([a-z][a-z0-9+]*):/{1,2}(?!/)(\S.*)$")  # a path of one has lost a slash
_PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "hf": ("huggingface_hub", "")}  # and the extra with it
_HUB_KINDS = ("models", "datasets", "spaces", "buckets")
_STAMPS = ("ETag", "etag", "md5Hash", "xet_hash", "blob_id", "mtime", "created")  # what stores call a file's version


class Entry(BaseModel):
    """One file there.

    Attributes:
        size: in bytes.
        stamp: changes with its content: the sha256 where we have sent it, else what the store calls its version.
    """

    model_config = ConfigDict(frozen=True)

    size: int
    stamp: str


def is_url(place: object) -> bool:
    """Whether a place is a URL, also one whose slashes `Path` has made one of."""
    return isinstance(place, str | Path) and _URL.match(str(place)) is not None


def whole_url(place: str | Path) -> str:
    """A URL with both slashes and none at its end.

    Raises:
        UsageError: of a kind that is not known here.
    """
    match = _URL.match(str(place))
    protocol, path = match.groups() if match else ("", "")
    parts = path.rstrip("/").split("/")
    too_short = protocol == "hf" and len(parts) < (3 if parts[0] in _HUB_KINDS else 2)
    if protocol not in _PACKAGES or ".." in parts or too_short:
        expected = ", ".join(f"{name}://…" for name in _PACKAGES)
        raise UsageError("This is no URL that can be opened", got=repr(str(place)), expected=expected)
    return f"{protocol}://{path.rstrip('/')}"


class Bucket:
    """A folder behind a URL. Every method raises `RemoteError` where the store refuses or does not answer."""

    seconds_between = 0.0  # two times that something is sent
    at_a_time = 8  # files that come together
    has_lock = True  # against two writers; else the store itself refuses the second

    def __init__(self, url: str) -> None:
        """Open the file system of `url`; nothing is asked of it yet.

        Raises:
            UsageError: the package for this kind of URL is not installed.
        """
        self.url = url
        protocol = url.partition(":")[0]
        package, extra = _PACKAGES[protocol]
        if find_spec(package) is None:
            raise UsageError(
                f"{protocol}:// needs the package {package}",
                next_step=f"Install it: pip install 'gravity-probe[{extra}]'.",
            )
        with in_sentences(url):
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url)

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """The file system, without what it remembers: others write there too."""
        with in_sentences(self.url):
            self._files.invalidate_cache()
            yield self._files

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None where it is not there."""
        try:
            with self._asking() as files:
                return files.cat_file(self._at(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._writing() as files:
            files.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it is there; whether it is ours now.

        Stores that cannot refuse to overwrite are asked twice: two that create in the same moment may then both
        believe that they have.
        """
        if self.read(name) is not None:
            return False
        try:
            with self._writing() as files:
                options = {"mode": "create"} if self.url.startswith(("s3:", "gs:")) else {}
                files.pipe_file(self._at(name), content, **options)
        except FileExistsError:
            return False
        return self.read(name) == content

    def get(self, name: str, target: Path) -> None:
        """Copy a file to `target`, where it appears whole.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._asking() as files, replacing(target) as beside:
            files.get_file(self._at(name), str(beside))

    def put(self, files: Mapping[str, Path | bytes], report: Report = silent) -> None:
        """Copy files there, in their order."""
        for count, (name, source) in enumerate(files.items()):
            report(Progress(f"Sending to {self.url}", count, len(files), name))
            if isinstance(source, bytes):
                self.write(name, source)
            else:
                with self._writing() as store:
                    store.put_file(str(source), self._at(name))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there any more are passed over."""
        for name in names:
            try:
                with self._asking() as files:
                    files.rm_file(self._at(name))
            except FileNotFoundError:
                continue

    def list(self, *, depth: int | None = None) -> dict[str, Entry]:
        """Every file there by its name from here, at most `depth` folders deep; empty where there is none."""
        try:
            with self._asking() as files:
                entries = files.find(self._root, maxdepth=depth, detail=True)
        except FileNotFoundError:
            entries = {}
        names = {path.removeprefix(f"{self._root}/"): about for path, about in entries.items()}
        return {name: Entry(size=about["size"] or 0, stamp=_stamp(about)) for name, about in names.items() if name}

    def check(self) -> None:
        """Refuse a bucket that is not there at all; where it may not be listed, nobody knows."""
        try:
            with suppress(RemoteError), self._asking() as files:
                files.ls(self._root.split("/")[0])
        except FileNotFoundError as error:
            raise no_such_bucket(self.url, str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """As `_asking`; where a file cannot be put, its bucket is absent."""
        try:
            with self._asking() as files:
                yield files
        except FileNotFoundError as error:
            if error.filename is not None and Path(str(error.filename)).is_absolute():
                raise  # the local file
            raise no_such_bucket(self.url, str(error)) from error


def _stamp(about: Mapping[str, Any]) -> str:
    return next((str(about[name]).strip('"') for name in _STAMPS if about.get(name)), "")
