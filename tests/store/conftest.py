from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from probes.progress import Report
from probes.store.remote.bucket import Bucket
from probes.store.remote.refusals import UnreachableError
from tests.clock import Clock
from tests.store.remotes import bucket_of, serve_s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with bucket_of(s3_server, tmp_path / "cache", monkeypatch) as url:
        yield url


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which a document is due again."""
    clock = Clock()
    monkeypatch.setattr("probes.store.pace.time", clock)
    return clock


@pytest.fixture
def lost_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached any more once the first file has come."""
    put = Bucket.put

    def put_one(self: Bucket, files: Mapping[str, Path | bytes], report: Report) -> None:
        name = next(iter(files))
        put(self, {name: files[name]}, report)
        raise UnreachableError("It cannot be reached")

    monkeypatch.setattr(Bucket, "put", put_one)
