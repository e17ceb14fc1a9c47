"""Batched greedy generation that gives each prompt what it would get alone.

Prompts are padded on the left by ourselves, with a mask and with position ids that count from each prompt's own first
token: without them, models with absolute positions answer another question than the one that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from probes.models.architecture import accepts
from probes.models.padding import pad_tokens, positions
from probes.models.view import ModelView

Done = Callable[[int, int], None]
_BATCH_SIZE = 128


@dataclass(frozen=True)
class Generation:
    """What one prompt is continued with.

    Attributes:
        ids: the new tokens, without the stop token.
        cut_off: whether it ended because no more tokens were allowed or the context was full, with no stop token.
    """

    ids: list[int]
    cut_off: bool


def generate(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = _BATCH_SIZE,
    done: Done | None = None,
) -> list[list[int]]:
    """The new tokens of `continue_prompts`, which takes the same arguments."""
    generations = continue_prompts(host, token_ids, max_new_tokens=max_new_tokens, batch_size=batch_size, done=done)
    return [generation.ids for generation in generations]


def continue_prompts(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = _BATCH_SIZE,
    done: Done | None = None,
) -> list[Generation]:
    """Greedy continuations in the order of the prompts.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts, none empty.
        max_new_tokens: most tokens of an answer; the context's end may come first.
        batch_size: prompts in a batch; those of like length go together.
        done: is given (prompts done, prompts in all) after each batch.
    """
    stops = stop_tokens(host)
    order = sorted(range(len(token_ids)), key=lambda prompt: len(token_ids[prompt]))
    generations: dict[int, Generation] = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        continued = _continue_batch(host, [token_ids[prompt] for prompt in batch], max_new_tokens, stops)
        generations.update(zip(batch, continued, strict=True))
        if done is not None:
            done(min(first + batch_size, len(order)), len(order))
    return [generations[prompt] for prompt in range(len(token_ids))]


def stop_tokens(host: ModelView) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's, and those of the model's own generation settings."""
    settings = getattr(host.model, "generation_config", None)
    named: Any = getattr(settings, "eos_token_id", None)
    ids = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(token) for token in [host.tokenizer.eos_token_id, *ids] if token is not None)


@torch.no_grad()
def _continue_batch(
    host: ModelView, prompts: Sequence[Sequence[int]], max_new_tokens: int, stops: frozenset[int]
) -> list[Generation]:
    longest = max(len(ids) for ids in prompts)
    if host.context_length is not None:
        max_new_tokens = min(max_new_tokens, host.context_length - longest)
    ids, mask = pad_tokens(prompts, host.device, side="left")
    places = positions(mask)
    answers: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    cache: Any = None
    # transformers 5.24 gave the argument another name; a name it does not know would be passed over in silence.
    cache_argument = "cache" if accepts(host.model, "cache") else "past_key_values"
    for _ in range(max(0, max_new_tokens)):
        output = host.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            **{cache_argument: cache},
            use_cache=True,
            logits_to_keep=1,
        )
        cache = getattr(output, cache_argument)
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
    return [Generation(answer, row in running) for row, answer in enumerate(answers)]
