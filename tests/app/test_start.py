"""The command that opens the app, as somebody types it who has never used Streamlit."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.app.serving import free_port, wait_for
from tests.synthetic import write_run


@pytest.mark.slow
def test_a_first_start_asks_nothing(tmp_path):
    """At a terminal, with an empty home, Streamlit would ask for an address before it answers."""
    write_run(tmp_path / "run", n_layers=2, steps=(1,), arms=("baseline",), prompts=4)
    port, (far, near) = free_port(), pty.openpty()
    server = subprocess.Popen(
        [sys.executable, "-m", "probes.cli", "app", str(tmp_path), "--port", str(port)],
        stdin=near,
        stdout=near,
        stderr=near,
        start_new_session=True,
        env={**os.environ, "HOME": str(tmp_path), "BROWSER": "true"},
    )
    try:
        wait_for(f"http://localhost:{port}", server)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        os.close(far)
        os.close(near)
