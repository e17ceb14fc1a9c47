"""Vocabularies of several sizes in one module: the rows that two checkpoints share are compared, the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from probes.errors import CheckpointError


def vocabulary_size(config: Any) -> int:
    """Rows in the vocabulary of a model with this configuration."""
    return int(config.get_text_config().vocab_size)


def vocabulary_of(model: Any) -> tuple[str, ...]:
    """Names of the tensors with a row for each token: the embedding, and what turns the stream into logits."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    weights = [id(end.weight) for end in ends if end is not None]
    tensors = model.state_dict(keep_vars=True)
    return tuple(name for name, tensor in tensors.items() if id(tensor) in weights)


def pair_rows(held: torch.Tensor, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A tensor of the module and a file's; of vocabularies of two sizes, the rows that both have."""
    if held.shape == tensor.shape:
        return held, tensor
    rows = min(held.shape[0], tensor.shape[0])
    return held[:rows], tensor[:rows]


def resize_vocabulary(model: Any, rows: int) -> None:
    """Give a model's vocabulary so many rows, new ones filled with zeros."""
    if model.get_input_embeddings().weight.shape[0] == rows:
        return
    held = vocabulary_size(model.config)
    model.resize_token_embeddings(rows, mean_resizing=False)
    for end in (model.get_input_embeddings(), model.get_output_embeddings()):
        end.weight.data[held:].zero_()


def check_vocabulary(rows: int, tokenizer: Any, name: str) -> None:
    """Refuse a vocabulary that the tokenizer's ids would leave.

    Raises:
        CheckpointError: it has fewer rows than the tokenizer has tokens.
    """
    if rows < len(tokenizer):
        raise CheckpointError(
            f"The vocabulary of {name} is smaller than the tokenizer's", got=rows, expected=len(tokenizer)
        )


def check_same_vocabulary(rows: int, own: int, name: str) -> None:
    """Refuse a vocabulary of another size, for a model whose rows cannot be filled up.

    Raises:
        CheckpointError: it has another number of rows than the aligned model's.
    """
    if rows != own:
        raise CheckpointError(
            f"The vocabulary of {name} is of another size, which only a whole model on its devices can take in",
            got=rows,
            expected=own,
            next_step="Measure without --quantize, and with all of the model on accelerators.",
        )


def describe_vocabulary(rows: int, own: int, added: Sequence[str], name: str) -> str:
    """In a sentence: how many rows a checkpoint has beside the aligned model's, and which tokens lie behind them."""
    listed = f" Its tokens behind them: {', '.join(added)}." if added else ""
    return (
        f"{name} has {rows} rows in its vocabulary, the aligned model {own}: the first {min(rows, own)} are "
        f"compared.{listed}"
    )
