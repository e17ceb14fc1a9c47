"""Token ids of unequal length as one batch, padded by ourselves, so that no tokenizer's padding side matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_tokens(
    token_ids: Sequence[Sequence[int]],
    device: torch.device,
    *,
    side: Literal["left", "right"] = "right",
    fill: int = 0,
) -> tuple[Int[Tensor, "prompt token"], Int[Tensor, "prompt token"]]:
    """Token ids and the mask that leaves the padding out (1 is a token, 0 is padding).

    Padding on the right needs no mask under a causal model, on the left it needs mask and `positions`: without
    positions, models with absolute ones answer another question than the one that was asked.
    """
    rows = [torch.tensor(list(ids), dtype=torch.long) for ids in token_ids]
    ids = pad_sequence(rows, batch_first=True, padding_value=fill, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)


def positions(mask: Int[Tensor, "prompt token"]) -> Int[Tensor, "prompt token"]:
    """Position of each token counted from its prompt's own first one; 0 in padding on the left."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
