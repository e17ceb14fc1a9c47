"""Every tuner of peft: measured alone, after another and before another, as peft itself computes it; and its ΔW."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.activations import collect
from probes.errors import CheckpointError, GravityError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.weight_space import drift_norms, merged_weights, noised
from probes.training.tuners import OWN
from tests.builders import DEPTH, move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer

PROMPTS = [[5, 60, 7, 100, 33, 200, 9], [4, 8, 15, 16, 23, 42]]
TOKENS = torch.tensor(PROMPTS[:1])

# What a tuner's configuration needs on a model this small; most need nothing.
SETTINGS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 2, "adapter_layers": 1},
    "BEFT": {"target_modules": ["q_proj"]},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "GRALORA": {"r": 4},
    "HRA": {"r": 2},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 4},
    "OFT": {"r": 0, "oft_block_size": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [5, 7]},
    "VBLORA": {"num_vectors": 8, "vector_length": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 20},
}
# Initialisations and variants of LoRA; those marked rewrite the base's weights when peft attaches them.
LORA = {
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "eva": {"init_lora_weights": "eva"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "biases": {"bias": "all", "lora_bias": True, "target_modules": ["q_proj"]},
    "base-biases": {"bias": "all", "target_modules": ["q_proj"]},
    "own-embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "modules-to-save": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": [5, 7]},
}
REWRITING = ("pissa", "pissa_niter_4", "olora")
UNMERGEABLE = ("ADAPTION_PROMPT",)
NOTICED = (*UNMERGEABLE, "pissa_niter_4")
# Tuners that are not measured, and the sentence with which they are refused.
NOT_MEASURED = {
    "CARTRIDGE": "puts trained tokens before the prompt: nothing of the weights to measure",
    "CPT": "puts trained tokens before the prompt",
    "MULTITASK_PROMPT_TUNING": "puts trained tokens before the prompt",
    "PREFIX_TUNING": "puts trained tokens before the prompt",
    "PROMPT_TUNING": "puts trained tokens before the prompt",
    "P_TUNING": "puts trained tokens before the prompt",
    "LILY": "weighs its parts by a mean over all tokens, so that later tokens and padding change earlier ones",
    "POLY": "needs the id of a task with every pass",
    "SHADOW": "the blocks pass on a second stream, so that what leaves them is no tensor",
    "XLORA": "weighs other adapters by a first pass in peft's own wrapper",
}


def registry() -> list[str]:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return sorted(kind.value for kind in PEFT_TYPE_TO_TUNER_MAPPING if kind.value.lower() not in OWN)


MEASURED = [kind for kind in registry() if kind not in NOT_MEASURED] + sorted(LORA)


def configuration(name: str) -> Any:
    from peft import LoraConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if name in LORA:
        return LoraConfig(**{"r": 2, "target_modules": ["q_proj", "down_proj"], **LORA[name]})
    kind = next(peft_type for peft_type in PEFT_TYPE_TO_CONFIG_MAPPING if peft_type.value == name)
    known = inspect.signature(PEFT_TYPE_TO_CONFIG_MAPPING[kind]).parameters
    default = {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    if name in ("ADAPTION_PROMPT", "TRAINABLE_TOKENS"):
        del default["target_modules"]
    chosen = {key: value for key, value in default.items() if key in known}
    return PEFT_TYPE_TO_CONFIG_MAPPING[kind](**{**chosen, **SETTINGS.get(name, {})})


def plain(ref: CheckpointRef) -> Any:
    """An independent way to the same model: transformers, and peft's own wrapper around it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ref.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # pissa_niter decomposes the base anew, at random, whenever it is loaded
        return (PeftModel.from_pretrained(model, ref.adapter) if ref.adapter else model).eval()


@functools.cache
def weights_of(ref: CheckpointRef) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint without an adapter, read once."""
    return plain(ref).state_dict()


@functools.cache
def streams(ref: CheckpointRef) -> torch.Tensor:
    """The last token's stream behind every block [layer, prompt, d_model], from peft's own model; read once."""
    model, rows = plain(ref), []
    layers = dict(model.named_modules())[
        next(name for name, _ in model.named_modules() if name.endswith("model.layers"))
    ]
    for ids in PROMPTS:
        states: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(
                lambda _, __, out, states=states: states.append((out[0] if isinstance(out, tuple) else out)[0, -1])
            )
            for block in layers
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
        for hook in hooks:
            hook.remove()
        rows.append(torch.stack(states))
    return torch.stack(rows, dim=1)


def assert_same(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-6 of the largest activation: a batch rounds otherwise than a prompt alone."""
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6 * max(1.0, expected.abs().max().item()))


def read(host: ModelHost, ref: CheckpointRef) -> torch.Tensor:
    host.put(ref)
    return torch.tensor(collect(host, PROMPTS)[0])


@functools.cache
def read_alone(ref: CheckpointRef) -> torch.Tensor:
    """What a host reads that has read nothing else."""
    return read(ModelHost(ref, device="cpu"), ref)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuners")


@pytest.fixture(scope="module")
def base(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "base", tiny_model(attention_bias=True), tiny_tokenizer())


@pytest.fixture(scope="module")
def tuned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "tuned", move_weights(tiny_model(attention_bias=True)))


@pytest.fixture(scope="module")
def lora(place: Path, base: CheckpointRef) -> CheckpointRef:
    return save_adapter(place / "lora", base, targets=["q_proj", "down_proj"])


@pytest.fixture(scope="module")
def adapter(place: Path, base: CheckpointRef) -> Any:
    """Adapters by name, each trained a little way from where peft begins."""
    saved: dict[str, CheckpointRef] = {}

    def of(name: str) -> CheckpointRef:
        from peft import get_peft_model

        if name not in saved:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = get_peft_model(plain(base), configuration(name)).eval()
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.requires_grad and parameter.is_floating_point():
                            parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(place / name)
            saved[name] = CheckpointRef(model=base.model, adapter=str(place / name))
        return saved[name]

    return of


def test_every_tuner_of_the_registry_is_measured_or_listed_with_its_reason() -> None:
    assert set(NOT_MEASURED) <= set(registry())
    assert not set(NOT_MEASURED) & set(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_alone_after_another_and_before_another(
    name: str, adapter: Any, base: CheckpointRef, tuned: CheckpointRef, lora: CheckpointRef
) -> None:
    ref = adapter(name)
    expected = {checkpoint: streams(checkpoint) for checkpoint in (base, tuned, lora, ref)}
    assert (expected[ref] - expected[base]).abs().max() > 1e-3
    alone = ModelHost(base, device="cpu")
    assert_same(read(alone, ref), expected[ref])
    host = ModelHost(base, device="cpu")
    for checkpoint in (lora, ref, tuned, ref, base, ref, lora, base):
        assert_same(read(host, checkpoint), expected[checkpoint])
    assert torch.equal(read(host, base), read_alone(base))
    assert bool(alone.notices) == (name in NOTICED)


@pytest.mark.parametrize("name", [name for name in MEASURED if name not in UNMERGEABLE])
def test_weight_differences_are_those_of_the_merged_model(name: str, adapter: Any, base: CheckpointRef) -> None:
    ref = adapter(name)
    before, merged = weights_of(base), plain(ref).merge_and_unload().state_dict()
    host = ModelHost(base, device="cpu")
    differences = {key: merged[key] - before[key] for key in before}
    norms = drift_norms(host, ref)
    for key, difference in differences.items():
        assert norms.get(key, 0.0) == pytest.approx(difference.norm().item(), rel=1e-3, abs=2e-6)
    weights = merged_weights(host, ref)
    for key in before:
        torch.testing.assert_close(weights[key], merged[key], rtol=0, atol=1e-5)
    start = {key: tensor.clone() for key, tensor in host.model.state_dict().items()}
    assert all(torch.equal(start[key], before[key]) for key in before)
    with noised(host, norms, seed=0):
        noise = {key: tensor - start[key] for key, tensor in host.model.state_dict().items()}
    for key in before:
        assert noise[key].norm().item() == pytest.approx(norms.get(key, 0.0), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", ["LORA", "rslora", "gaussian", *REWRITING])
def test_pefts_own_delta_is_the_difference_only_where_the_base_is_left_alone(
    name: str, adapter: Any, base: CheckpointRef
) -> None:
    key = "model.layers.1.self_attn.q_proj"
    ref = adapter(name)
    layer = plain(ref).get_submodule(f"base_model.model.{key}")
    norm = drift_norms(ModelHost(base, device="cpu"), ref)[f"{key}.weight"]
    same = norm == pytest.approx(layer.get_delta_weight("default").norm().item(), rel=1e-3)
    assert same == (name not in REWRITING)


@pytest.mark.parametrize("name", REWRITING)
def test_a_difference_of_two_products_has_twice_the_rank(name: str, adapter: Any, base: CheckpointRef) -> None:
    norms = drift_norms(ModelHost(base, device="cpu"), adapter(name))
    assert set(norms.ranks.values()) == {4}
    assert len(norms.ranks) == 2 * DEPTH


def test_an_adapter_that_looks_ahead_is_refused(adapter: Any, base: CheckpointRef) -> None:
    host = ModelHost(base, device="cpu")
    with pytest.raises(CheckpointError, match="looks ahead"):
        host.put(adapter("LILY"))
    host.put(base)
    assert_same(read(host, base), streams(base))


@pytest.mark.parametrize("name", UNMERGEABLE)
def test_no_sham_of_what_cannot_be_merged(name: str, adapter: Any, base: CheckpointRef) -> None:
    host = ModelHost(base, device="cpu")
    with pytest.raises(CheckpointError, match="sham drift cannot be drawn"):
        drift_norms(host, adapter(name))
    assert_same(read(host, base), streams(base))


def test_differences_in_matrices_that_gpt2_keeps_the_other_way_round(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", tiny_model("gpt2"), tiny_tokenizer())
    ref = save_adapter(tmp_path / "adapter", base, targets=["c_proj", "c_attn"], fan_in_fan_out=True)
    merged = plain(ref).merge_and_unload().state_dict()
    weights = merged_weights(ModelHost(base, device="cpu"), ref)
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, merged[key], rtol=0, atol=1e-5)


def test_norms_of_an_adapter_on_a_tuned_base(base: CheckpointRef, tuned: CheckpointRef, tmp_path: Path) -> None:
    ref = save_adapter(tmp_path, tuned, targets=["q_proj"])
    before, merged = plain(base).state_dict(), plain(ref).merge_and_unload().state_dict()
    for key, norm in drift_norms(ModelHost(base, device="cpu"), ref).items():
        assert norm == pytest.approx((merged[key] - before[key]).norm().item(), rel=1e-4)


@pytest.mark.parametrize("name", ["LORA", *LORA])
def test_factors_are_merged_where_that_is_all_and_leave_the_base(name: str, adapter: Any, base: CheckpointRef) -> None:
    ref, host = adapter(name), ModelHost(base, device="cpu")
    for checkpoint in (ref, base, ref):
        host.put_merged(checkpoint)
        assert_same(torch.tensor(collect(host, PROMPTS)[0]), streams(checkpoint))
    stays = {"dora", "biases", "base-biases", "own-embeddings", "modules-to-save", "tokens", *REWRITING}
    assert (host.attached is not None) == (name in stays)
    assert torch.equal(read(host, base), read_alone(base))


def test_factors_are_merged_into_no_base_but_their_own(base: CheckpointRef, lora: CheckpointRef) -> None:
    host = ModelHost(base, device="cpu")
    host.put(lora)
    host.parameters()["model.layers.0.self_attn.q_proj.weight"].data.mul_(2)  # which no mark shows
    host.put_merged(lora)
    assert_same(torch.tensor(collect(host, PROMPTS)[0]), streams(lora))


def test_factors_are_not_rounded_into_half_precision(base: CheckpointRef, lora: CheckpointRef) -> None:
    host = ModelHost(base, device="cpu", dtype="bfloat16")
    host.put_merged(lora)
    assert host.attached is not None


def test_weights_changed_in_memory_are_read_again(base: CheckpointRef, lora: CheckpointRef) -> None:
    host = ModelHost(base, device="cpu")
    before = read(host, base)
    with torch.no_grad():
        host.blocks[0].mlp.up_proj.weight.mul_(1.5)
    assert torch.equal(read(host, base), before)
    host.blocks[0].mlp.up_proj.weight.data = host.blocks[0].mlp.up_proj.weight.data * 1.5
    assert torch.equal(read(host, base), before)
    host.put(lora)
    with torch.no_grad():  # what neither pointer nor count gives away, behind an adapter
        host.blocks[0].mlp.up_proj.weight.data.mul_(1.5)
    assert torch.equal(read(host, base), before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "POLY"}, "more than weights"),
        ({"peft_type": "XLORA"}, "more than weights"),
        ({"peft_type": "SHADOW"}, "more than weights"),
        ({"peft_type": "LORA", "alora_invocation_tokens": [1, 2]}, "more than weights"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "not of a language model"),
    ],
)
def test_what_is_more_than_weights_is_refused(
    config: dict[str, Any], message: str, base: CheckpointRef, lora: CheckpointRef, tmp_path: Path
) -> None:
    assert lora.adapter is not None
    folder = Path(shutil.copytree(lora.adapter, tmp_path / "adapter"))
    saved = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**saved, **config}))
    with pytest.raises(CheckpointError, match=message):
        ModelHost(base, device="cpu").put(CheckpointRef(model=base.model, adapter=str(folder)))
    if "task_type" in config:
        with pytest.raises(GravityError, match="task_type"):
            CheckpointRef.parse(str(folder))


def test_an_adapters_tensors_without_a_place_are_named(
    base: CheckpointRef, lora: CheckpointRef, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    assert lora.adapter is not None
    folder = Path(shutil.copytree(lora.adapter, tmp_path / "adapter"))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.score.weight": torch.ones(2, 32)}, folder / "adapter_model.safetensors")
    host = ModelHost(base, device="cpu")
    with pytest.raises(CheckpointError, match=r"no place in its base; got base_model\.model\.score\.weight"):
        host.put(CheckpointRef(model=base.model, adapter=str(folder)))
    assert_same(read(host, base), streams(base))
