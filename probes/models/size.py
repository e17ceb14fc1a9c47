"""How large a model is, from its configuration alone: its numbers, and the operations that reading and answering take.

Parameters are counted on a model without memory (torch's `meta` device).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from probes.lineage import CheckpointRef

RANK = 16  # of LoRA, where nothing else is said


class ModelSize(BaseModel):
    """What of a model's configuration decides what it takes.

    Attributes:
        parameters: all of them.
        body: those that a token passes through before the unembedding.
        head: those of the unembedding.
        adapter: those of LoRA of rank 16 on every linear layer.
        largest: numbers of the largest tensor.
        layers: blocks.
        d_model: width of the residual stream.
        attention: width of all query heads of a block together.
        cache: numbers that a token leaves in the cache of keys and values, in all blocks.
        vocabulary: tokens.
        dtype: that the weights are stored in.
        itemsize: bytes of a stored number.
    """

    model_config = ConfigDict(frozen=True)

    parameters: int
    body: int
    head: int
    adapter: int
    largest: int
    layers: int
    d_model: int
    attention: int
    cache: int
    vocabulary: int
    dtype: str
    itemsize: int

    @classmethod
    def of(cls, ref: CheckpointRef) -> ModelSize:
        """From a configuration, in a folder or on the hub.

        Raises:
            CheckpointError: it cannot be reached or read.
        """
        import torch
        from transformers import AutoModelForCausalLM

        from probes.models.loading import load_config
        from probes.models.source import fetch_description

        config = load_config(fetch_description(ref.model, ref.revision))
        text = config.get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        dtype = getattr(config, "dtype", None) or torch.float32
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return cls(
            **_count(model),
            layers=int(text.num_hidden_layers),
            d_model=int(text.hidden_size),
            **_attention(text),
            vocabulary=int(text.vocab_size),
            dtype=str(dtype).removeprefix("torch."),
            itemsize=dtype.itemsize,
        )

    def body_flops(self, tokens: int | float, context: int | float) -> float:
        """Operations of so many tokens through the blocks, each of which looks at `context` tokens on average.

        Two for each weight, and for each token looked at two products over the width of the heads, in every block.
        """
        return float(tokens * (2 * self.body + 4 * self.layers * self.attention * context))

    def answer_flops(self, tokens: int | float, context: int | float) -> float:
        """As `body_flops`, through the unembedding too."""
        return self.body_flops(tokens, context) + 2 * self.head * tokens


def _count(model: Any) -> dict[str, int]:
    counts = [parameter.numel() for parameter in model.parameters()]
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    ends = embedding.numel() + (head.numel() if head is not embedding else 0)
    return {
        "parameters": sum(counts),
        "body": max(sum(counts) - ends, 1),
        "head": head.numel(),
        "adapter": RANK * sum(sum(shape) for shape in _linear_shapes(model)),
        "largest": max(counts),
    }


def _attention(text: Any) -> dict[str, int]:
    heads = int(text.num_attention_heads)
    width = getattr(text, "head_dim", None) or int(text.hidden_size) // heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    return {"attention": heads * width, "cache": 2 * int(text.num_hidden_layers) * shared * width}


def _linear_shapes(model: Any) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of what LoRA on every linear layer adapts: all of them but the unembedding."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            rows, columns = module.weight.shape
            yield rows, columns
