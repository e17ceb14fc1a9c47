"""A fresh visitor of the front end, without a browser and with one."""

import shutil
import sys
from pathlib import Path

import pytest

from probes.prompts import data_folder
from tests.app.serving import CHROMIUM, QUIET, serve
from tests.app.visiting import visitor

DEMO = Path(data_folder()) / "demo-run"


@pytest.fixture
def visit(monkeypatch):
    """A fresh visitor at an address of the app on a run, without a browser."""

    def open_at(page, query, run=DEMO):
        monkeypatch.setattr(sys, "argv", ["main.py", str(run)])
        at = visitor(query).switch_page(f"views/{page}.py").run()
        assert not at.exception
        assert not at.error
        return at

    return open_at


@pytest.fixture(scope="session")
def served_demo(tmp_path_factory):
    """The address of the app on a copy of the shipped run."""
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(DEMO, root / "demo-run")
    with serve(root) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
