"""Where an architecture keeps its blocks and its embedding, and those parts of a model in memory.

Transformer-lens knows the places; Hugging Face's own body runs the forward pass, so that nothing is slowed by
the eager attention that reading inside a block would need.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from probes.errors import CheckpointError


@dataclass(frozen=True)
class Places:
    """Where the parts lie.

    Attributes:
        blocks: dotted path, inside the causal language model, of the list of blocks.
        embedding: of the token embedding.
        final_norm: of the norm between the last block and the unembedding.
        writers: inside a block, what is added to the residual stream: attention and MLP, or the norms behind them.
        body: of the transformer without the unembedding; None is the model's own `base_model`.
    """

    blocks: str
    embedding: str
    final_norm: str
    writers: tuple[str, ...]
    body: str | None = None


# Importing transformer-lens brings in half a data-science stack, which takes longer than measuring a small model.
# So its answer for the families met most is written down here; a test holds each line equal to what it says.
_LLAMA_LIKE = Places("model.layers", "model.embed_tokens", "model.norm", ("self_attn", "mlp"))
_NORMS_BEHIND = replace(_LLAMA_LIKE, writers=("post_attention_layernorm", "post_feedforward_layernorm"))
KNOWN: dict[str, Places] = {
    "GPT2LMHeadModel": Places("transformer.h", "transformer.wte", "transformer.ln_f", ("attn", "mlp")),
    "GPTNeoXForCausalLM": Places(
        "gpt_neox.layers", "gpt_neox.embed_in", "gpt_neox.final_layer_norm", ("attention", "mlp")
    ),
    "Gemma2ForCausalLM": _NORMS_BEHIND,
    "Olmo2ForCausalLM": _NORMS_BEHIND,
    **dict.fromkeys(
        [
            "GemmaForCausalLM",
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "Phi3ForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3ForCausalLM",
        ],
        _LLAMA_LIKE,
    ),
}

# Wrappers that also see: the language model inside them is read.
_INSIDE = "model.language_model"
WRAPPERS: dict[str, Places] = dict.fromkeys(
    [
        "LlavaForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
    ],
    Places(f"{_INSIDE}.layers", f"{_INSIDE}.embed_tokens", f"{_INSIDE}.norm", ("self_attn", "mlp"), _INSIDE),
)


def find_places(architecture: str, config: Any) -> Places:
    """Places of an architecture, named by its Hugging Face class.

    Raises:
        CheckpointError: transformer-lens does not know the architecture.
    """
    return KNOWN.get(architecture) or WRAPPERS.get(architecture) or ask_transformer_lens(architecture, config)


def ask_transformer_lens(architecture: str, config: Any) -> Places:
    """Places as transformer-lens's architecture adapter maps them; see `find_places`."""
    # Imported here because it takes several seconds, which the written-down families need not wait for.
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources import build_bridge_config_from_hf

    try:
        bridge_config = build_bridge_config_from_hf(config, architecture, architecture, torch.float32)
        mapping = ArchitectureAdapterFactory.select_architecture_adapter(bridge_config).component_mapping
    except ValueError as error:
        raise CheckpointError(
            f"The architecture {architecture} is not supported",
            got=str(error),
            next_step="Take a model whose architecture transformer-lens has an adapter for.",
        ) from error
    mapping = mapping or {}
    blocks, embed, norm = (_name(mapping, part) for part in ("blocks", "embed", "ln_final"))
    if not (blocks and embed and norm):
        raise CheckpointError(
            f"The architecture {architecture} is not supported",
            got=f"the parts {sorted(mapping)}",
            expected="one list of blocks, one token embedding and one final norm",
        )
    parts = getattr(mapping["blocks"], "submodules", {})
    writers = (_name(parts, "ln1_post") or _name(parts, "attn"), _name(parts, "ln2_post") or _name(parts, "mlp"))
    return Places(blocks, embed, norm, tuple(name for name in writers if name))


def _name(parts: Mapping[str, Any], part: str) -> str | None:
    """Where transformer-lens says that a part lies."""
    return getattr(parts.get(part), "name", None)


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at a dotted path.

    Raises:
        CheckpointError: there is none.
    """
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(f"{type(model).__name__} has no module {path}", got=str(error)) from error


def first_tensor(output: Any) -> torch.Tensor:
    """The residual stream in a block's output, which is a tensor or a tuple that starts with one."""
    return output[0] if isinstance(output, tuple) else output


def entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The residual stream among a block's arguments."""
    return args[0] if args else kwargs["hidden_states"]


def accepts(body: nn.Module, argument: str) -> bool:
    """Whether the body's forward pass takes `argument` by name."""
    return argument in inspect.signature(body.forward).parameters


def logits_of_last(model: nn.Module, count: int) -> dict[str, int]:
    """The argument by which a model makes logits of the last `count` tokens alone; none where it always makes all."""
    return {"logits_to_keep": count} if accepts(model, "logits_to_keep") else {}


class ModelParts:
    """The parts of a causal language model of transformers, in memory, by what they are to the residual stream.

    Attributes:
        model: the Hugging Face model, outside of data parallelism, torch.compile and peft.
        config: its configuration.
        device: where its weights are.
        n_layers: its blocks.
        d_model: the width of the stream.
    """

    model: Any
    config: Any
    device: torch.device
    n_layers: int
    d_model: int

    def _find_parts(self) -> None:
        text = self.config.get_text_config()
        self.n_layers, self.d_model = int(text.num_hidden_layers), int(text.hidden_size)
        self._places = find_places(type(self.model).__name__, self.config)

    @property
    def body(self) -> nn.Module:
        """The transformer without the unembedding."""
        return self.model.base_model if self._places.body is None else submodule(self.model, self._places.body)

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks in order; what leaves block l is `resid_post` of layer l."""
        blocks = submodule(self.model, self._places.blocks)
        return list(blocks.children())

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        return submodule(self.model, self._places.embedding)

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the unembedding."""
        return submodule(self.model, self._places.final_norm)

    def writers(self, layer: int) -> list[nn.Module]:
        """What a block adds to the residual stream: attention and MLP, or the norms behind them."""
        return [submodule(self.blocks[layer], name) for name in self._places.writers]
