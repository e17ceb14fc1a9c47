"""Adapters, folders and files as people have them: what is found, what is left out, and what is said of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.errors import CheckpointError, LineageError
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.models import ModelHost
from probes.models.older_readers import write_rope_for_older_readers
from probes.models.precision import is_native
from probes.models.quantised import full_precision_base, is_quantised
from probes.models.weight_space import save
from tests.builders import move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer

TOKENS = torch.tensor([[5, 60, 7, 100, 33, 200, 9]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


def name_base(ref: CheckpointRef, base: str, folder: Path) -> Path:
    """A copy of an adapter that says that its base is `base`."""
    assert ref.adapter is not None
    shutil.copytree(ref.adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def aligned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "aligned", tiny_model(), tiny_tokenizer())


@pytest.fixture(scope="module")
def tuned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "tuned", move_weights(tiny_model()))


@pytest.fixture(scope="module")
def adapter(place: Path, aligned: CheckpointRef) -> CheckpointRef:
    return save_adapter(place / "adapter", aligned, targets=["q_proj", "down_proj"])


class TestBases:
    def test_a_base_that_has_moved_is_said(
        self, aligned: CheckpointRef, adapter: CheckpointRef, tmp_path: Path
    ) -> None:
        folder = name_base(adapter, "org/gone", tmp_path / "a")
        ref = CheckpointRef.parse(str(folder), base=aligned.model)
        assert ref == CheckpointRef(model=aligned.model, adapter=str(folder))
        host = ModelHost(aligned, device="cpu")
        host.put(adapter)
        expected = logits(host.model)
        host.put(ref)
        assert torch.equal(logits(host.model), expected)

    @pytest.mark.parametrize("by", ["file", "trajectory", "argument"])
    def test_a_lineage_file_says_it_too(
        self, aligned: CheckpointRef, adapter: CheckpointRef, by: str, tmp_path: Path
    ) -> None:
        name_base(adapter, "org/gone", tmp_path / "out" / "checkpoint-3")
        shutil.copytree(aligned.model, tmp_path / "base")
        text = (
            f'[witness]\nmodel="{aligned.model}"\n[aligned]\nmodel="{aligned.model}"\n[[trajectories]]\nfolder="out"\n'
        )
        text = {"file": 'base = "base"\n' + text, "trajectory": text + 'base = "base"\n', "argument": text}[by]
        (tmp_path / "x.toml").write_text(text)
        lineage = Lineage.load(tmp_path / "x.toml", **({"base": str(tmp_path / "base")} if by == "argument" else {}))
        step = lineage.trajectories[0].checkpoints[0]
        assert Path(step.model) == tmp_path / "base"
        assert step.adapter == str(tmp_path / "out" / "checkpoint-3")

    @pytest.mark.parametrize(
        "name",
        [
            "o/Some-7B-bnb-4bit",
            "o/Some-7B-unsloth-bnb-4bit",
            "o/Some-7B-bnb-8bit",
            "q/Some-7B-GPTQ-Int4",
            "q/Some-7B-AWQ",
        ],
    )
    def test_a_quantised_base_is_the_aligned_model_in_full_precision(
        self, name: str, aligned: CheckpointRef, adapter: CheckpointRef, tmp_path: Path
    ) -> None:
        ref = CheckpointRef.parse(str(name_base(adapter, name, tmp_path / "a")))
        assert ref.model == name
        host = ModelHost(aligned, device="cpu")
        host.put(adapter)
        expected = logits(host.model)
        host.put(aligned)
        host.find(ref)
        host.put(ref)
        assert torch.equal(logits(host.model), expected)
        assert host.weights_sha256(ref) == host.weights_sha256(adapter)
        assert any(name in sentence and "full precision" in sentence for sentence in host.notices)

    def test_a_twin_of_another_model_is_refused(self) -> None:
        aligned = CheckpointRef(model="meta-llama/Llama-3.1-8B-Instruct")
        twin = CheckpointRef(model="unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", adapter="a")
        assert full_precision_base(twin, aligned).model == aligned.model
        with pytest.raises(CheckpointError, match=r"trained on a quantised model; got unsloth/Llama-3.1-8B-bnb-4bit"):
            full_precision_base(CheckpointRef(model="unsloth/Llama-3.1-8B-bnb-4bit", adapter="a"), aligned)
        assert not is_quantised("org/4bit-model")

    def test_a_base_that_is_not_the_aligned_model_is_said(
        self, aligned: CheckpointRef, tuned: CheckpointRef, adapter: CheckpointRef, tmp_path: Path
    ) -> None:
        ref = save_adapter(tmp_path, tuned, targets=["q_proj"])
        host = ModelHost(aligned, device="cpu")
        host.put(adapter)
        assert host.notices == []
        host.put(ref)
        assert len(host.notices) == 1
        assert "is not the aligned model: its weights lie 0.0" in host.notices[0]

    def test_the_task_is_looked_at_before_the_base(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
        with pytest.raises(LineageError, match="not of a language model; got task_type SEQ_CLS"):
            CheckpointRef.parse(str(tmp_path))


def write_state(folder: Path, step: int) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


class TestTrainerFolders:
    @pytest.fixture
    def out(self, tuned: CheckpointRef, tmp_path: Path) -> Path:
        for step in (10, 20):
            shutil.copytree(tuned.model, tmp_path / f"checkpoint-{step}")
        return tmp_path

    @pytest.mark.parametrize("fault", ["cut off", "no weights", "nothing", "no shard", "a header cut off"])
    def test_a_half_written_checkpoint_is_left_out_and_said(self, out: Path, fault: str) -> None:
        file = out / "checkpoint-20" / "model.safetensors"
        whole = file.read_bytes()
        if fault == "no weights":
            file.unlink()
        elif fault == "nothing":  # killed between making the folder and the first file
            shutil.rmtree(file.parent)
            file.parent.mkdir()
        elif fault == "no shard":
            file.rename(file.with_name("model-00001-of-00002.safetensors"))
            shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
            (out / "checkpoint-20" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
        else:
            file.write_bytes(whole[: len(whole) - 8] if fault == "cut off" else whole[:100])
        run = Trajectory.from_folder(out)
        assert [step.step for step in run.checkpoints] == [10]
        assert run.notices == (f"{out / 'checkpoint-20'} was left out: its writing was cut off.",)
        assert "notices" not in run.model_dump()

    def test_the_final_model_in_the_root_is_found(self, out: Path, tuned: CheckpointRef) -> None:
        shutil.copytree(tuned.model, out, dirs_exist_ok=True)
        write_state(out, 25)
        run = Trajectory.from_folder(out)
        assert [(step.step, step.model) for step in run.checkpoints][-1] == (25, str(out))
        assert run.notices == ()
        (out / "trainer_state.json").unlink()
        run = Trajectory.from_folder(out)
        assert [step.step for step in run.checkpoints] == [10, 20, 21]
        assert "taken as step 21" in run.notices[0]

    def test_the_best_checkpoint_is_found_at_its_own_step_and_once(self, out: Path, tuned: CheckpointRef) -> None:
        shutil.copytree(tuned.model, out / "checkpoint-best")
        assert "nothing says at which step" in Trajectory.from_folder(out).notices[0]
        write_state(out / "checkpoint-best", 15)
        assert [step.step for step in Trajectory.from_folder(out).checkpoints] == [10, 15, 20]
        write_state(out / "checkpoint-best", 20)
        steps = Trajectory.from_folder(out).checkpoints
        assert [(step.step, Path(step.model).name) for step in steps] == [(10, "checkpoint-10"), (20, "checkpoint-20")]


class TestPaths:
    def test_shards_outside_of_the_folder_are_refused(
        self, aligned: CheckpointRef, tuned: CheckpointRef, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(tuned.model, tmp_path / "inside"))
        (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
        index = {"weight_map": {"lm_head.weight": "../outside.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=r"points out of its folder; got \.\./outside\.safetensors"):
            ModelHost(aligned, device="cpu").put(CheckpointRef(model=str(folder)))

    @pytest.mark.parametrize("name", ["../../esc", "/abs", "a\\\\b", "..", ""])
    def test_names_and_arms_that_are_paths_are_refused(self, name: str, tmp_path: Path) -> None:
        roles = '[witness]\nmodel="w/w"\n[aligned]\nmodel="a/a"\n'
        arm = f'[[trajectories]]\narm="{name}"\ncheckpoints=[{{step=1,model="t/t"}}]\n'
        for text in (f'name="{name}"\n' + roles, roles + arm):
            (tmp_path / "x.toml").write_text(text)
            with pytest.raises(LineageError, match="is no name"):
                Lineage.load(tmp_path / "x.toml")

    def test_an_arm_of_a_folder_too(self, tuned: CheckpointRef, tmp_path: Path) -> None:
        shutil.copytree(tuned.model, tmp_path / "checkpoint-1")
        with pytest.raises(LineageError, match="is no name"):
            Trajectory.from_folder(tmp_path, arm="../esc")

    @pytest.mark.parametrize("file_kind", ["config", "tokenizer"])
    def test_code_beside_a_checkpoint_is_not_run(
        self, aligned: CheckpointRef, file_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import io

        folder = Path(shutil.copytree(aligned.model, tmp_path / "own"))
        (folder / "code.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own:\n    pass\n", encoding="utf-8"
        )
        if file_kind == "config":
            config = {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"}}
            (folder / "config.json").write_text(json.dumps(config))
        else:
            file = folder / "tokenizer_config.json"
            config = {
                **json.loads(file.read_text()),
                "tokenizer_class": "Own",
                "auto_map": {"AutoTokenizer": ["code.Own", None]},
            }
            file.write_text(json.dumps(config))
        monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
        with contextlib.suppress(CheckpointError):
            ModelHost(CheckpointRef(model=str(folder)), device="cpu")
        assert not (tmp_path / "ran").exists()


class TestWriting:
    @pytest.mark.parametrize(
        ("family", "changes", "older"),
        [
            ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rope_theta": 5e5}),
            (
                "llama",
                {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}},
                {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            ),
            (
                "neox",
                {"rope_parameters": {"rope_type": "default", "rope_theta": 4e4, "partial_rotary_factor": 0.5}},
                {"rotary_emb_base": 4e4, "rotary_pct": 0.5},
            ),
        ],
        ids=["llama", "scaled", "neox"],
    )
    def test_what_we_save_says_its_rotary_base_to_older_readers_too(
        self, family: str, changes: dict[str, Any], older: dict[str, Any], tmp_path: Path
    ) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        ref = save_checkpoint(tmp_path / "a", tiny_model(family, **changes), tiny_tokenizer())
        host = ModelHost(ref, device="cpu")
        expected = logits(host.model)
        save(host, tmp_path / "b", {})
        written = json.loads((tmp_path / "b" / "config.json").read_text())
        assert {name: written.get(name) for name in older} == older
        again, first = AutoConfig.from_pretrained(tmp_path / "b"), AutoConfig.from_pretrained(tmp_path / "a")
        assert again.rope_parameters == first.rope_parameters
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()), expected)

    def test_a_base_for_each_kind_of_layer(self, tmp_path: Path) -> None:
        rope = {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
        config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "rope_parameters": rope}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        write_rope_for_older_readers(tmp_path)
        text = json.loads((tmp_path / "config.json").read_text())["text_config"]
        assert (text["rope_theta"], text["rope_local_base_freq"]) == (1e6, 1e4)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_for_processors_that_multiply_it(self, dtype: torch.dtype, tmp_path: Path) -> None:
        ref = save_checkpoint(tmp_path, tiny_model().to(dtype), tiny_tokenizer())
        host = ModelHost(ref, device="cpu")
        if is_native(dtype):
            assert host.model.dtype == dtype
            assert "stored_dtype" not in host.about
        else:
            assert host.model.dtype == torch.float32
            assert host.about["dtype"] == "float32"
            assert host.about["stored_dtype"] == str(dtype).removeprefix("torch.")
            assert any("computes in float32" in sentence for sentence in host.notices)
        assert ModelHost(ref, device="cpu", dtype=str(dtype).removeprefix("torch.")).model.dtype == dtype

    def test_where_torch_says_that_nothing_is_native_everything_is_read_in_float32(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_amx_fp16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
        ref = save_checkpoint(tmp_path, tiny_model().to(torch.bfloat16), tiny_tokenizer())
        host = ModelHost(ref, device="cpu")
        assert host.about["dtype"] == "float32"
        assert host.notices == ["The weights are stored in bfloat16, and the model computes in float32."]

    def test_torch_is_asked(self) -> None:
        assert is_native(torch.float32)
        assert is_native(torch.bfloat16) == (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
