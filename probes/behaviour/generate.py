"""Batched greedy generation that gives each prompt what it would get alone.

Prompts are padded on the left by ourselves, with a mask and with position ids that count from each prompt's own first
token: without them, models with absolute positions answer another question than the one that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from probes.models.architecture import accepts
from probes.models.padding import pad_tokens, positions
from probes.models.view import ModelView

Done = Callable[[int, int], None]
_ROWS = 128


def generate(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows: int = _ROWS,
    done: Done | None = None,
) -> list[list[int]]:
    """Greedy continuations, without the stop token, in the order of the prompts.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts, none empty.
        max_new_tokens: most tokens of an answer; the context's end may come first.
        rows: prompts in a batch.
        done: is given (prompts done, prompts in all) after each batch.
    """
    stops = stop_tokens(host)
    order = sorted(range(len(token_ids)), key=lambda prompt: len(token_ids[prompt]))
    answers: list[list[int]] = [[] for _ in token_ids]
    for first in range(0, len(order), rows):
        chosen = order[first : first + rows]
        batch = _batch(host, [token_ids[prompt] for prompt in chosen], max_new_tokens, stops)
        for prompt, answer in zip(chosen, batch, strict=True):
            answers[prompt] = answer
        if done is not None:
            done(min(first + rows, len(order)), len(order))
    return answers


def stop_tokens(host: ModelView) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's, and those of the model's own generation settings."""
    settings = getattr(host.model, "generation_config", None)
    named: Any = getattr(settings, "eos_token_id", None)
    ids = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(each) for each in [host.tokenizer.eos_token_id, *ids] if each is not None)


@torch.no_grad()
def _batch(
    host: ModelView, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: frozenset[int]
) -> list[list[int]]:
    longest = max(len(ids) for ids in prompts)
    if host.context_length is not None:
        max_new_tokens = min(max_new_tokens, host.context_length - longest)
    ids, mask = pad_tokens(prompts, host.device, side="left")
    places = positions(mask)
    answers: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    cache: Any = None
    # transformers 5.24 gave the argument another name; a name it does not know would be passed over in silence.
    taken = "cache" if accepts(host.model, "cache") else "past_key_values"
    for _ in range(max(0, max_new_tokens)):
        output = host.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            **{taken: cache},
            use_cache=True,
            logits_to_keep=1,
        )
        cache = getattr(output, taken)
        chosen = output.logits[:, -1].argmax(dim=-1)
        for row, token in enumerate(chosen.tolist()):
            if row in running:
                if token in stops:
                    running.discard(row)
                else:
                    answers[row].append(token)
        if not running:
            break
        ids, places = chosen[:, None], places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
    return answers
