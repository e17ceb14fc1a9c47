"""A Hugging Face causal language model in memory, seen as a residual stream: its blocks, its norms, its embedding."""

from __future__ import annotations

from typing import Any

from torch import nn

from probes.models.architecture import ModelParts
from probes.models.devices import input_device
from probes.models.loading import context_length
from probes.models.structure import check_structure


class ModelView(ModelParts):
    """Any causal language model of transformers, whoever loaded it; nothing of it is changed.

    Attributes:
        tokenizer: its tokenizer; None where it is not known.
        prefix_tried: what `models.prefix` learned of this model; empty where it was not asked yet.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        """Find the parts of `model` and check that its structure is one we can read.

        Raises:
            CheckpointError: its architecture is not supported.
        """
        self.model = unwrap(model)
        self.config = self.model.config
        self.tokenizer: Any = tokenizer
        self.device = input_device(self.model)
        self._locate()

    def _locate(self) -> None:
        self._find_parts()
        self.context_length = context_length(self.config)
        check_structure(self.body, self.blocks, self.n_layers, self.d_model)
        self.prefix_tried: list[str | None] = []

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
