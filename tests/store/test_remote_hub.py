"""Runs in a repository of the hub: what is sent together is one commit, and a commit on an older state is refused."""

from __future__ import annotations

import base64
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
from urllib.parse import unquote

import pytest

REPO = Path(__file__).parents[2]
SCRIPT = """
import os, sys
from probes.store import MANIFEST, RunFolder
from probes.store.remote.refusals import ConflictError, RemoteError
from tests.store.test_remote import value, write

url, home = "hf://datasets/org/runs/study", sys.argv[1]

def machine(name):
    os.environ["XDG_CACHE_HOME"] = f"{home}/{name}"

machine("first")
write(url, 1)
machine("second")
print(value(url))
write(url, 2)
machine("first")
print(value(url))
try:
    with RunFolder.writing(url) as run:
        machine("second")
        write(url, 3)
        machine("first")
        with run.stage("nulls", "from 4"):
            run.write_json("nulls", 4)
except ConflictError as error:
    print(error)
machine("second")
with RunFolder.writing(url) as run:
    run.forget("drift")
print(sorted(RunFolder(url).manifest.stages))
for absent in ("hf://datasets/org/none/study", "hf://datasets/org/runs/nothing"):
    try:
        RunFolder(absent)
    except RemoteError as error:
        print(error)
    except Exception as error:
        print(error)
"""


TRAINING = """
import json, os, sys
from pathlib import Path
from probes.cli import app
from probes.lineage import CheckpointRef, Trajectory
from probes.models.identity import weights_sha256
from probes.models.source import folder_of
from probes.run import Run
from probes.store.remote import download_checkpoint, local_folder, new_checkpoint
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.test_train import train_words, write_place
from tests.store.test_remote_outgoing import write_two

url, home = "hf://datasets/org/runs", Path(sys.argv[1])

def machine(name):
    os.environ["XDG_CACHE_HOME"] = f"{home}/{name}"
    download_checkpoint.cache_clear()

def weights(folder):
    return [weights_sha256(step) for step in Trajectory.from_folder(folder).checkpoints]

machine("first")
with new_checkpoint(f"{url}/models/restored") as folder:
    save_checkpoint(folder, tiny_model(), tiny_tokenizer())
write_two(f"{url}/packed")
known = weights_sha256(CheckpointRef.parse(f"{url}/models/restored"))
words = train_words(write_place(home), f"{url}/runs/mine", mode="watch")
app(["train", *map(str, words), "--json"], standalone_mode=False)
trained = weights(local_folder(f"{url}/runs/mine") / "checkpoints")
machine("second")
print(json.dumps([known, weights_sha256(CheckpointRef.parse(f"{url}/models/restored"))]))
print(json.dumps([trained, weights(f"{url}/runs/mine/checkpoints")]))
print(json.dumps([step.step for step in Run(f"{url}/runs/mine").lineage.trajectories[0].checkpoints]))
"""


class WritableHub(BaseHTTPRequestHandler):
    """The few paths of the hub that one data set needs to be read and committed to."""

    files: dict[str, bytes]
    commits: list[list[str]]

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if re.fullmatch(r"/api/datasets/org/runs(/revision/main)?", path):
            self._send({"id": "org/runs", "sha": self.head, "siblings": []})
        elif match := re.fullmatch(r"/api/datasets/org/runs/tree/main/?(.*)", path):
            self._list(match[1])
        elif match := re.fullmatch(r"/datasets/org/runs/resolve/main/(.*)", path):
            self._give(match[1])
        else:
            self._refuse(404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._send({"files": files})
        elif "/commit/main" in self.path:
            self._commit([json.loads(line) for line in body.decode().splitlines() if line])
        else:
            self._refuse(404, "RepoNotFound")

    def _commit(self, lines: list[dict]) -> None:
        header, *operations = lines
        if header["value"].get("parentCommit") not in (None, self.head):
            self._refuse(412, "")
            return
        for operation in operations:
            about = operation["value"]
            if operation["key"] == "file":
                self.files[about["path"]] = base64.b64decode(about["content"])
            else:
                self.files.pop(about["path"])
        self.commits.append([operation["value"]["path"] for operation in operations])
        address = f"http://{self.headers['Host']}/datasets/org/runs/commit/{self.head}"
        self._send({"success": True, "commitOid": self.head, "commitUrl": address})

    def _list(self, folder: str) -> None:
        inside = {
            name: content for name, content in self.files.items() if name.startswith(f"{folder}/" if folder else "")
        }
        if folder and not inside:
            self._refuse(404, "EntryNotFound")
            return
        parents = {str(parent) for name in inside for parent in Path(name).parents} - {
            ".",
            folder,
            *map(str, Path(folder).parents),
        }
        tree = [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(parents)]
        tree += [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in sorted(inside.items())
        ]
        deep = "recursive=true" in self.path.lower()
        self._send([entry for entry in tree if deep or str(Path(entry["path"]).parent) == (folder or ".")])

    def _give(self, name: str) -> None:
        content = self.files.get(name)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        start, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end) + 1 if end else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self._finish(part, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

    def _send(self, value: object) -> None:
        self.send_response(200)
        self._finish(json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self._finish(b"", **({"X-Error-Code": code} if code else {}))

    def _finish(self, content: bytes, **headers: str) -> None:
        for name, text in {**headers, "X-Repo-Commit": self.head, "Content-Length": str(len(content))}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[WritableHub]]]:
    handler = type("OneDataSet", (WritableHub,), {"files": {"README.md": b"# runs"}, "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def lines_of(script: str, address: str, home: Path) -> list[str]:
    """What a script prints that takes a server for the hub."""
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        cwd=REPO,
        env={**os.environ, **settings, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_run_in_a_repository_is_one_commit_a_push(hub, tmp_path):
    address, handler = hub
    first, second, conflict, stages, no_repository, no_run = lines_of(SCRIPT, address, tmp_path)
    assert (first, second) == ("1", "2")
    assert re.search(r"changed hf://datasets/org/runs/study", conflict)
    assert stages == "[]"
    assert no_repository.startswith("There is no such repository: hf://datasets/org/none/study")
    assert no_run.startswith("There is no run at hf://datasets/org/runs/nothing")
    names = {"study/run.json", "study/.gravity-probe.json"}
    assert {"study/drift.parquet", *names} in map(set, handler.commits)
    assert set(handler.files) == {"README.md", *names}


def test_a_model_and_a_training_in_a_repository_open_elsewhere(hub, tmp_path):
    address, handler = hub
    *_, models, trainings, steps = map(json.loads, lines_of(TRAINING, address, tmp_path)[-3:])
    assert models[0] == models[1]
    assert {"packed/one", "packed/two"} in map(set, handler.commits)
    assert trainings[0] == trainings[1]
    assert steps == [2, 4]
    assert sum("models/restored/config.json" in commit for commit in handler.commits) == 1
    markers = [f"runs/mine/checkpoints/checkpoint-{step}/gravity_probe.json" for step in steps]
    sent = [name for commit in handler.commits for name in commit if name in markers]
    assert sent == markers, "each checkpoint is sent as it is saved"
