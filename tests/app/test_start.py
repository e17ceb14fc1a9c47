"""The command that opens the app, as somebody types it who has never used Streamlit."""

import os
import pty
import signal
import socket
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


@pytest.mark.slow
def test_the_server_ends_with_its_command(tmp_path):
    """Killed outright, without a chance to clean up, the command leaves nobody at its port."""
    write_run(tmp_path / "run", n_layers=2, steps=(1,), arms=("baseline",), prompts=4)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "probes.cli", "app", str(tmp_path), "--port", str(port), "--no-browser"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(f"http://localhost:{port}", server)
    server.kill()
    server.wait(30)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("localhost", port), timeout=5)
