"""The run folder: nothing half-written, nothing measured twice, and a clear refusal of what is damaged."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from probes.errors import RunFolderError
from probes.store import ActivationFile, ActivationWriter, RunFolder, activations_stage, find_runs, fingerprint
from probes.store.atomic import write_tensors


def activations(path: Path, seed: int = 0, dtype: str = "float32", key: str = "k") -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(3, 5, 4)).astype(np.float32)
    writer = ActivationWriter(path, (2, 5, 4), dtype=dtype, about={"key": key})
    for place in (3, 0, 4, 1, 2):
        for layer in (-1, 0, 1):
            writer.write(layer, [place], rows[layer + 1, [place]])
    writer.close()
    return rows


def measure_activations(run: RunFolder, checkpoint: str, key: str) -> np.ndarray:
    with run.stage(activations_stage(checkpoint), key):
        rows = activations(run.activations_path(checkpoint), key=key)
        run.record(run.activations_path(checkpoint))
    return rows


def test_activations_written_row_by_row_are_an_ordinary_safetensors_file(tmp_path):
    rows = activations(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("embed"), rows[0])
        assert np.array_equal(file.get_tensor("resid_post"), rows[1:])
        assert file.metadata() == {"key": "k"}


def test_one_layer_is_read_at_a_time_as_float32(tmp_path):
    rows = activations(tmp_path / "a.safetensors", dtype="float16")
    file = ActivationFile(tmp_path / "a.safetensors")
    assert file.shape == (2, 5, 4)
    assert file.layer(1).dtype == np.float32
    assert np.array_equal(file.layer(1), rows[2].astype(np.float16).astype(np.float32))
    assert np.array_equal(file.layer(-1), rows[0].astype(np.float16).astype(np.float32))


def test_a_writer_that_gives_up_leaves_nothing(tmp_path):
    writer = ActivationWriter(tmp_path / "a.safetensors", (1, 2, 2), dtype="float32", about={})
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    activations(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunFolderError, match="truncated or damaged"):
        ActivationFile(path)


def test_a_stage_is_done_only_when_its_body_ended_well(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        with pytest.raises(ZeroDivisionError), run.stage("drift", "a"):
            raise ZeroDivisionError
        assert not run.holds("drift", "a")
        with run.stage("drift", "a"):
            pass
    again = RunFolder(tmp_path / "run")
    assert again.holds("drift", "a")
    assert not again.holds("drift", "b")


def test_a_stage_that_is_taken_back_is_so_for_readers_too(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        with run.stage("drift", "a"):
            run.write_json("drift", {})
        run.forget("drift")
        assert not (tmp_path / "run" / "drift.json").exists()
        assert not RunFolder(tmp_path / "run").manifest.stages


def test_tables_come_back_as_they_were(tmp_path):
    frame = pd.DataFrame({"arm": ["a", "b"], "value": [1.5, np.nan]})
    with RunFolder.writing(tmp_path / "run") as run:
        run.write_table("maps/plane", frame)
        pd.testing.assert_frame_equal(run.read_table("maps/plane"), frame)
    assert run.read_table("maps/plane", columns=["arm"], filters=[("arm", "==", "b")])["arm"].tolist() == ["b"]


def test_equal_tensors_have_equal_bytes(tmp_path):
    """The library itself orders a description anew at every call."""
    about = {f"key {number}": str(number) for number in range(20)}
    arrays = {"b": np.eye(3, dtype=np.float32), "a": np.arange(4.0)}
    for name in ("one", "other"):
        write_tensors(tmp_path / name, arrays, dict(reversed(about.items())) if name == "one" else about)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    with safe_open(tmp_path / "one", framework="numpy") as file:
        assert file.metadata() == about
        assert all(np.array_equal(file.get_tensor(name), value) for name, value in arrays.items())


def test_two_writers_on_one_run_are_refused(tmp_path):
    with (
        RunFolder.writing(tmp_path / "run"),
        pytest.raises(RunFolderError, match="Another process"),
        RunFolder.writing(tmp_path / "run"),
    ):
        pass


def test_a_folder_of_something_else_is_not_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty"), RunFolder.writing(tmp_path):
        pass
    assert [child.name for child in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "no whole JSON file"),
        ("[]", "is no manifest of a run"),
        ('{"format_version": 99}', "Update gravity-probe"),
        ('{"format_version": 0}', "Make the run again"),
        ('{"format_version": 2, "name": "x"}', "created"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, text, sentence):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=sentence):
        RunFolder(tmp_path)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(RunFolderError, match="gravity-probe demo"):
        RunFolder(tmp_path)


def test_measured_activations_are_taken_over_from_a_neighbour_and_outlive_it(tmp_path):
    with RunFolder.writing(tmp_path / "first") as first:
        rows = measure_activations(first, "aligned", "same")
    with RunFolder.writing(tmp_path / "second") as second:
        assert not second.adopt_activations("other", "unknown")
        assert second.adopt_activations("other", "same")
        first.activations_path("aligned").unlink()
        assert np.array_equal(second.activation_file("other").layer(0), rows[1])


def test_a_damaged_neighbour_is_measured_again(tmp_path):
    with RunFolder.writing(tmp_path / "first") as first:
        measure_activations(first, "aligned", "same")
        first.activations_path("aligned").write_bytes(b"short")
    with RunFolder.writing(tmp_path / "second") as second:
        assert not second.adopt_activations("aligned", "same")


def test_a_killed_writer_leaves_a_run_that_goes_on(tmp_path):
    code = (
        "import sys, time; from probes.store import *\n"
        "with RunFolder.writing(sys.argv[1]) as run:\n"
        "    ActivationWriter(run.activations_path('a'), (1, 1, 4), dtype='float32', about={})\n"
        "    print('half', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    assert any((tmp_path / "run" / "activations").iterdir())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with RunFolder.writing(tmp_path / "run") as run:
        assert list((tmp_path / "run" / "activations").iterdir()) == []
        assert run.manifest.status == "running"


def test_fingerprints_tell_values_apart_and_not_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


def test_runs_are_found_newest_first(tmp_path):
    for name in ("old", "new"):
        with RunFolder.writing(tmp_path / name):
            pass
        timestamp = 2_000_000_000 if name == "new" else 1_000_000_000
        os.utime(tmp_path / name / "run.json", (timestamp, timestamp))
    assert [path.name for path in find_runs(tmp_path)] == ["new", "old"]
    assert find_runs(tmp_path / "old") == [tmp_path / "old"]
    assert find_runs(tmp_path / "none") == []


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        run.write_json("note", {"a": 1})
        with pytest.raises(TypeError):
            run.write_json("note", {"a": object()})
        assert run.read_json("note") == {"a": 1}
        assert json.loads((run.path / "note.json").read_text()) == {"a": 1}


def test_a_stage_whose_file_is_gone_cut_or_changed_is_not_done(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    with RunFolder.writing(tmp_path / "run") as run:
        with run.stage("drift", "inputs"):
            run.write_table("drift", frame)
        assert run.holds("drift", "inputs")
        file = tmp_path / "run" / "drift.parquet"
        whole = file.read_bytes()
        for content in (None, whole[:-7], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)
            assert not run.holds("drift", "inputs")
            with pytest.raises(RunFolderError, match=r"drift\.parquet"):
                run.read_table("drift")
        file.write_bytes(whole)
        assert run.holds("drift", "inputs")
        assert run.read_table("drift").equals(frame)


def test_a_file_that_stages_share_counts_as_it_was_written_last(tmp_path):
    with RunFolder.writing(tmp_path / "run") as run:
        for number, name in enumerate(("effects/a", "effects/b")):
            with run.stage(name, "inputs"):
                run.write_table("effects", pd.DataFrame({"row": range(number + 1)}))
        assert run.holds("effects/a", "inputs")
        assert run.holds("effects/b", "inputs")
    (tmp_path / "run" / "effects.parquet").unlink()
    again = RunFolder(tmp_path / "run")
    assert not again.holds("effects/a", "inputs")
    assert not again.holds("effects/b", "inputs")


def test_a_run_killed_on_its_very_first_write_is_gone_on_with(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".writing-run.json").write_text("{")
    with RunFolder.writing(tmp_path / "run") as run:
        assert run.manifest.status == "running"
    assert [child.name for child in (tmp_path / "run").iterdir() if child.name.startswith(".writing")] == []
