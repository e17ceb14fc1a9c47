"""An S3-compatible server on this machine, a bucket of its own for each test, and a cache of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

SETTINGS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def serve_s3() -> Iterator[str]:
    """The address of a server that speaks S3, until the body ends; skipped where moto or s3fs is not installed."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def bucket_of(address: str, home: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket on a server, for clients of this process and of those that it starts."""
    for name, value in {**SETTINGS, "AWS_ENDPOINT_URL": address, "XDG_CACHE_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
