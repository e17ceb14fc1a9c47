"""The command that opens the app, as somebody types it who has never used Streamlit."""

import asyncio
import os
import pty
import signal
import socket
import subprocess
import sys
import urllib.parse

import pytest
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.app.serving import free_port, wait_for
from tests.synthetic import write_run


@pytest.mark.slow
def test_a_first_start_asks_nothing(tmp_path):
    """At a terminal, with an empty home, Streamlit would ask for an address before it answers, and advertise."""
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
        printed = os.read(far, 10_000).decode()
        assert f"localhost:{port}" in printed
        assert "skills" not in printed.lower()
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


@pytest.mark.slow
def test_a_page_asked_for_under_another_name_shows_nothing_of_a_run(served_demo):
    """A name that somebody else points at this machine must not read what lies on it; over the real connection."""
    port = served_demo.rpartition(":")[2]
    for host, is_answered in (("localhost", True), ("evil.example", False), ("localhost", True)):
        texts = asyncio.run(messages(f"ws://{host}:{port}/_stcore/stream"))
        assert ("demo-run" in texts) is is_answered
        assert ("The app answers at localhost" in texts) is not is_answered


async def messages(url):
    """All that the server on this machine sends for the first drawing of the page, as text, whatever name asks."""
    question, texts = BackMsg(), []
    question.rerun_script.query_string = ""
    async with websockets.connect(url, host="localhost", port=port_of(url), subprotocols=["streamlit"]) as connection:
        await connection.send(question.SerializeToString())
        while not texts or "script_finished" not in texts[-1]:
            message = ForwardMsg()
            message.ParseFromString(await asyncio.wait_for(connection.recv(), 60))
            texts.append(str(message))
    return "\n".join(texts)


def port_of(url):
    return urllib.parse.urlsplit(url).port
