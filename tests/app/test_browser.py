"""The app in a real browser: the three pages, a click on a cell, and a link that shows the same view."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.synthetic import write_run

MAIN = Path(__file__).parents[2] / "app" / "main.py"
CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 120_000  # milliseconds

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of the app on a synthetic run, started as the command starts it, from another folder."""
    root = tmp_path_factory.mktemp("served")
    write_run(root / "demo", n_layers=3, steps=(1, 10, 100), prompts=8)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    asked = [sys.executable, "-m", "streamlit", "run", str(MAIN), "--server.headless=true", f"--server.port={port}"]
    with open(root / "log", "wb") as log:
        server = subprocess.Popen([*asked, "--", str(root)], cwd=root, stdout=log, stderr=log)
    address = f"http://localhost:{port}"
    try:
        _wait_for(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address, server):
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until:
        assert server.poll() is None, "the app ended before it answered"
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
        else:
            return
    pytest.fail("the app did not answer")


@pytest.fixture
def page():
    """A page that may reach nothing but the app itself; what it asks for elsewhere is listed in `page.outside`."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        shown = browser.new_page(viewport={"width": 1440, "height": 900})
        shown.set_default_timeout(PATIENCE)
        shown.outside = []
        shown.on("request", lambda asked: _note_outside(shown.outside, asked.url))
        yield shown
        browser.close()


def _note_outside(found, url):
    if not re.match(r"(https?|wss?)://localhost[:/]|data:|blob:", url):
        found.append(url)


def _heading(page, text):
    page.get_by_role("heading", level=1, name=re.compile(text)).wait_for()


def test_walking_the_pages_clicking_a_cell_and_sharing_the_link(served, page):
    page.goto(served)
    _heading(page, "Baseline: specific to harmful prompts")
    page.get_by_role("link", name="Layers").click()
    _heading(page, "layer by layer")
    cells = page.locator(".js-plotly-plot").first.locator(".scatterlayer .point")
    cells.nth(0).wait_for(state="attached")
    box = cells.nth(4).bounding_box()  # layer 0 (above the embedding), the second of three steps
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"layer=0.*"))
    assert "step=10" in page.url.split("?")[1].split("&")
    page.get_by_text("The prompts at layer 0").wait_for()
    page.get_by_role("link", name="Trajectories").click()
    _heading(page, "of the way back")
    page.wait_for_url(re.compile(r"trajectories\?.*layer=0"))
    assert "step=10" in page.url.split("?")[1].split("&")
    link = page.url
    other = page.context.browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(link)
    other.get_by_text("Seed 0 at step 10, layer 0").wait_for()
    assert not page.outside, "the app must work with no network, and tell nobody what is looked at"
