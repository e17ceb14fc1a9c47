"""A packed run ships what pages need, says what it leaves out, and is not measured on; `status` finds every damage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from probes.cli import app
from probes.errors import RunFolderError, UsageError
from probes.run import Run
from probes.tasks.measure import judge
from probes.tasks.pack import LEFT_OUT, Packing, pack
from probes.tasks.status import status
from tests.measured import measured_run

TUNED = "baseline-s0-000010"
SMOLLM2 = Path(__file__).parents[1] / "data" / "smollm2-run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return measured_run(tmp_path_factory.mktemp("packed"))


def test_a_packed_run_reads_like_the_whole_one(run, tmp_path):
    packed = pack(run.path, tmp_path / "small")
    assert packed.drift().equals(run.drift())
    assert packed.directions == run.directions
    assert (packed.activations(TUNED, 1) == run.activations(TUNED, 1)).all()
    assert not (packed.path / "checkpoints").exists()
    assert status(packed, verify=True)["whole"]


def test_a_packed_run_names_no_folder_of_the_machine(run, tmp_path):
    packed = pack(run.path, tmp_path / "small")
    home = str(run.path.parents[1]).encode()
    assert home in (run.path / "run.json").read_bytes()
    assert home in (run.path / "directions" / "reversion.safetensors").read_bytes()
    assert not any(home in path.read_bytes() for path in packed.path.rglob("*") if path.is_file())
    assert status(packed, verify=True)["whole"]
    assert packed.manifest.lineage["witness"]["model"] == "./witness"
    assert packed.manifest.lineage["trajectories"][0]["checkpoints"][0]["model"] == "./checkpoint-10"


def test_activations_are_halved_when_asked(run, tmp_path):
    packed = pack(run.path, tmp_path / "small", packing=Packing(half=True))
    read, before = packed.activations(TUNED, 1), run.activations(TUNED, 1)
    assert (read == before.astype(np.float16)).all()
    assert (read != before).any()
    assert packed.manifest.config["store_dtype"] == "float16"
    assert status(packed, verify=True)["whole"]


def test_answers_stay_here_when_asked(tmp_path):
    whole = Run(SMOLLM2)
    packed = pack(SMOLLM2, tmp_path / "small", packing=Packing(answers=False))
    texts = set(whole.table("completions")["completion"])
    shipped = "".join(path.read_text(errors="replace") for path in packed.path.rglob("*.json"))
    for path in packed.path.rglob("*.parquet"):
        words = pd.read_parquet(path).select_dtypes(exclude="number")
        assert not any(texts & set(column.map(str)) for _, column in words.items())
    assert not any(text in shipped for text in texts if len(text) > 20)
    assert set(packed.table("completions")["completion"]) == {LEFT_OUT}
    labels = ["checkpoint", "prompt", "verdict", "reason", "refusal_score"]
    assert packed.table("completions")[labels].equals(whole.table("completions")[labels])
    assert packed.table("behaviour").equals(whole.table("behaviour"))
    assert status(packed, verify=True)["whole"]


def test_with_half_precision_tables_are_smaller_and_only_projections_are_rounded(tmp_path):
    whole = Run(SMOLLM2)
    packed = pack(SMOLLM2, tmp_path / "small", packing=Packing(half=True))
    for name in ("drift", "spectra", "completions", "projections"):
        pd.testing.assert_frame_equal(packed.table(name), whole.table(name))
    rounded, exact = (run.table("direction_projections")["projection"] for run in (packed, whole))
    np.testing.assert_allclose(rounded, exact, rtol=1e-3, atol=1e-3)


def test_what_is_left_out_is_named_and_is_no_damage(run, tmp_path):
    packed = pack(run.path, tmp_path / "small", keep=[])
    name = f"activations/{TUNED}.safetensors"
    assert packed.manifest.omitted[name] == run.manifest.stages[f"activations/{TUNED}"].outputs[name]
    assert [member.id for member in packed.measured] == ["aligned", "witness"]
    with pytest.raises(RunFolderError, match="left out of this packed run"):
        packed.activations(TUNED, 0)
    assert status(packed, verify=True)["whole"]


def test_a_packed_run_is_not_measured_on(run, tmp_path):
    packed = pack(run.path, tmp_path / "small", keep=[])
    with pytest.raises(RunFolderError, match="is a packed run"):
        judge(packed.path, shams=19)


def test_an_unknown_checkpoint_and_a_folder_that_is_there_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="no such checkpoint"):
        pack(run.path, tmp_path / "small", keep=["baseline-s0-000011"])
    assert not (tmp_path / "small").exists()
    with pytest.raises(UsageError, match="already there"):
        pack(run.path, tmp_path)


def test_a_changed_file_is_not_shipped(run, tmp_path):
    changed = shutil.copytree(run.path, tmp_path / "changed")
    table = changed / "drift.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"?")
    with pytest.raises(RunFolderError, match=r"drift\.parquet has changed"):
        pack(changed, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_every_file_of_every_stage_that_is_gone_cut_or_changed_is_found(run, tmp_path):
    """Whatever a stage wrote: deleted, cut off, or one bit turned with the size kept."""
    names = sorted({name for stage in run.manifest.stages.values() for name in stage.outputs})
    assert len(names) >= 10
    for number, name in enumerate(names):
        copy = shutil.copytree(run.path, tmp_path / str(number))
        file = copy / name
        whole = file.read_bytes()
        for content in (None, whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1])):
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_bytes(content)
            about = status(Run(copy), verify=True)
            assert not about["whole"], name
            assert any(name in (stage["fault"] or "") for stage in about["stages"])
        shutil.rmtree(copy)


def test_the_command_says_it_and_exits_with_1(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    good = CliRunner().invoke(app, ["status", str(copy), "--verify"])
    assert good.exit_code == 0
    assert "all as they were written" in good.stdout
    (copy / "noise.parquet").unlink()
    bad = CliRunner().invoke(app, ["status", str(copy), "--json"])
    assert bad.exit_code == 1
    faults = [stage for stage in json.loads(bad.stdout)["stages"] if stage["fault"]]
    assert [stage["stage"] for stage in faults] == ["noise"]


def test_the_command_packs(run, tmp_path):
    done = CliRunner().invoke(app, ["pack", str(run.path), "--out", str(tmp_path / "small"), "--keep", TUNED, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["omitted"] == 0
    assert Run(tmp_path / "small").activations(TUNED, 0).shape == run.activations(TUNED, 0).shape


@pytest.mark.parametrize("name", ["demo-run", "smollm2-run"])
def test_the_shipped_runs_name_no_place_of_the_machine_that_made_them(name):
    def texts(value):
        if isinstance(value, str):
            return [value]
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return [text for part in parts for text in texts(part)]

    folder = SMOLLM2.parent / name
    files = [json.loads(path.read_text("utf-8")) for path in folder.rglob("*.json")]
    assert len(files) > 3
    assert [text for text in texts(files) if text.startswith("/")] == []
