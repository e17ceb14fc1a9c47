"""The app on a URL: it lists the runs there by their manifests, and brings the rest of the one that is looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from probes.store.remote import mirror_folder
from probes.store.remote.bucket import Bucket
from tests.app.visiting import visitor
from tests.store.remotes import bucket_of, serve_s3
from tests.synthetic import write_run


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A URL with two runs under it."""
    with serve_s3() as address, bucket_of(address, tmp_path / "cache", monkeypatch) as bucket:
        for name in ("first", "second"):
            write_run(tmp_path / name, n_layers=2, steps=(1, 2), arms=("baseline",), prompts=8)
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            Bucket(f"{bucket}/runs/{name}").put({path.relative_to(tmp_path / name).as_posix(): path for path in files})
        yield f"{bucket}/runs"


def visit(monkeypatch, place: str, **query: str) -> AppTest:
    st.cache_data.clear()
    monkeypatch.setattr(sys, "argv", ["main.py", place])
    return visitor(query).run()


def files(url: str) -> set[str]:
    return {path.name for path in Path(mirror_folder(url)).rglob("*") if not path.name.startswith(".")}


def test_the_app_opens_a_url_of_runs(root, monkeypatch):
    at = visit(monkeypatch, root, run="second")
    assert not at.exception
    assert not at.error
    assert at.sidebar.selectbox[0].options == ["first", "second"]
    assert files(f"{root}/first") == {"run.json"}
    assert "drift.parquet" in files(f"{root}/second")
    assert not any(name.endswith(".safetensors") and "aligned" in name for name in files(f"{root}/second"))


def test_a_url_that_cannot_be_read_is_a_sentence(root, monkeypatch):
    at = visit(monkeypatch, "s3://no-such-bucket-at-all/runs")
    assert not at.exception
    assert "There is no such bucket" in " ".join(message.value for message in at.error)
