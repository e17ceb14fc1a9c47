"""Models that are spread over devices, or held in 4 or 8 bits: what is read is what one whole model reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.activations import collect
from probes.behaviour.generate import generate
from probes.errors import CheckpointError, UsageError
from probes.guard.guarded_direction import GuardError
from probes.guard.model_in_training import LiveModel
from probes.lineage import CheckpointRef, Lineage
from probes.models import ModelHost
from probes.models.adapter import Change
from probes.models.hooks import ablate, add
from probes.models.kinship import WeightSample
from probes.models.placement import Placement
from probes.models.weight_space import _norms_between_files, aligned_norms, drift_norms, noised
from probes.prompts import PromptSet
from probes.store.settings import Settings
from probes.tasks.measure import measure
from tests.builders import DEPTH, move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer

Refs = dict[str, CheckpointRef]
NAME = "model.layers.0.mlp.up_proj.weight"
ENDS = ("model.embed_tokens.weight", "lm_head.weight")
WORDS = tuple("abcdefghijklmnop")
PROMPTS = [[5, 6, 7, 8, 9, *range(20, 20 + n)] for n in (1, 4, 2, 7, 3)]
HAS_BITS = importlib.util.find_spec("bitsandbytes") is not None
SIZE = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes packs 64 numbers together
needs_bits = pytest.mark.skipif(not HAS_BITS, reason="needs bitsandbytes, which the extra `quantized` installs")
needs_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
# Of the blocks of the tiny model, the first in memory and the others on disk: what accelerate dispatches on a CPU too.
ON_DISK: dict[str, int | str] = {
    **dict.fromkeys(("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.norm", "lm_head"), "cpu"),
    **{f"model.layers.{layer}": "disk" for layer in range(1, DEPTH)},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned model, a full fine-tune of it, and an adapter on it."""
    home = tmp_path_factory.mktemp("placed")
    aligned = save_checkpoint(home / "aligned", tiny_model(**SIZE), tiny_tokenizer())
    save_checkpoint(home / "tuned", move_weights(tiny_model(**SIZE), seed=2), tiny_tokenizer())
    save_checkpoint(home / "last", move_weights(tiny_model(**SIZE), seed=3), tiny_tokenizer())
    save_adapter(home / "adapter", aligned, targets=["q_proj", "up_proj"])
    return home


@pytest.fixture(scope="module")
def refs(home: Path) -> Refs:
    aligned = str(home / "aligned")
    return {
        "aligned": CheckpointRef(model=aligned),
        "tuned": CheckpointRef(model=str(home / "tuned")),
        "adapter": CheckpointRef(model=aligned, adapter=str(home / "adapter")),
    }


@pytest.fixture(scope="module")
def whole(refs: Refs) -> ModelHost:
    return ModelHost(refs["aligned"], device="cpu")


def spread(refs: Refs) -> ModelHost:
    return ModelHost(refs["aligned"], device=Placement(device_map=ON_DISK))


def load(ref: CheckpointRef, bits: str) -> Any:
    """The checkpoint in fewer bits, by transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = {"4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "8bit": {"load_in_8bit": True}}[bits]
    if bits == "4bit":
        options["bnb_4bit_compute_dtype"] = torch.float32
    model = AutoModelForCausalLM.from_pretrained(ref.model, quantization_config=BitsAndBytesConfig(**options))
    return PeftModel.from_pretrained(model, ref.adapter).eval() if ref.adapter else model.eval()


def read_alone(model: Any) -> np.ndarray:
    """The stream behind the last but one block, at each prompt's last token, prompt by prompt."""
    with torch.inference_mode():
        streams = [model(torch.tensor([ids]), output_hidden_states=True).hidden_states[DEPTH - 1] for ids in PROMPTS]
    return np.stack([stream[0, -1].numpy() for stream in streams])


class TestSpreadOverDevices:
    @pytest.mark.parametrize("name", ["aligned", "tuned"])
    def test_activations_and_answers_are_those_of_one_device(self, name: str, refs: Refs, whole: ModelHost) -> None:
        host = spread(refs)
        assert {parameter.device.type for parameter in host.model.parameters()} == {"cpu", "meta"}
        for model in (host, whole):
            model.put(refs[name])
        for mine, its in zip(collect(host, PROMPTS), collect(whole, PROMPTS), strict=True):
            np.testing.assert_array_equal(mine, its)
        answers = [generate(model, PROMPTS, max_new_tokens=8) for model in (host, whole)]
        assert answers[0] == answers[1]
        assert any(answers[0])
        assert host.kinship == whole.kinship

    def test_what_a_hook_changes_is_changed_on_every_device(self, refs: Refs, whole: ModelHost) -> None:
        vectors, layers = np.ones((2, whole.d_model)), [0, DEPTH - 1]
        rows = []
        for model in (spread(refs), whole):
            model.put(refs["aligned"])
            with add(model, layers, vectors), ablate(model, vectors[0]):
                rows.append(collect(model, PROMPTS)[0])
        np.testing.assert_array_equal(*rows)

    def test_the_manifest_says_where_the_modules_are(self, refs: Refs) -> None:
        host = spread(refs)
        assert host.about["devices"] == {"cpu": 5, "disk": 2}
        assert any("on disk" in notice and "sham" in notice for notice in host.notices)

    def test_norms_are_those_of_the_whole_model(self, refs: Refs, whole: ModelHost) -> None:
        assert drift_norms(spread(refs), refs["tuned"]) == drift_norms(whole, refs["tuned"])

    def test_a_change_of_a_weight_that_the_files_name_otherwise_is_not_lost(self, refs: Refs) -> None:
        change = Change("lm_head.other", torch.ones(2, 2), None, None)
        with pytest.raises(CheckpointError, match="tensors of other names"):
            _norms_between_files(spread(refs), refs["tuned"], {change.name: [change]})

    def test_weights_on_disk_are_never_written_over(self, refs: Refs) -> None:
        host = spread(refs)
        before = host.weights_sha256(refs["aligned"])
        with pytest.raises(CheckpointError, match="cannot be read or written in place"), noised(host, {"a": 1.0}, 0):
            pass
        assert ModelHost(refs["aligned"], device="cpu").weights_sha256(refs["aligned"]) == before

    def test_an_adapter_on_weights_on_disk_is_refused_and_the_host_stays_usable(self, refs: Refs) -> None:
        host = spread(refs)
        with pytest.raises(CheckpointError, match="held in host memory or on disk"):
            host.put(refs["adapter"])
        host.put(refs["aligned"])
        assert len(generate(host, PROMPTS, max_new_tokens=2)) == len(PROMPTS)

    def test_a_map_of_one_device_is_a_plain_model(self, refs: Refs) -> None:
        host = ModelHost(refs["aligned"], device=Placement(device_map={"": "cpu"}))
        assert host.is_whole
        assert "devices" not in host.about
        host.put(refs["adapter"])
        assert drift_norms(host, refs["adapter"])

    @pytest.mark.parametrize(
        ("placement", "message"),
        [
            (Placement(device_map="everywhere"), "no such device map; got everywhere; expected auto, balanced"),
            (Placement("cpu", device_map="auto"), "not both"),
            (Placement(device_map={"": "cuda:63"}), "no device cuda:63 here"),
        ],
    )
    def test_a_map_that_cannot_be_is_refused(self, placement: Placement, message: str, refs: Refs) -> None:
        with pytest.raises(UsageError, match=message):
            ModelHost(refs["aligned"], device=placement)

    @needs_gpus
    def test_two_accelerators(self, refs: Refs, whole: ModelHost) -> None:
        places = dict.fromkeys(ON_DISK, 0) | {f"model.layers.{DEPTH - 1}": 1, "model.norm": 1, "lm_head": 1}
        host = ModelHost(refs["aligned"], device=Placement(device_map=places))
        for name in ("aligned", "tuned", "adapter"):
            for model in (host, whole):
                model.put(refs[name])
            np.testing.assert_allclose(collect(host, PROMPTS)[0], collect(whole, PROMPTS)[0], rtol=1e-3, atol=1e-4)
            assert generate(host, PROMPTS, max_new_tokens=8) == generate(whole, PROMPTS, max_new_tokens=8)


@needs_bits
class TestInFewerBits:
    @pytest.mark.parametrize(("bits", "tolerance"), [("4bit", 1e-5), ("8bit", 0.1)])
    def test_reads_what_transformers_and_peft_read(self, bits: Any, tolerance: float, refs: Refs) -> None:
        """In 8 bits, what else is in a batch decides which columns are multiplied in half precision."""
        host = ModelHost(refs["aligned"], device=Placement("cpu", quantize=bits))
        for name in ("aligned", "tuned", "adapter", "aligned"):
            host.put(refs[name])
            mine, its = collect(host, PROMPTS)[0][DEPTH - 2], read_alone(load(refs[name], bits))
            assert np.linalg.norm(mine - its) <= tolerance * np.linalg.norm(its), name
        assert host.about["quantized"] == bits
        assert any("the sham tests are not run" in notice for notice in host.notices)

    def test_weight_drift_is_that_of_the_stored_weights(self, refs: Refs, whole: ModelHost) -> None:
        host = ModelHost(refs["aligned"], device=Placement("cpu", quantize="4bit"))
        for name in ("tuned", "adapter"):
            mine, its = (drift_norms(model, refs[name]) for model in (host, whole))
            assert mine == its
            assert mine.ranks == its.ranks
        assert aligned_norms(host, {NAME}) == aligned_norms(whole, {NAME})

    def test_codes_in_a_quantised_checkpoints_files_are_taken_for_no_weights(self, refs: Refs, tmp_path: Path) -> None:
        packed = {name: CheckpointRef(model=str(tmp_path / name)) for name in ("aligned", "tuned")}
        for name, ref in packed.items():
            load(refs[name], "4bit").save_pretrained(ref.model)
            tiny_tokenizer().save_pretrained(ref.model)
        host = ModelHost(packed["aligned"], device="cpu")
        with pytest.raises(CheckpointError, match="quantised in their files"):
            drift_norms(host, packed["tuned"])
        assert aligned_norms(host, {NAME, "lm_head.weight"}).keys() == {"lm_head.weight"}
        host.put(packed["tuned"])
        whole = [WeightSample.of(ModelHost(ref, device="cpu").model) for ref in (refs["aligned"], refs["tuned"])]
        ends = [{name: sample.matrices[name] for name in ENDS} for sample in whole]
        assert host.kinship == WeightSample(ends[0]).kinship(WeightSample(ends[1])), "of what is whole in the files"
        with pytest.raises(CheckpointError, match="weights in fewer bits"):
            host.parameters()

    def test_no_noise_is_laid_over_packed_weights(self, refs: Refs) -> None:
        host = ModelHost(refs["aligned"], device=Placement("cpu", quantize="8bit"))
        with pytest.raises(CheckpointError, match="weights in 8bit"), noised(host, {NAME: 1.0}, 0):
            pass

    def test_the_guard_refuses_4_bits_on_a_cpu_and_takes_8(self, refs: Refs) -> None:
        with pytest.raises(GuardError, match="loses gradients after a reading"):
            LiveModel(load(refs["adapter"], "4bit"))
        LiveModel(load(refs["adapter"], "8bit"))

    def test_a_measurement_says_so_and_measures_the_band(self, home: Path, tmp_path: Path) -> None:
        history = Lineage.of(aligned=str(home / "aligned"), witness=str(home / "tuned"), checkpoints=[f"{home}/last"])
        labels = ["harmful"] * len(WORDS) + ["harmless"] * len(WORDS)
        prompts = PromptSet.of([f"{label} {word}" for label, word in zip(labels, 2 * WORDS, strict=True)], labels)
        settings = Settings(device="cpu", quantize="4bit", shams=19, draws=99, permutations=99, bootstraps=20)
        run = measure(history, prompts, tmp_path / "run", settings)
        band = run.manifest.model["parity"]
        assert 0.001 < band["lowest"] <= band["median"] <= band["highest"]
        assert band["missing"] is None
        assert any("from those of the stored model" in notice for notice in run.notices)
        assert run.manifest.model["quantized"] == "4bit"
        assert not len(run.read_table("shams"))
        assert "not tested" in str(run.read_json("verdict"))
        with pytest.raises(UsageError, match="was measured in 4bit"):
            measure(history, prompts, tmp_path / "run", settings.model_copy(update={"quantize": None}))


@pytest.mark.skipif(HAS_BITS, reason="bitsandbytes is there")
def test_fewer_bits_without_bitsandbytes_are_refused_in_a_sentence(refs: Refs) -> None:
    with pytest.raises(UsageError, match="needs bitsandbytes") as error:
        ModelHost(refs["aligned"], device=Placement("cpu", quantize="4bit"))
    assert "gravity-probe[quantized]" in str(error.value)
