"""Checkpoints behind a URL: the same weights as in their folder, downloaded once, and nothing but what is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import CheckpointError, LineageError
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.models.identity import weights_sha256
from probes.models.source import fetch_description, folder_of
from probes.store.remote import download_checkpoint
from probes.store.remote.bucket import Bucket
from tests.builders import move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer
from tests.store.test_remote import at_once, elsewhere  # noqa: F401


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("models")
    save_checkpoint(home / "aligned", tiny_model(), tiny_tokenizer())
    (home / "aligned" / "pytorch_model.bin").write_bytes(b"never to be fetched")
    (home / "aligned" / "optimizer.pt").write_bytes(b"never to be fetched")
    save_adapter(home / "adapter", CheckpointRef(model=str(home / "aligned")), targets=["q_proj"])
    for step in (2, 10):
        save_checkpoint(home / "out" / f"checkpoint-{step}", move_weights(tiny_model(), seed=step))
    return home


@pytest.fixture
def models(bucket, folders) -> str:
    download_checkpoint.cache_clear()
    files = {path.relative_to(folders).as_posix(): path for path in sorted(folders.rglob("*")) if path.is_file()}
    Bucket(f"{bucket}/models").put(files)
    return f"{bucket}/models"


def test_a_checkpoint_has_the_weights_of_its_folder_and_is_downloaded_once(models, folders, monkeypatch):
    ref = CheckpointRef.parse(f"{models}/aligned/")
    assert ref == CheckpointRef(model=f"{models}/aligned")
    assert [path.name for path in fetch_description(ref.model, None).glob("[!.]*")] == ["config.json"]
    assert weights_sha256(ref) == weights_sha256(CheckpointRef.parse(str(folders / "aligned")))
    folder = folder_of(ref.model, None, allow_pickle=False)
    assert not {"pytorch_model.bin", "optimizer.pt"} & {path.name for path in folder.iterdir()}

    download_checkpoint.cache_clear()
    monkeypatch.setattr(Bucket, "get", lambda *_: pytest.fail("it is here already"))
    assert folder_of(ref.model, None, allow_pickle=False) == folder
    monkeypatch.undo()


def test_what_has_changed_there_is_downloaded_again(models, folders):
    first = weights_sha256(CheckpointRef(model=f"{models}/aligned"))
    Bucket(f"{models}/aligned").put({"model.safetensors": folders / "out/checkpoint-2/model.safetensors"})
    download_checkpoint.cache_clear()
    assert weights_sha256(CheckpointRef(model=f"{models}/aligned")) != first


def test_what_has_gone_there_is_no_part_of_the_checkpoint_any_more(models, folders):
    bucket = Bucket(f"{models}/aligned")
    folder = folder_of(bucket.url, None, allow_pickle=False)
    bucket.put({"model-00001-of-00001.safetensors": folders / "out/checkpoint-2/model.safetensors"})
    bucket.delete(["model.safetensors"])
    download_checkpoint.cache_clear()
    assert folder_of(bucket.url, None, allow_pickle=False) == folder
    assert [path.name for path in folder.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]


def test_the_models_of_a_trainers_output_are_downloaded_once(models, monkeypatch):
    trajectory = Trajectory.from_folder(f"{models}/out")
    get, brought = Bucket.get, []
    monkeypatch.setattr(Bucket, "get", lambda self, name, to: (brought.append(name), get(self, name, to)))
    for checkpoint in trajectory.checkpoints:
        folder_of(checkpoint.model, None, allow_pickle=False)
    assert not brought


def test_without_the_store_what_is_here_is_used(models, monkeypatch):
    import s3fs

    folder = folder_of(f"{models}/aligned", None, allow_pickle=False)
    download_checkpoint.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert folder_of(f"{models}/aligned", None, allow_pickle=False) == folder


def test_an_adapter_and_a_trainers_output_keep_their_urls(models, folders):
    base = f"{models}/aligned"
    lineage = Lineage.of(base, None, [f"5={models}/adapter"], trajectories=[f"block={models}/out"], base=base)
    adapter, *steps = [ref for _, ref in lineage.checkpoints()][1:]
    assert (adapter.model, adapter.adapter) == (base, f"{models}/adapter")
    assert [(step.step, step.model) for step in steps] == [
        (2, f"{models}/out/checkpoint-2"),
        (10, f"{models}/out/checkpoint-10"),
    ]
    local = Lineage.of(
        str(folders / "aligned"),
        None,
        [f"5={folders / 'adapter'}"],
        trajectories=[f"block={folders / 'out'}"],
        base=str(folders / "aligned"),
    )
    hashes = [[weights_sha256(ref) for _, ref in history.checkpoints()] for history in (lineage, local)]
    assert hashes[0] == hashes[1]
    assert Lineage.opened(lineage.portable(folders).model_dump(), folders) == lineage


def test_urls_stand_in_lineage_files(models, tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        f'[aligned]\nmodel = "{models}/aligned"\n[[trajectories]]\narm = "baseline"\nfolder = "{models}/out"\n'
    )
    lineage = Lineage.load(file)
    assert lineage.aligned.model == f"{models}/aligned"
    assert [step.step for step in lineage.trajectories[0].checkpoints] == [2, 10]


def test_a_repository_of_the_hub_is_a_hub_reference():
    assert CheckpointRef.parse("hf://org/name") == CheckpointRef(model="org/name")
    assert CheckpointRef.parse("hf://org/name@v1") == CheckpointRef(model="org/name", revision="v1")


def test_where_there_is_no_checkpoint_it_is_said(models):
    with pytest.raises(CheckpointError, match=f"There is no checkpoint at {models}/nothing"):
        CheckpointRef.parse(f"{models}/nothing")
    with pytest.raises(LineageError, match="No checkpoint-N"):
        Trajectory.from_folder(f"{models}/aligned")
