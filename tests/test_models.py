"""The host holds one model, puts checkpoints in its place exactly, and refuses what does not belong."""

from __future__ import annotations

import gc
import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from probes.activations import collect_layer
from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models import DriftNorms, ModelHost
from probes.models.architecture import KNOWN, ask_transformer_lens, find_places
from probes.models.kinship import WeightSample, check_related, describe_base
from probes.models.structure import check_structure
from probes.models.weight_space import drift_norms, noised, norms_up_to
from tests.builders import (
    DEPTH,
    FAMILIES,
    VOCABULARY,
    WIDTH,
    move_weights,
    save_adapter,
    save_checkpoint,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
)

TOKENS = torch.tensor([[5, 60, 7, 100, 33, 200, 9]])
LORA = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn"]}
DIRECT = {"llama", "gpt2", "neox", "qwen2", "gemma2"}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


def load_with_peft(ref: CheckpointRef) -> Any:
    """An independent way to the same model: transformers, and peft's own wrapper around it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ref.model)
    return (PeftModel.from_pretrained(model, ref.adapter) if ref.adapter else model).eval()


def weights(host: ModelHost) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in host.model.state_dict().items()}


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def aligned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "aligned", tiny_model(), tiny_tokenizer())


@pytest.fixture(scope="module")
def tuned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "tuned", move_weights(tiny_model()))


@pytest.fixture(scope="module")
def adapter(place: Path, aligned: CheckpointRef) -> CheckpointRef:
    return save_adapter(place / "adapter", aligned, targets=LORA["llama"])


@pytest.fixture(scope="module")
def shared_host(aligned: CheckpointRef) -> ModelHost:
    return ModelHost(aligned, device="cpu")


@pytest.fixture
def host(shared_host: ModelHost, aligned: CheckpointRef) -> ModelHost:
    """One host for many tests: whatever the last one did, putting the aligned model in makes it good again."""
    shared_host.put(aligned)
    return shared_host


class TestPlaces:
    @pytest.mark.parametrize("architecture", sorted(KNOWN))
    def test_what_is_written_down_is_what_transformer_lens_says(self, architecture: str) -> None:
        import transformers

        config = getattr(transformers, architecture).config_class()
        assert ask_transformer_lens(architecture, config) == KNOWN[architecture]

    def test_an_architecture_that_is_not_written_down_is_asked_for(self) -> None:
        import transformers

        places = find_places("OPTForCausalLM", transformers.OPTConfig())
        assert places.blocks == "model.decoder.layers"

    def test_an_unknown_architecture_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="CTRLLMHeadModel is not supported"):
            find_places("CTRLLMHeadModel", tiny_config())


class Body(nn.Module):
    """A body of two linear blocks that can be built wrong in the ways the check looks for."""

    def __init__(self, *, between: bool = False, looks_ahead: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.blocks = nn.Embedding(10, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.between, self.looks_ahead = between, looks_ahead

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        states = [self.table(input_ids)]
        for block in self.blocks:
            out = block(states[-1])
            out = out + out.mean(dim=1, keepdim=True) if self.looks_ahead else out
            states.append(2 * out if self.between else out)
        return BaseModelOutput(hidden_states=tuple(states))


class TestStructure:
    def test_a_proper_stack_passes(self) -> None:
        body = Body()
        check_structure(body, list(body.blocks), 2, 4)

    @pytest.mark.parametrize(
        ("body", "n_layers", "width", "message"),
        [
            (Body(), 3, 4, "another depth"),
            (Body(), 2, 8, r"\[prompt, position, 8\]"),
            (Body(between=True), 2, 4, "output to enter the next"),
        ],
        ids=["depth", "width", "something between blocks"],
    )
    def test_what_is_built_otherwise_is_refused(self, body: Body, n_layers: int, width: int, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            check_structure(body, list(body.blocks), n_layers, width)

    def test_blocks_in_another_order_are_refused(self) -> None:
        body = Body()
        with pytest.raises(CheckpointError, match="output to enter the next"):
            check_structure(body, list(body.blocks)[::-1], 2, 4)

    def test_a_model_that_looks_ahead_is_refused(self) -> None:
        class LookingBlock(nn.Linear):
            def forward(self, stream: torch.Tensor) -> torch.Tensor:
                return super().forward(stream) + stream.mean(dim=1, keepdim=True)

        body = Body()
        body.blocks = nn.ModuleList([LookingBlock(4, 4), LookingBlock(4, 4)])
        with pytest.raises(CheckpointError, match="looks ahead"):
            check_structure(body, list(body.blocks), 2, 4)

    def test_no_hook_is_left(self, host: ModelHost) -> None:
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in host.model.modules())


class TestPut:
    @pytest.mark.parametrize("family", list(FAMILIES))
    @pytest.mark.parametrize("shard_size", [None, "30KB"], ids=["one-file", "shards"])
    def test_gives_what_transformers_loads(self, family: str, shard_size: str | None, tmp_path: Path) -> None:
        start = save_checkpoint(tmp_path / "a", tiny_model(family), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model(family)), shard_size=shard_size)
        host = ModelHost(start, device="cpu")
        module, before = host.model, logits(host.model)
        memory = next(host.model.parameters()).data  # kept, so that nothing else can be put at its address
        host.put(later)
        assert host.model is module
        assert torch.equal(logits(host.model), logits(load_with_peft(later)))
        assert not torch.equal(logits(host.model), before)
        assert (next(host.model.parameters()).data_ptr() == memory.data_ptr()) == (family in DIRECT)
        host.put(start)
        assert torch.equal(logits(host.model), before)

    def test_keeps_one_model_also_where_files_must_be_converted(self, tmp_path: Path) -> None:
        from transformers import PreTrainedModel

        start = save_checkpoint(tmp_path / "a", tiny_model("mixtral"), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model("mixtral")))
        host = ModelHost(start, device="cpu")
        host.put(later)
        gc.collect()
        experts = [
            held for held in gc.get_objects() if isinstance(held, PreTrainedModel) and type(held) is type(host.model)
        ]
        assert len(experts) == 1

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_tied_embeddings_stay_tied(self, family: str, tmp_path: Path) -> None:
        start = save_checkpoint(tmp_path / "a", tiny_model(family, tie_word_embeddings=True), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model(family, tie_word_embeddings=True)))
        host = ModelHost(start, device="cpu")
        host.put(later)
        assert host.model.lm_head.weight is host.embedding.weight
        assert torch.equal(logits(host.model), logits(load_with_peft(later)))

    def test_a_checkpoint_that_unties_its_embeddings_is_read_and_leaves_no_trace(self, tmp_path: Path) -> None:
        tied = tiny_model(tie_word_embeddings=True)
        host = ModelHost(save_checkpoint(tmp_path / "a", tied, tiny_tokenizer()), device="cpu")
        untied = tiny_model(tie_word_embeddings=False)
        untied.load_state_dict(tied.state_dict())
        with torch.no_grad():
            untied.lm_head.weight.mul_(1.1)
        later = save_checkpoint(tmp_path / "b", untied)
        host.put(later)
        assert torch.equal(logits(host.model), logits(load_with_peft(later)))
        host.put(host.aligned)
        assert host.model.lm_head.weight is host.embedding.weight
        assert torch.equal(logits(host.model), logits(load_with_peft(host.aligned)))

    def test_copies_directly_where_the_files_lack_the_prefix(self, tmp_path: Path) -> None:
        """As the hub's first GPT-2: saved from the body, so that no name starts with `transformer.`."""
        start = save_checkpoint(tmp_path / "a", tiny_model("gpt2").transformer, tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model("gpt2")).transformer)
        host = ModelHost(start, device="cpu")
        memory = next(host.model.parameters()).data  # kept, so that nothing else can be put at its address
        host.put(later)
        assert next(host.model.parameters()).data_ptr() == memory.data_ptr()
        assert torch.equal(logits(host.model), logits(load_with_peft(later)))

    def test_converts_to_the_precision_asked_for(self, aligned: CheckpointRef, tuned: CheckpointRef) -> None:
        host = ModelHost(aligned, device="cpu", dtype="bfloat16")
        host.put(tuned)
        expected = load_with_peft(tuned).state_dict()
        assert all(torch.equal(tensor, expected[name].bfloat16()) for name, tensor in host.model.state_dict().items())

    def test_does_not_read_again_what_is_there(self, aligned: CheckpointRef, tmp_path: Path) -> None:
        copy = CheckpointRef(model=str(shutil.copytree(aligned.model, tmp_path / "copy")))
        host = ModelHost(copy, device="cpu")
        before = logits(host.model)
        (tmp_path / "copy" / "model.safetensors").unlink()
        host.put(CheckpointRef(model=copy.model))
        assert torch.equal(logits(host.model), before)

    def test_is_in_evaluation_without_gradients(self, host: ModelHost, tuned: CheckpointRef) -> None:
        host.put(tuned)
        assert not host.model.training
        assert not any(parameter.requires_grad for parameter in host.model.parameters())

    def test_describes_itself(self, host: ModelHost) -> None:
        assert host.about == {
            "architecture": "LlamaForCausalLM",
            "model_type": "llama",
            "n_layers": DEPTH,
            "d_model": WIDTH,
            "vocabulary": VOCABULARY,
            "dtype": "float32",
        }


class TestAdapters:
    @pytest.mark.parametrize(
        ("family", "more"),
        [("llama", {}), ("gpt2", {}), ("llama", {"modules_to_save": ["lm_head"]}), ("llama", {"use_dora": True})],
        ids=["llama", "gpt2", "modules-to-save", "dora"],
    )
    def test_attached_as_peft_does_and_detached_without_a_trace(
        self, family: str, more: dict[str, Any], tmp_path: Path
    ) -> None:
        base = save_checkpoint(tmp_path / "base", tiny_model(family), tiny_tokenizer())
        first = save_adapter(tmp_path / "first", base, targets=LORA[family], **more)
        second = save_adapter(tmp_path / "second", base, seed=1, targets=LORA[family], **more)
        host = ModelHost(base, device="cpu")
        own, before, parameter = weights(host), logits(host.model), next(host.model.parameters()).data_ptr()
        for ref in (first, second, first):
            host.put(ref)
            torch.testing.assert_close(logits(host.model), logits(load_with_peft(ref)), rtol=0, atol=1e-6)
            assert not torch.allclose(logits(host.model), before, atol=1e-3)
        host.put(base)
        assert torch.equal(logits(host.model), before)
        assert_same_weights(weights(host), own)
        assert next(host.model.parameters()).data_ptr() == parameter

    def test_may_sit_on_the_aligned_model_itself(self, adapter: CheckpointRef, aligned: CheckpointRef) -> None:
        host = ModelHost(adapter, device="cpu")
        torch.testing.assert_close(logits(host.model), logits(load_with_peft(adapter)), rtol=0, atol=1e-6)
        host.put(aligned)
        assert torch.equal(logits(host.model), logits(load_with_peft(aligned)))

    def test_of_another_shape_is_refused_and_the_host_stays_usable(
        self, host: ModelHost, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        wide = save_checkpoint(tmp_path / "wide", tiny_model(hidden_size=48), tiny_tokenizer())
        foreign = save_adapter(tmp_path / "foreign", wide, targets=LORA["llama"])
        before = logits(host.model)
        with pytest.raises(CheckpointError, match="cannot be attached"):
            host.put(CheckpointRef(model=aligned.model, adapter=foreign.adapter))
        host.put(aligned)
        assert torch.equal(logits(host.model), before)

    def test_that_asks_for_a_package_that_is_not_there_is_refused_in_a_sentence(
        self, host: ModelHost, adapter: CheckpointRef, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(str(adapter.adapter), tmp_path / "megatron")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "megatron_config": 8}))
        with pytest.raises(CheckpointError, match="cannot be attached"):
            host.put(CheckpointRef(model=adapter.model, adapter=str(folder)))

    def test_that_puts_tokens_before_the_prompt_is_refused(
        self, host: ModelHost, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        from peft import PromptTuningConfig, get_peft_model

        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        get_peft_model(load_with_peft(aligned), config).save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="before the prompt"):
            host.put(CheckpointRef(model=aligned.model, adapter=str(tmp_path)))

    def test_truncated_or_pickled_is_refused(
        self, host: ModelHost, adapter: CheckpointRef, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        assert adapter.adapter is not None
        copy = Path(shutil.copytree(adapter.adapter, tmp_path / "copy"))
        file = copy / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        ref = CheckpointRef(model=aligned.model, adapter=str(copy))
        with pytest.raises(CheckpointError, match="truncated"):
            host.put(ref)
        file.rename(copy / "adapter_model.bin")
        with pytest.raises(CheckpointError, match="pickled"):
            host.put(ref)


Spoil = Callable[[Path], None]


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def without_one_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_rotation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 77.0
    (folder / "config.json").write_text(json.dumps(config))


class TestRefusals:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (truncate, "truncated or damaged"),
            (empty, "is no checkpoint; got a folder without config.json"),
            (without_weights, "is no checkpoint; got a folder without weights"),
            (damaged_config, "no whole JSON file"),
            (without_one_tensor, r"incomplete checkpoint; got no usable weights for model\.layers\.1\.mlp"),
            (other_rotation, "rope_parameters of .* differs"),
        ],
    )
    def test_a_spoilt_folder(
        self, host: ModelHost, tuned: CheckpointRef, spoil: Spoil, message: str, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(tuned.model, tmp_path / "spoilt"))
        spoil(folder)
        with pytest.raises(CheckpointError, match=message):
            host.put(CheckpointRef(model=str(folder)))
        host.put(tuned)
        assert torch.equal(logits(host.model), logits(load_with_peft(tuned)))

    @pytest.mark.parametrize("spoil", [truncate, empty, without_weights, without_one_tensor])
    def test_a_spoilt_aligned_model(self, aligned: CheckpointRef, spoil: Spoil, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(aligned.model, tmp_path / "spoilt"))
        spoil(folder)
        with pytest.raises(CheckpointError):
            ModelHost(CheckpointRef(model=str(folder)), device="cpu")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *(("vocab_size", value) for value in (-1, 0, 1)),
            *(("num_attention_heads", value) for value in (0, -1, 3, 10**30)),
            *(("num_key_value_heads", value) for value in (0, -1, 3)),
            *(("hidden_size", value) for value in (0, -1, 1e308)),
            *(("num_hidden_layers", value) for value in (0, -1, "x")),
            *(("hidden_act", value) for value in ("x", None, 1)),
            *(("rope_parameters", value) for value in ([], "x", {"rope_type": "x"}, {"rope_theta": "x"})),
            *(("pad_token_id", value) for value in (10**6, -(10**6), "x")),
        ],
    )
    def test_a_configuration_that_cannot_be_is_a_sentence(
        self, aligned: CheckpointRef, field: str, value: Any, tmp_path: Path
    ) -> None:
        """Torch's layers assert, transformers' divide by what they are given: each is the checkpoint's own fault."""
        folder = Path(shutil.copytree(aligned.model, tmp_path / "spoilt"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, field: value}))
        with pytest.raises(CheckpointError):
            ModelHost(CheckpointRef(model=str(folder)), device="cpu")

    def test_an_aligned_model_without_a_tokenizer(self, tuned: CheckpointRef) -> None:
        with pytest.raises(CheckpointError, match="has no tokenizer"):
            ModelHost(tuned, device="cpu")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hidden_size": 48}, "The width of .* got 48; expected 32"),
            ({"num_hidden_layers": 2}, "The depth of .* got 2; expected 3"),
            ({"vocab_size": 200}, "The vocabulary of .* got 200; expected 259"),
            ({"num_attention_heads": 8}, "num_attention_heads"),
        ],
        ids=["width", "depth", "vocabulary", "heads"],
    )
    def test_another_shape(self, host: ModelHost, changes: dict[str, int], message: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=message):
            host.put(save_checkpoint(tmp_path, tiny_model(**changes)))

    def test_another_architecture(self, host: ModelHost, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="architecture"):
            host.put(save_checkpoint(tmp_path, tiny_model("qwen2")))

    def test_a_missing_shard_is_named(self, host: ModelHost, tmp_path: Path) -> None:
        ref = save_checkpoint(tmp_path, move_weights(tiny_model()), shard_size="30KB")
        sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
        with pytest.raises(CheckpointError, match="no model-00002-of-"):
            host.put(ref)

    def test_another_tokenizer(self, host: ModelHost, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="another tokenizer"):
            host.put(save_checkpoint(tmp_path, move_weights(tiny_model()), tiny_tokenizer(shuffled=True)))

    def test_the_same_tokenizer_padding_on_the_other_side_is_no_other_one(
        self, host: ModelHost, tmp_path: Path
    ) -> None:
        host.put(save_checkpoint(tmp_path, move_weights(tiny_model()), tiny_tokenizer(padding_side="left")))

    def test_an_added_token_is_no_other_tokenizer(self, host: ModelHost, tmp_path: Path) -> None:
        more = tiny_tokenizer(additional_special_tokens=["<turn>"])
        host.put(save_checkpoint(tmp_path, move_weights(tiny_model()), more))

    def test_unrelated_weights_with_their_distance(
        self, host: ModelHost, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        stranger = save_checkpoint(tmp_path, tiny_model(seed=9))
        with pytest.raises(CheckpointError, match=r"unrelated .* cosine of -?0\.0.* distance of 1\.\d\d ×"):
            host.put(stranger)
        willing = ModelHost(aligned, device="cpu", allow_unrelated=True)
        willing.put(stranger)
        assert torch.equal(logits(willing.model), logits(load_with_peft(stranger)))

    def test_weights_that_cannot_be_compared(self) -> None:
        """As of files that no library has named alike: a median of nothing is no number, and no cosine above 0.1."""
        matrix = torch.ones(4)
        kinship = WeightSample({"a.weight": matrix}).kinship(WeightSample({"b.weight": matrix}))
        assert math.isnan(kinship.cosine)
        with pytest.raises(CheckpointError, match="cannot be told; got files in which no weight matrix"):
            check_related(kinship, "m")
        check_related(WeightSample({"a.weight": matrix}).kinship(WeightSample({"a.weight": matrix})), "m")
        base = CheckpointRef(model="base")
        sentence = describe_base(CheckpointRef(model="base", adapter="x"), base, CheckpointRef(model="s"), kinship)
        assert sentence is not None
        assert sentence.endswith(
            "how far its weights lie from them cannot be told, since their files name them otherwise."
        )

    def test_one_matrix_of_nan_hides_no_stranger(self) -> None:
        generator = torch.Generator().manual_seed(0)
        own, stranger = (torch.randn(3, 256, generator=generator) for _ in range(2))
        stranger[0] = math.nan
        names = ("a.weight", "b.weight", "c.weight")
        kinship = WeightSample(dict(zip(names, own, strict=True))).kinship(
            WeightSample(dict(zip(names, stranger, strict=True)))
        )
        with pytest.raises(CheckpointError, match="unrelated"):
            check_related(kinship, "m")

    def test_says_how_near_the_weights_are(self, host: ModelHost, tuned: CheckpointRef) -> None:
        host.put(tuned)
        assert host.kinship.cosine > 0.99
        assert host.kinship.distance == pytest.approx(0.05, rel=0.1)


class Trap:
    """Unpickling this would call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle ran code",))


class TestPickles:
    @pytest.fixture
    def pickled(self, tuned: CheckpointRef, tmp_path: Path) -> CheckpointRef:
        folder = Path(shutil.copytree(tuned.model, tmp_path / "pickled"))
        (folder / "model.safetensors").unlink()
        torch.save(load_with_peft(tuned).state_dict(), folder / "pytorch_model.bin")
        return CheckpointRef(model=str(folder))

    def test_are_refused(self, host: ModelHost, pickled: CheckpointRef) -> None:
        with pytest.raises(CheckpointError, match=r"pickled, which can run code.*--allow-pickle"):
            host.put(pickled)

    def test_are_read_when_allowed(self, aligned: CheckpointRef, pickled: CheckpointRef, tuned: CheckpointRef) -> None:
        host = ModelHost(aligned, device="cpu", allow_pickle=True)
        host.put(pickled)
        assert torch.equal(logits(host.model), logits(load_with_peft(tuned)))

    def test_may_be_the_aligned_model(self, pickled: CheckpointRef, tuned: CheckpointRef) -> None:
        tiny_tokenizer().save_pretrained(pickled.model)
        host = ModelHost(pickled, device="cpu", allow_pickle=True)
        assert torch.equal(logits(host.model), logits(load_with_peft(tuned)))

    def test_never_run_code(
        self, aligned: CheckpointRef, pickled: CheckpointRef, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (Path(pickled.model) / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Trap()}))
        host = ModelHost(aligned, device="cpu", allow_pickle=True)
        with pytest.raises(CheckpointError, match="damaged"):
            host.put(pickled)
        assert "a pickle ran code" not in capsys.readouterr().out


class TestHash:
    def test_is_of_the_content_and_not_of_the_place(
        self, host: ModelHost, tuned: CheckpointRef, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        copy = CheckpointRef(model=str(shutil.copytree(tuned.model, tmp_path / "elsewhere")))
        assert host.weights_sha256(copy) == host.weights_sha256(tuned)
        assert host.weights_sha256(tuned) != host.weights_sha256(aligned)
        assert len(host.weights_sha256(tuned)) == 64

    def test_changes_with_one_number(self, host: ModelHost, tuned: CheckpointRef, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tuned.model, tmp_path / "copy"))
        before = host.weights_sha256(CheckpointRef(model=str(folder)))
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
        assert host.weights_sha256(CheckpointRef(model=str(folder))) != before

    def test_counts_the_adapter_and_its_scale(
        self, host: ModelHost, adapter: CheckpointRef, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        assert adapter.adapter is not None
        copy = Path(shutil.copytree(adapter.adapter, tmp_path / "copy"))
        ref = CheckpointRef(model=aligned.model, adapter=str(copy))
        assert host.weights_sha256(ref) == host.weights_sha256(adapter) != host.weights_sha256(aligned)
        config = json.loads((copy / "adapter_config.json").read_text())
        (copy / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 7}))
        assert host.weights_sha256(ref) != host.weights_sha256(adapter)


class TestSham:
    def test_norms_are_those_of_the_difference(
        self, host: ModelHost, tuned: CheckpointRef, aligned: CheckpointRef
    ) -> None:
        norms = drift_norms(host, tuned)
        ours, theirs = load_with_peft(aligned).state_dict(), load_with_peft(tuned).state_dict()
        assert norms.keys() == dict(load_with_peft(aligned).named_parameters()).keys()
        for name, norm in norms.items():
            assert norm == pytest.approx((theirs[name] - ours[name]).norm().item(), rel=1e-5)
        assert norms.ranks == {}
        assert_same_weights(weights(host), ours)

    def test_norms_where_files_must_be_converted(self, tmp_path: Path) -> None:
        start = save_checkpoint(tmp_path / "a", tiny_model("mixtral"), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model("mixtral")))
        host = ModelHost(start, device="cpu")
        norms = drift_norms(host, later)
        ours, theirs = load_with_peft(start).state_dict(), load_with_peft(later).state_dict()
        assert norms == pytest.approx({name: (theirs[name] - ours[name]).norm().item() for name in norms}, rel=1e-5)
        with noised(host, norms, seed=0):
            assert not torch.equal(logits(host.model), logits(load_with_peft(start)))
        assert_same_weights(weights(host), ours)

    @pytest.mark.parametrize("more", [{}, {"modules_to_save": ["lm_head"]}], ids=["lora", "modules-to-save"])
    def test_an_adapters_norms_are_those_of_the_merged_weights(
        self, host: ModelHost, aligned: CheckpointRef, more: dict[str, Any], tmp_path: Path
    ) -> None:
        ref = save_adapter(tmp_path, aligned, targets=[*LORA["llama"], "embed_tokens"], **more)
        norms = drift_norms(host, ref)
        ours, merged = load_with_peft(aligned).state_dict(), load_with_peft(ref).merge_and_unload().state_dict()
        changed = {name for name in ours if not torch.equal(ours[name], merged[name])}
        assert norms.keys() == changed
        for name, norm in norms.items():
            assert norm == pytest.approx((merged[name] - ours[name]).norm().item(), rel=1e-4)
            assert norms.ranks.get(name) == (None if name == "lm_head.weight" else 2)

    def test_norms_between_two_adapters_of_one_base(
        self, adapter: CheckpointRef, aligned: CheckpointRef, tmp_path: Path
    ) -> None:
        second = save_adapter(tmp_path, aligned, seed=4, targets=LORA["llama"])
        norms = drift_norms(ModelHost(adapter, device="cpu"), second)
        ours, theirs = (load_with_peft(ref).merge_and_unload().state_dict() for ref in (adapter, second))
        assert norms == pytest.approx({name: (theirs[name] - ours[name]).norm().item() for name in norms}, rel=1e-3)
        assert set(norms.ranks.values()) == {4}

    def test_noise_has_the_norms_and_the_ranks(self, host: ModelHost, adapter: CheckpointRef) -> None:
        norms = drift_norms(host, adapter)
        before = weights(host)
        with noised(host, norms, seed=0):
            noise = {name: tensor - before[name] for name, tensor in weights(host).items()}
        for name, difference in noise.items():
            assert difference.norm().item() == pytest.approx(norms.get(name, 0.0), rel=1e-4)
            if name in norms:
                assert torch.linalg.matrix_rank(difference, rtol=1e-4) == 2

    def test_is_a_function_of_seed_and_name_alone(self, host: ModelHost) -> None:
        norms = {
            "model.layers.0.mlp.up_proj.weight": 1.0,
            "model.layers.1.mlp.up_proj.weight": 2.0,
            "lm_head.weight": 0.5,
        }

        def under(some: dict[str, float], seed: int) -> torch.Tensor:
            with noised(host, some, seed):
                return weights(host)["model.layers.1.mlp.up_proj.weight"]

        expected = under(norms, 3)
        assert torch.equal(expected, under(dict(reversed(norms.items())), 3))
        assert torch.equal(expected, under({"model.layers.1.mlp.up_proj.weight": 2.0}, 3))
        assert not torch.equal(expected, under(norms, 4))

    @pytest.mark.parametrize("tied", [False, True])
    def test_a_layer_needs_noise_on_what_it_depends_on_alone(self, tied: bool, tmp_path: Path) -> None:
        aligned = save_checkpoint(tmp_path / "a", tiny_model(tie_word_embeddings=tied), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model(tie_word_embeddings=tied)))
        host = ModelHost(aligned, device="cpu")
        whole, streams = drift_norms(host, later), []
        below = norms_up_to(host, whole, 0)
        assert below.keys() == {name for name in whole if "layers.0." in name or "embed_tokens" in name}
        for norms in (whole, below, {**below, "model.layers.0.input_layernorm.weight": 0.0}):
            with noised(host, norms, seed=0):
                streams.append(collect_layer(host, [[5, 6, 7], [8, 9]], 0))
        assert np.array_equal(*streams[:2])
        assert not np.array_equal(streams[0], streams[2])

    def test_a_layer_depends_on_buffers_too(self, tmp_path: Path) -> None:
        """A router's bias is one in some architectures, is saved, and moves in fine-tuning."""
        host = ModelHost(save_checkpoint(tmp_path, tiny_model(), tiny_tokenizer()), device="cpu")
        for block in host.blocks:
            block.register_buffer("bias", torch.ones(3))
        host._targets = host.model.state_dict()
        norms = DriftNorms({f"model.layers.{layer}.bias": 1.0 for layer in range(host.n_layers)})
        assert set(norms_up_to(host, norms, 1)) == {"model.layers.0.bias", "model.layers.1.bias"}

    def test_full_rank_noise_is_of_full_rank(self, host: ModelHost) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        before = weights(host)[name]
        with noised(host, DriftNorms({name: 1.0}), seed=0):
            assert torch.linalg.matrix_rank(weights(host)[name] - before) == WIDTH

    def test_the_weights_come_back_bit_for_bit_also_after_an_exception(
        self, host: ModelHost, tuned: CheckpointRef
    ) -> None:
        norms = drift_norms(host, tuned)
        before, own = logits(host.model), weights(host)
        with noised(host, norms, seed=0):
            assert not torch.equal(logits(host.model), before)
        assert_same_weights(weights(host), own)
        with pytest.raises(ZeroDivisionError), noised(host, norms, seed=1):
            raise ZeroDivisionError
        assert_same_weights(weights(host), own)
        assert torch.equal(logits(host.model), before)

    def test_a_checkpoint_put_in_meanwhile_is_clean(self, host: ModelHost, tuned: CheckpointRef) -> None:
        with noised(host, drift_norms(host, tuned), seed=0):
            host.put(tuned)
            assert torch.equal(logits(host.model), logits(load_with_peft(tuned)))

    def test_under_an_adapter_of_the_aligned_model(self, adapter: CheckpointRef) -> None:
        host = ModelHost(adapter, device="cpu")
        before = logits(host.model)
        with noised(host, {"model.layers.0.self_attn.q_proj.weight": 1.0}, seed=0):
            assert not torch.equal(logits(host.model), before)
        assert torch.equal(logits(host.model), before)

    def test_a_name_the_model_does_not_have_is_refused(self, host: ModelHost) -> None:
        with (
            pytest.raises(CheckpointError, match="does not have; got nonsense"),
            noised(host, {"nonsense": 1.0}, seed=0),
        ):
            pass
