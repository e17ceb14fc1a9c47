"""Training into a run behind a URL: sent with each checkpoint, gone on with on another machine, opened by its URL."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from probes.guard.callback import ReversionGuard
from probes.guard.recorded_path import PATH, RecordedPath
from probes.guard.resuming import MARKER
from probes.guard.step_log import read_step_log
from probes.lineage import CheckpointRef, Trajectory
from probes.models.identity import weights_sha256
from probes.models.source import folder_of
from probes.run import Run
from probes.store.remote import cache_folder, download_checkpoint, local_folder, mirror_folder, place_elsewhere
from probes.store.remote.bucket import Bucket
from probes.store.remote.remote_lock import LOCK
from tests.guard.test_train import train_words, write_place
from tests.processes import gravity_probe
from tests.processes import run as run_process
from tests.store.test_remote import as_if_far_away, at_once, elsewhere, names  # noqa: F401
from tests.store.test_remote_commands import command


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return write_place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def models(bucket, place) -> str:
    """Where the lineage file says that its models are."""
    download_checkpoint.cache_clear()
    url = f"{bucket}/models"
    paths = [path for role in ("aligned", "witness") for path in sorted((place / role).iterdir())]
    Bucket(url).put({path.relative_to(place).as_posix(): path for path in paths})
    roles = [f'[{role}]\nmodel = "{url}/{role}"\n' for role in ("aligned", "witness")]
    (place / "lineage.toml").write_text("".join(roles), encoding="utf-8")
    return url


def train_until_step_3(signal: BaseException | None, *words: object) -> None:
    """Train, and be killed, or interrupted, behind the third step."""
    measure = ReversionGuard.on_step_end

    def stop_at_step_3(self, args, state, control, **kwargs):
        if state.global_step == 3:
            if signal is not None:
                raise signal
            os.kill(os.getpid(), 9)
        return measure(self, args, state, control, **kwargs)

    ReversionGuard.on_step_end = stop_at_step_3
    gravity_probe("train", *words)


def weights(trainer_folder: Path | str) -> dict[int, str]:
    return {step.step: weights_sha256(step) for step in Trajectory.from_folder(trainer_folder).checkpoints}


def test_killed_and_gone_on_with_elsewhere_it_ends_as_in_a_folder(place, models, bucket, elsewhere, tmp_path):  # noqa: F811
    url = f"{bucket}/runs/mine"
    assert run_process(train_until_step_3, None, *train_words(place, url)).returncode == -9
    assert {f"checkpoints/checkpoint-2/{name}" for name in (MARKER, "optimizer.pt", "model.safetensors")} <= names(url)

    elsewhere()
    as_if_far_away(url)
    refusal = run_process(gravity_probe, "train", *train_words(place, url))
    assert (refusal.returncode, "Another process is writing to s3" in refusal.stderr) == (1, True), refusal.stderr
    command("status", url, "--unlock")
    command("train", *train_words(place, url))
    command("train", *train_words(place, tmp_path / "whole"))
    whole, copy = Run(tmp_path / "whole"), local_folder(url)
    assert Run(url).drift().equals(whole.drift())
    assert read_step_log(copy / "checkpoints") == read_step_log(whole.path / "checkpoints")
    assert LOCK not in names(url)
    assert json.loads(Bucket(url).read("training.json"))["finished"]
    again = run_process(gravity_probe, "train", *train_words(place, url))
    assert f"{url} is already there; got a finished training" in again.stderr

    elsewhere()  # where it was killed, and has something left that it never sent
    shutil.rmtree(mirror_folder(url))
    run = Run(url)
    assert run.lineage.aligned.model == f"{models}/aligned"
    last = run.lineage.trajectories[0].checkpoints[-1]
    folder = folder_of(last.model, None, allow_pickle=False)
    assert weights(f"{url}/checkpoints") == weights(tmp_path / "whole" / "checkpoints")
    assert weights_sha256(last) == weights(tmp_path / "whole" / "checkpoints")[4]
    assert not (folder / "optimizer.pt").exists(), "nobody reads it but a training that goes on"

    options = ["--harmful", place / "harmful.txt", "--harmless", place / "harmless.txt", "--no-nulls"]
    roles = ["--aligned", f"{models}/aligned", "--trajectory", f"block={url}/checkpoints"]
    command("measure", *roles, *options, "--set", "bootstraps=20", "--set", "splits=2", "--out", f"{bucket}/runs/read")
    assert [member.step for member in Run(f"{bucket}/runs/read").members if member.arm == "block"] == [2, 4]


def test_an_interrupted_training_sends_what_it_has(place, models, bucket, elsewhere):  # noqa: F811
    url = f"{bucket}/runs/mine"
    stopped = run_process(train_until_step_3, KeyboardInterrupt(), *train_words(place, url, **{"save-every": 4}))
    assert stopped.returncode == 130, stopped.stderr
    elsewhere()
    assert sorted(Run(url).drift().query("arm == 'block'")["step"].unique()) == [0, 1, 2]
    assert LOCK not in names(url)


def test_an_adapter_that_was_trained_from_a_url_names_it_and_has_its_path_there(place, models, bucket, elsewhere):  # noqa: F811
    url = f"{bucket}/runs/adapter"
    command("train", *train_words(place, url, method="lora", mode="watch", steps=2), "--record-path")
    elsewhere()
    trained = CheckpointRef.parse(f"{url}/checkpoints/checkpoint-2")
    assert trained == CheckpointRef(model=f"{models}/aligned", adapter=f"{url}/checkpoints/checkpoint-2")
    assert Run(url).lineage.trajectories[0].checkpoints[0].model == f"{models}/aligned"
    path = RecordedPath(local_folder(url) / "checkpoints" / PATH)
    assert path.steps == 2
    assert set(path.end()) == set(path.names), "what the path holds comes when it is opened"
    written = [file for file in local_folder(url).rglob("*") if file.suffix in {".json", ".md", ".toml"}]
    assert {file.name for file in written} >= {"README.md", "adapter_config.json"}
    assert [file.name for file in written if str(cache_folder()) in file.read_text("utf-8")] == []
    assert place_elsewhere(str(local_folder(url) / "checkpoints" / "checkpoint-2")) == trained.adapter
    assert place_elsewhere(str(place)) == str(place)


def test_a_training_that_is_refused_leaves_nothing_there(place, models, bucket):
    url = f"{bucket}/runs/mine"
    refusal = run_process(gravity_probe, "train", *train_words(place, url, mode="blok"))
    assert "did you mean 'block'" in refusal.stderr
    assert not names(url)
    assert "already there" not in run_process(gravity_probe, "train", *train_words(place, url, mode="blok")).stderr
