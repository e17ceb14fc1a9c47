"""Where an architecture keeps its blocks and its embedding, and whether a loaded model keeps to it.

Transformer-lens knows the places; Hugging Face's own body runs the forward pass, so that nothing is slowed by
the eager attention that reading inside a block would need. When a model loads, it is held against what we
assume of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from probes.errors import CheckpointError

_PROBE_TOKENS = 5


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


def check_structure(body: nn.Module, blocks: list[nn.Module], n_layers: int, d_model: int) -> None:
    """Run five tokens and hold the model against what the measurement assumes.

    Checked: as many blocks as the configuration says, each called once and in order; the stream is `d_model`
    wide; what leaves block l is what enters block l + 1, so that the difference over a block is what that block
    added; a later token changes no earlier one, so that padding on the right is harmless. (`hidden_states` are not
    asked for: transformers then leaves hooks of its own on every block.)

    Raises:
        CheckpointError: one of these does not hold.
    """
    if len(blocks) != n_layers:
        raise CheckpointError("The model has another depth than configured", got=len(blocks), expected=n_layers)
    device = next(body.parameters()).device
    tokens = torch.arange(_PROBE_TOKENS, device=device)[None]
    entered, left = _streams(body, blocks, tokens)
    shape = (1, _PROBE_TOKENS, d_model)
    odd = [tuple(stream.shape) for stream in (*entered, *left) if tuple(stream.shape) != shape]
    if odd:
        raise _unsupported_error(f"a residual stream [prompt, position, {d_model}]", f"the shape {odd[0]}")
    for layer in range(n_layers - 1):
        if not _same(left[layer], entered[layer + 1]):
            raise _unsupported_error("each block's output to enter the next", f"another tensor after block {layer}")
    changed = tokens.clone()
    changed[0, -1] += 1
    again = _streams(body, blocks, changed)[1][-1]
    if not torch.allclose(again[:, :-1], left[-1][:, :-1], rtol=1e-2, atol=1e-3, equal_nan=True):
        raise _unsupported_error("a later token to change no earlier one", "a model that looks ahead")


def _streams(
    body: nn.Module, blocks: list[nn.Module], tokens: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What enters and what leaves each block, in the order of `blocks`."""
    entered: list[list[torch.Tensor]] = [[] for _ in blocks]
    left: list[list[torch.Tensor]] = [[] for _ in blocks]

    def before(layer: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[layer].append(entering(args, kwargs))

    def after(layer: int, *call: Any) -> None:
        left[layer].append(first_tensor(call[-1]))

    hooks = []
    try:
        for layer, block in enumerate(blocks):
            hooks.append(block.register_forward_pre_hook(partial(before, layer), with_kwargs=True))
            hooks.append(block.register_forward_hook(partial(after, layer)))
        with torch.inference_mode():
            body(input_ids=tokens, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    calls = [len(tensors) for tensors in left]
    if calls != [1] * len(blocks):
        raise _unsupported_error("every block to be called once", f"calls {calls}")
    return [tensors[0] for tensors in entered], [tensors[0] for tensors in left]


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))


def _unsupported_error(expected: str, fault: str) -> CheckpointError:
    return CheckpointError(
        "The model is built in a way that is not supported",
        got=fault,
        expected=expected,
        next_step="Activations of it would be named wrongly, so none are taken.",
    )
