"""A Hugging Face causal language model in memory, seen as a residual stream: its blocks, its norms, its embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from probes.models.architecture import check_structure, find_places, submodule


class ModelView:
    """Any causal language model of transformers, whoever loaded it; nothing of it is changed.

    Attributes:
        model: the Hugging Face model, outside of data parallelism, torch.compile and peft.
        config: its configuration.
        tokenizer: its tokenizer; None where it is not known.
        device: where its weights are.
        prefix_tried: what `models.prefix` learned of this model; empty where it was not asked yet.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        """Find the parts of `model` and check that its structure is one we can read.

        Raises:
            CheckpointError: its architecture is not supported.
        """
        self.model: Any = unwrap(model)
        self.config: Any = self.model.config
        self.tokenizer: Any = tokenizer
        self.device: torch.device = next(self.model.parameters()).device
        self._locate()

    def _locate(self) -> None:
        text = self.config.get_text_config()
        self.n_layers, self.d_model = int(text.num_hidden_layers), int(text.hidden_size)
        self.context_length: int | None = getattr(text, "max_position_embeddings", None)
        self._places = find_places(type(self.model).__name__, self.config)
        check_structure(self.body, self.blocks, self.n_layers, self.d_model)
        self.prefix_tried: list[str | None] = []

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

    @property
    def about(self) -> dict[str, Any]:
        """Architecture, model type, depth, width, vocabulary and precision, for a run's manifest."""
        return {
            "architecture": type(self.model).__name__,
            "model_type": self.config.model_type,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "vocabulary": int(self.config.get_text_config().vocab_size),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def unwrap(model: nn.Module) -> Any:
    """The Hugging Face model inside data parallelism, torch.compile and peft."""
    inner: Any = model.module if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) else model
    inner = getattr(inner, "_orig_mod", inner)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def view_of(model: ModelView | nn.Module) -> ModelView:
    """A model as it is seen here, whether it is seen already or not."""
    return model if isinstance(model, ModelView) else ModelView(model)
