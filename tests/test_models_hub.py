"""Checkpoints by hub id and revision: fetched, found again offline, and a clear sentence where there is none."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer

REPO = Path(__file__).parents[1]
COMMIT = "1f" * 20
LOAD = """
import sys
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.source import folder_of
from probes.models.weights import WeightFiles
ref = CheckpointRef.parse("org/tiny@v1")
host = ModelHost(ref, device="cpu")
files = WeightFiles.of_model(folder_of("org/tiny", "v1", allow_pickle=False), allow_pickle=False)
print(host.about["architecture"], host.weights_sha256(ref), *files.digests())
"""
# Without torch, which takes seconds to load.
FIND = """
import hashlib
from probes.errors import CheckpointError
from probes.models.source import folder_of
try:
    weights = folder_of("org/tiny", "{revision}", allow_pickle=False) / "model.safetensors"
    print(hashlib.sha256(weights.read_bytes()).hexdigest())
except CheckpointError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """The few paths of the hub that a download needs: a repository's description, and its files."""

    folder: Path
    paths: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.paths.append(self.path)
        if re.match(rf"^/api/models/org/tiny/revision/(v1|{COMMIT})", self.path):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            self._send(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": files}).encode(), {}, body)
        elif self.path.startswith(f"/api/models/org/tiny/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in sorted(self.folder.iterdir())
            ]
            self._send(json.dumps(tree).encode(), {}, body)
        elif match := re.match(rf"^/org/tiny/resolve/(?:v1|{COMMIT})/([\w.-]+)$", self.path):
            content = (self.folder / match[1]).read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            self._send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, type[Hub]]]:
    folder = tmp_path_factory.mktemp("hub")
    save_checkpoint(folder, tiny_model(), tiny_tokenizer())
    (folder / "pytorch_model.bin").write_bytes(b"never to be fetched")
    handler = type("TinyHub", (Hub,), {"folder": folder, "paths": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def run(script: str, cache: Path, **environment: str) -> str:
    """Output of a script in a process of its own: huggingface_hub reads its settings once, when imported."""
    settings = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_HUB_ETAG_TIMEOUT": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_fetched_by_id_and_revision_then_found_offline(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    endpoint, handler = hub
    blob = hashlib.sha256((handler.folder / "model.safetensors").read_bytes()).hexdigest()
    architecture, digest, *digests = run(LOAD, tmp_path, HF_ENDPOINT=endpoint).split()
    assert architecture == "LlamaForCausalLM"
    assert len(digest) == 64
    assert digests == [blob]
    assert any("model.safetensors" in path for path in handler.paths)
    assert not any("pytorch_model.bin" in path for path in handler.paths)

    requests = len(handler.paths)
    assert blob in run(FIND.format(revision="v1"), tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert len(handler.paths) == requests
    assert blob in run(FIND.format(revision="v1"), tmp_path, HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "environment",
    [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}],
    ids=["unreachable", "offline"],
)
def test_what_is_neither_cached_nor_reachable_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    message = run(FIND.format(revision="v1"), tmp_path, **environment)
    assert "org/tiny@v1 is not in the local cache, and the hub cannot be reached" in message
    assert "HF_HUB_OFFLINE" in message


def test_a_revision_that_the_hub_does_not_have_is_refused(hub: tuple[str, type[Hub]], tmp_path: Path) -> None:
    message = run(FIND.format(revision="v9"), tmp_path, HF_ENDPOINT=hub[0])
    assert "The hub does not give org/tiny@v9" in message
    assert "Check the id and the revision" in message
