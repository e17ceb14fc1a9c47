"""Which tokens a direction writes: through the final norm and the unembedding, at either sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from probes.errors import CheckpointError
from probes.models.view import ModelView

_ROWS = 64  # directions whose logits are in memory at once


@dataclass(frozen=True)
class Token:
    """One token that a direction raises.

    Attributes:
        sign: 1 for the direction itself, −1 for its opposite.
        rank: from 1.
        text: the token, as the tokenizer writes it.
        score: its logit less the mean over the vocabulary.
    """

    sign: int
    rank: int
    text: str
    score: float


@torch.no_grad()
def readout(host: ModelView, vectors: Float[np.ndarray, "direction d_model"], *, top: int = 10) -> list[list[Token]]:
    """The tokens that each direction raises most, and those that its opposite does (the logit lens, at a direction).

    The direction goes through the final norm as a residual stream would (its length is then that of the norm's own
    scale), and through the unembedding. What biases of the two write without any stream is taken off, and so is the
    mean logit, since it changes no probability. What is left turns its sign with the direction, as every norm does.

    Args:
        host: holds the checkpoint.
        vectors: of any length but 0.
        top: how many tokens at either sign.

    Raises:
        CheckpointError: the model has no unembedding.
    """
    unembedding = host.model.get_output_embeddings()
    if unembedding is None:
        raise CheckpointError("The model has no unembedding, so no direction can be read out")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = torch.tensor(unit * np.sqrt(host.d_model), dtype=host.model.dtype, device=host.device)
    bias = unembedding(host.final_norm(torch.zeros_like(rows[:1]))).float()
    tokens: list[list[Token]] = []
    for part in rows.split(_ROWS):
        logits = unembedding(host.final_norm(part)).float() - bias
        logits -= logits.mean(dim=1, keepdim=True)
        best = [_best(sign * logits, top) for sign in (1, -1)]
        tokens += [
            [
                token
                for sign, (scores, ids) in zip((1, -1), best, strict=True)
                for token in _tokens(host, sign, ids[row], scores[row])
            ]
            for row in range(len(part))
        ]
    return tokens


def _best(logits: torch.Tensor, top: int) -> tuple[list[list[float]], list[list[int]]]:
    """Of each row, the highest logits, and whose they are."""
    scores, ids = logits.topk(min(top, logits.shape[1]), dim=1)
    return scores.tolist(), ids.tolist()


def _tokens(host: ModelView, sign: int, ids: Sequence[int], scores: Sequence[float]) -> list[Token]:
    texts = [host.tokenizer.decode([token]) for token in ids]
    return [
        Token(sign, rank, text, value) for rank, (text, value) in enumerate(zip(texts, scores, strict=True), start=1)
    ]
