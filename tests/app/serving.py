"""The app as a process of its own, for the tests that need a browser."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

MAIN = Path(__file__).parents[2] / "app" / "main.py"
CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 120_000  # milliseconds
ENDED = "[data-testid=stApp][data-test-script-state=notRunning]"


@contextlib.contextmanager
def serve(root):
    """The address of the app on a root, and the process, until the body ends."""
    port = free_port()
    command = [sys.executable, "-m", "app", "--server.headless=true", f"--server.port={port}"]
    with open(root / "log", "wb") as log:
        server = subprocess.Popen([*command, "--", str(root)], cwd=root, stdout=log, stderr=log)
    address = f"http://localhost:{port}"
    try:
        wait_for(address, server)
        yield address, server
    finally:
        server.terminate()
        server.wait(30)


def settle(page):
    """Wait until a page in a browser is drawn to its end: it stops once on the way, after its first pictures."""
    whole = page.locator(f"{ENDED}:not(:has([class*='st-key-draw-rest']))")
    whole.wait_for()
    page.wait_for_timeout(100)  # a busy browser draws the button that asks for the rest after the end of the first part
    whole.wait_for()


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def wait_for(address, server):
    """Until the app at `address` answers; fails where its process has ended."""
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
