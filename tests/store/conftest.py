from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
