"""Whether a model has learned anything at all: how well it foresees the next token of given prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from probes.errors import ActivationError
from probes.models.architecture import accepts
from probes.models.padding import pad_tokens, positions
from probes.models.view import ModelView

_BATCH_SIZE = 8


def next_token_loss(model: ModelView, token_ids: Sequence[Sequence[int]]) -> float:
    """Mean cross-entropy, in nats, of each token of the prompts but the first, given those before it.

    Args:
        model: holds the checkpoint.
        token_ids: prompts; those of one token are passed over.

    Raises:
        ActivationError: no prompt has two tokens.
    """
    prompts = [ids for ids in token_ids if len(ids) > 1]
    if not prompts:
        raise ActivationError("No prompt has a next token", got=f"{len(token_ids)} prompts", expected="two tokens each")
    total, count = 0.0, 0
    for first in range(0, len(prompts), _BATCH_SIZE):
        ids, mask = pad_tokens(prompts[first : first + _BATCH_SIZE], model.device)
        places = {"position_ids": positions(mask)} if accepts(model.model, "position_ids") else {}
        with torch.inference_mode():
            logits = model.model(input_ids=ids, attention_mask=mask, use_cache=False, **places).logits
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")
        total += float((losses * mask[:, 1:]).double().sum())
        count += int(mask[:, 1:].sum())
    return total / count


def learned_nothing(model: ModelView, token_ids: Sequence[Sequence[int]]) -> str | None:
    """A sentence where the model foresees the prompts' tokens no better than a uniform guess; else None.

    The guess among V tokens costs ln V nats a token. Raises as `next_token_loss`.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    loss, guess = next_token_loss(model, token_ids), math.log(vocabulary)
    if loss < guess:
        return None
    return (
        f"The model does no better than guessing on the text of these prompts: its mean loss is {loss:.2f} nats a "
        f"token, and a uniform guess among {vocabulary:,} tokens costs {guess:.2f}. Either its weights are wrong, "
        "or it was trained on answers alone, as the demo's model was."
    )
