"""Vocabularies and layouts as people have them: read as transformers reads them, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.activations import collect
from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.hooks import add
from probes.models.learned import learned_nothing, next_token_loss
from probes.models.view import ModelView, view_of
from probes.models.weight_space import drift_norms, merged_weights
from tests.builders import (
    DEPTH,
    FAMILIES,
    VOCABULARY,
    WIDTH,
    move_weights,
    save_checkpoint,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = [[5, 60, 7, 100, 33, 200, 9], [4, 8, 15, 16]]
TOKENS = torch.tensor(PROMPTS[:1])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(TOKENS).logits


def hidden(model: Any) -> torch.Tensor:
    """What leaves the blocks but the last, of the first prompt's last token: [layer, d_model], by transformers."""
    with torch.inference_mode():
        states = model(TOKENS, output_hidden_states=True).hidden_states
    return torch.stack([state[0, -1] for state in states[1:-1]])


def read(host: ModelHost, ref: CheckpointRef) -> torch.Tensor:
    host.put(ref)
    return torch.tensor(collect(host, PROMPTS[:1])[0])[:-1, 0]


def load_plain(ref: CheckpointRef) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(ref.model).eval()


def rename_tensors(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(
        {change(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture(scope="module")
def aligned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "aligned", tiny_model(), tiny_tokenizer())


@pytest.fixture(scope="module")
def tuned(place: Path) -> CheckpointRef:
    return save_checkpoint(place / "tuned", move_weights(tiny_model()))


class TestVocabulary:
    @pytest.mark.parametrize("rows", [VOCABULARY + 2, VOCABULARY + 48, VOCABULARY - 8])
    @pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
    @pytest.mark.parametrize("family", ["llama", "mixtral"])
    def test_of_another_size_is_compared_on_the_shared_rows(
        self, rows: int, tied: bool, family: str, tmp_path: Path
    ) -> None:
        start = save_checkpoint(tmp_path / "a", tiny_model(family, tie_word_embeddings=tied), tiny_tokenizer())
        model = move_weights(tiny_model(family, tie_word_embeddings=tied))
        model.resize_token_embeddings(rows, mean_resizing=False)
        extra = tiny_tokenizer()
        extra.add_tokens(["<|turn|>"])
        later = save_checkpoint(tmp_path / "b", model)
        host = ModelHost(start, device="cpu")
        before = read(host, start)
        assert torch.allclose(read(host, later), hidden(load_plain(later)), rtol=0, atol=1e-5)
        shared = min(rows, VOCABULARY)
        assert torch.allclose(
            logits(host.model)[..., :shared], logits(load_plain(later))[..., :shared], rtol=0, atol=1e-5
        )
        assert f"has {rows} rows in its vocabulary, the aligned model {VOCABULARY}" in host.notices[0]
        assert torch.equal(read(host, start), before)
        norms = drift_norms(host, later)
        embedding = "model.embed_tokens.weight"
        mine, theirs = load_plain(start).state_dict()[embedding], load_plain(later).state_dict()[embedding]
        assert norms[embedding] == pytest.approx((theirs[:shared] - mine[:shared]).norm().item(), rel=1e-4)

    def test_added_tokens_are_listed(self, aligned: CheckpointRef, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([f"<{number}>" for number in range(VOCABULARY + 2 - len(tokenizer))])
        model = move_weights(tiny_model())
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        host = ModelHost(aligned, device="cpu")
        host.put(save_checkpoint(tmp_path, model, tokenizer))
        last = VOCABULARY + 1 - len(tiny_tokenizer())
        assert f"<{last}>" in host.notices[0]
        assert f"<{last - 2}>" not in host.notices[0]

    def test_smaller_than_the_tokenizers_is_refused(self, aligned: CheckpointRef, tmp_path: Path) -> None:
        host = ModelHost(aligned, device="cpu")
        with pytest.raises(CheckpointError, match="smaller than the tokenizer's; got 100"):
            host.put(save_checkpoint(tmp_path, tiny_model(vocab_size=100)))
        host.put(aligned)
        assert torch.equal(logits(host.model), logits(load_plain(aligned)))

    @pytest.mark.parametrize("more", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["saved", "trained"])
    @pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
    def test_an_adapter_with_resized_embeddings(self, more: dict[str, Any], tied: bool, tmp_path: Path) -> None:
        from peft import LoraConfig, PeftModel, get_peft_model

        base = save_checkpoint(tmp_path / "a", tiny_model(tie_word_embeddings=tied), tiny_tokenizer())
        model = load_plain(base)
        model.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[5] += 0.3
        wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], **more))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(
                        0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                    )
        wrapped.save_pretrained(tmp_path / "b")
        ref = CheckpointRef(model=base.model, adapter=str(tmp_path / "b"))
        own = load_plain(base)
        own.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)
        peft = PeftModel.from_pretrained(own, ref.adapter).eval()
        expected = hidden(peft)
        host = ModelHost(base, device="cpu")
        before = {name: tensor.clone() for name, tensor in host.model.state_dict().items()}
        assert torch.allclose(read(host, ref), expected, rtol=0, atol=1e-5)
        host.put(base)
        assert host.config.vocab_size == VOCABULARY
        assert {name: tuple(weight.shape) for name, weight in host.model.state_dict().items()} == {
            name: tuple(weight.shape) for name, weight in before.items()
        }
        assert all(torch.equal(tensor, before[name]) for name, tensor in host.model.state_dict().items())
        merged = peft.merge_and_unload().state_dict()
        for name, tensor in merged_weights(host, ref).items():
            torch.testing.assert_close(tensor, merged[name][: len(tensor)], rtol=0, atol=1e-5)


class TestNames:
    @pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
    @pytest.mark.parametrize("role", ["later", "aligned"])
    def test_names_as_inside_a_wrapper_are_read(
        self, prefix: str, role: str, aligned: CheckpointRef, tuned: CheckpointRef, tmp_path: Path
    ) -> None:
        source = tuned if role == "later" else aligned
        folder = Path(shutil.copytree(source.model, tmp_path / "wrapped"))
        rename_tensors(folder, lambda name: prefix + name)
        ref = CheckpointRef(model=str(folder))
        host = ModelHost(ref if role == "aligned" else aligned, device="cpu")
        host.put(ref)
        assert torch.equal(logits(host.model), logits(load_plain(source)))
        host.put(tuned)
        assert torch.equal(logits(host.model), logits(load_plain(tuned)))

    @pytest.mark.parametrize("role", ["later", "aligned"])
    @pytest.mark.parametrize("family", ["llama", "mixtral"])
    def test_weights_without_a_place_are_named(self, role: str, family: str, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        start = save_checkpoint(tmp_path / "a", tiny_model(family), tiny_tokenizer())
        later = save_checkpoint(tmp_path / "b", move_weights(tiny_model(family)))
        file = Path((later if role == "later" else start).model) / "model.safetensors"
        save_file({**load_file(file), "score.weight": torch.ones(2, WIDTH)}, file, {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"no place in \w+; got score\.weight"):
            ModelHost(start, device="cpu").put(later)

    def test_old_buffers_that_no_version_reads_are_passed_over(self, aligned: CheckpointRef, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        folder = Path(shutil.copytree(aligned.model, tmp_path / "old"))
        file = folder / "model.safetensors"
        old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        save_file({**load_file(file), **old}, file, {"format": "pt"})
        host = ModelHost(CheckpointRef(model=str(folder)), device="cpu")
        assert torch.equal(logits(host.model), logits(load_plain(aligned)))


class TestFolders:
    @pytest.mark.parametrize(
        ("leave", "framework", "command"),
        [
            (["zero_to_fp32.py", "global_step10/x.pt"], "DeepSpeed", "zero_to_fp32.py"),
            (["pytorch_model_fsdp_0/__0_0.distcp"], "FSDP", "accelerate merge-weights"),
        ],
    )
    def test_shards_of_trainers_are_named_with_what_converts_them(
        self,
        leave: list[str],
        framework: str,
        command: str,
        aligned: CheckpointRef,
        tuned: CheckpointRef,
        tmp_path: Path,
    ) -> None:
        folder = Path(shutil.copytree(tuned.model, tmp_path / "checkpoint-5"))
        (folder / "model.safetensors").unlink()
        for name in leave:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("")
        from probes.lineage import Trajectory

        ref = Trajectory.from_folder(tmp_path).checkpoints[0]
        with pytest.raises(CheckpointError, match=f"the shards of {framework}.*{command}"):
            ModelHost(aligned, device="cpu").put(ref)


class TestWrappers:
    def wrapper(self, kind: str, seed: int = 0) -> Any:
        from transformers import AutoConfig, AutoModelForImageTextToText

        text = tiny_config("qwen2" if kind.startswith("qwen") else "llama").to_dict()
        if kind == "qwen2_5_vl":
            text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
            text.pop("model_type")
            vision: dict[str, Any] = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16}
            vision |= {"out_hidden_size": WIDTH, "fullatt_block_indexes": [0]}
        else:
            if kind == "mistral3":
                text = {**text, "model_type": "mistral", "head_dim": 8}
            vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
            vision |= {"image_size": 28, "patch_size": 14}
            vision["model_type"] = "pixtral" if kind == "mistral3" else "clip_vision_model"
        torch.manual_seed(seed)
        return AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(kind, text_config=text, vision_config=vision)
        ).eval()

    @pytest.mark.parametrize("kind", ["llava", "mistral3", "qwen2_5_vl"])
    def test_the_language_model_inside_is_read(self, kind: str, tmp_path: Path) -> None:
        model = self.wrapper(kind)
        start = save_checkpoint(tmp_path / "a", model, tiny_tokenizer())
        first = hidden(model)
        later_model = move_weights(model)
        later = save_checkpoint(tmp_path / "b", later_model)
        host = ModelHost(start, device="cpu")
        assert host.n_layers == DEPTH
        assert torch.allclose(read(host, start), first, rtol=0, atol=1e-5)
        assert torch.allclose(read(host, later), hidden(later_model), rtol=0, atol=1e-5)
        assert not torch.allclose(read(host, later), first, atol=1e-3)
        before = logits(host.model)
        with add(view_of(later_model), [1], np.ones((1, WIDTH))), torch.inference_mode():
            assert not torch.allclose(later_model(TOKENS).logits, before, atol=1e-3)
        assert torch.equal(logits(later_model), before)


class TestGguf:
    def test_a_file_is_read_by_transformers_own_reader(self, tmp_path: Path) -> None:
        import gguf

        model = tiny_model(tie_word_embeddings=False)
        start = save_checkpoint(tmp_path / "a", model, tiny_tokenizer())
        later = move_weights(tiny_model(tie_word_embeddings=False))
        file = write_gguf(tmp_path / "later.gguf", later, gguf)
        ref = CheckpointRef.parse(str(file))
        host = ModelHost(start, device="cpu")
        assert torch.allclose(read(host, ref), hidden(later), rtol=0, atol=1e-5)
        assert len(host.weights_sha256(ref)) == 64
        host.put(start)
        assert torch.equal(logits(host.model), logits(model))


def write_gguf(path: Path, model: Any, gguf: Any) -> Path:
    """A llama in llama.cpp's file: other names, and the rows of queries and keys in pairs, as its converter does it."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(config.vocab_size)])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for part, count in heads.items():
            if part in name:
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class TestLearned:
    def test_a_model_that_has_learned_nothing_is_said(self, aligned: CheckpointRef) -> None:
        host = ModelHost(aligned, device="cpu")
        sentence = learned_nothing(host, PROMPTS)
        assert sentence is not None
        assert "no better than guessing" in sentence
        assert f"among {VOCABULARY} tokens" in sentence

    def test_a_model_that_has_learned_them_is_not(self) -> None:
        model = tiny_model().train().requires_grad_(True)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            loss = model(TOKENS, labels=TOKENS).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        view = ModelView(model.eval())
        assert learned_nothing(view, PROMPTS[:1]) is None
        with torch.no_grad():
            expected = model(TOKENS, labels=TOKENS).loss.item()
        assert next_token_loss(view, PROMPTS[:1]) == pytest.approx(expected, rel=1e-3)

    def test_padding_does_not_count(self, aligned: CheckpointRef) -> None:
        host = ModelHost(aligned, device="cpu")
        alone = [next_token_loss(host, [ids]) for ids in PROMPTS]
        weights = [len(ids) - 1 for ids in PROMPTS]
        assert next_token_loss(host, PROMPTS) == pytest.approx(np.average(alone, weights=weights), rel=1e-5)


# What an architecture has beside the usual: windows, kinds of layers, multipliers, caps.
CHANGES: dict[tuple[str, str], Any] = {
    ("mistral", "sliding_window"): 4,
    ("gemma2", "sliding_window"): 4,
    ("gemma2", "layer_types"): ["full_attention", "sliding_attention", "full_attention"],
    ("gemma2", "final_logit_softcapping"): 90.0,
    ("granite", "embedding_multiplier"): 3.5,
    ("granite", "residual_multiplier"): 3.5,
    ("olmo", "clip_qkv"): 0.5,
    ("starcoder2", "norm_epsilon"): 0.5,
    ("gpt2", "scale_attn_by_inverse_layer_idx"): True,
}


@pytest.mark.parametrize(("family", "field"), CHANGES)
def test_a_checkpoint_that_computes_otherwise_is_no_other_one_and_is_refused(tmp_path, monkeypatch, family, field):
    shapes = FAMILIES.get(family, FAMILIES["llama"])[1]
    monkeypatch.setitem(FAMILIES, family, (family, shapes))
    model = tiny_model(family)
    aligned = save_checkpoint(tmp_path / "aligned", model, tiny_tokenizer())
    shutil.copytree(tmp_path / "aligned", tmp_path / "tuned")
    tuned = CheckpointRef(model=str(tmp_path / "tuned"))
    config = tmp_path / "tuned" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), field: CHANGES[family, field]}))
    ids = torch.tensor([[5, 60, 7, 100, 33, 200, 9] * 3])
    with torch.inference_mode():
        assert not torch.equal(load_plain(aligned)(ids).logits, load_plain(tuned)(ids).logits)
    host = ModelHost(aligned, device="cpu")
    assert host.weights_sha256(aligned) != host.weights_sha256(tuned)
    with pytest.raises(CheckpointError, match=f"The {field} of .* differs"):
        host.put(tuned)


def test_what_changes_no_number_may_differ(tmp_path):
    aligned = save_checkpoint(tmp_path / "aligned", tiny_model(), tiny_tokenizer())
    shutil.copytree(tmp_path / "aligned", tmp_path / "tuned")
    config = tmp_path / "tuned" / "config.json"
    changes = {"use_cache": False, "max_position_embeddings": 128, "attention_dropout": 0.1, "unsloth_fixed": True}
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes, "pad_token_id": 5}))
    tuned, host = CheckpointRef(model=str(tmp_path / "tuned")), ModelHost(aligned, device="cpu")
    assert host.weights_sha256(aligned) == host.weights_sha256(tuned)
    assert torch.equal(read(host, aligned), read(host, tuned))
