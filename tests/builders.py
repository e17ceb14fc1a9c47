"""Tiny real models of every family we promise, with a tokenizer, saved as ordinary Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from probes.lineage import CheckpointRef

VOCABULARY = 272
CONTEXT = 64
WIDTH = 32
DEPTH = 3
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
}
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
# family: model type, and what its configuration needs to be tiny
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "gpt2": (
        "gpt2",
        {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": 4, "n_positions": CONTEXT, "initializer_range": 0.15},
    ),
    "neox": (
        "gpt_neox",
        {**{name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}, "rotary_pct": 0.25},
    ),
    "qwen2": ("qwen2", _LLAMA),
    "gemma2": ("gemma2", {**_LLAMA, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}),
    "mixtral": ("mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


def tiny_config(family: str = "llama", **changes: Any) -> Any:
    """Configuration of a tiny model of `family`; `changes` are fields of that configuration."""
    from transformers import AutoConfig

    model_type, fields = FAMILIES[family]
    return AutoConfig.for_model(model_type, **{"vocab_size": VOCABULARY, **_SPECIAL, **fields, **changes})


def tiny_model(family: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A tiny random model in float32; norms and biases are random too, so that leaving one out shows."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def move_weights(model: Any, *, seed: int = 1, scale: float = 0.05) -> Any:
    """The same model a short way off, in place: each parameter gets noise of `scale` times its own size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * scale * parameter.std().clamp_min(1e-3))
    return model


def tiny_tokenizer(*, padding_side: str = "right", shuffled: bool = False, **more: Any) -> Any:
    """A tokenizer of single bytes with a chat template; `shuffled` gives every byte another id."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if shuffled:
        letters.reverse()
    names = ["<s>", "</s>", "<pad>", *letters]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
        chat_template=CHAT_TEMPLATE,
        **more,
    )


def save_checkpoint(
    folder: Path, model: Any, tokenizer: Any | None = None, *, shard_size: str | None = None
) -> CheckpointRef:
    """Save as a Hugging Face folder (in shards of `shard_size`, such as `20KB`) and refer to it."""
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return CheckpointRef(model=str(folder))


def save_adapter(
    folder: Path, base: CheckpointRef, *, seed: int = 0, targets: list[str], **config: Any
) -> CheckpointRef:
    """Save a LoRA adapter with random factors (peft starts with zero ones) on the model at `base`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base.model)
        model = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": targets, **config}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name or "lora_embedding_A" in name or "modules_to_save" in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return CheckpointRef(model=base.model, adapter=str(folder))


def save_fine_tunes(home: Path, scale: float) -> None:
    """An `aligned` model, a full fine-tune of it that moves its weights so far (`tuned`), and an `adapter` on it."""
    model = tiny_model()
    aligned = save_checkpoint(home / "aligned", model, tiny_tokenizer())
    save_checkpoint(home / "tuned", move_weights(model, seed=2, scale=scale), tiny_tokenizer())
    save_adapter(home / "adapter", aligned, targets=["q_proj", "up_proj"])
