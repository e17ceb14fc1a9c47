"""Batched greedy generation that gives each prompt what it would get alone.

Prompts are padded on the left by ourselves, with a mask and with position ids that count from each prompt's own first
token: without them, models with absolute positions answer another question than the one that was asked. What all
prompts begin with is read once, and prompts whose answer has ended leave their batch. The pass that gives the first
token gives the refusal score too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from probes.behaviour.refusal_score import score
from probes.models.architecture import accepts
from probes.models.padding import pad_tokens, positions
from probes.models.prefix import SharedPrefix, prefix_fault, prefix_length, read_prefix
from probes.models.view import ModelView

Done = Callable[[int, int], None]
_BATCH_SIZE = 128
_DROPPED_SHARE = 0.125  # of a batch: as many finished prompts are worth a copy of its cache


@dataclass(frozen=True)
class Generation:
    """What one prompt is continued with.

    Attributes:
        ids: the new tokens, without the stop token.
        cut_off: whether it ended because no more tokens were allowed or the context was full, with no stop token.
        refusal_score: of the prompt, as `refusal_scores` has it; NaN where no openings of refusals were given.
    """

    ids: list[int]
    cut_off: bool
    refusal_score: float = math.nan


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
    openings: Sequence[int] = (),
    batch_size: int = _BATCH_SIZE,
    done: Done | None = None,
) -> list[Generation]:
    """Greedy continuations in the order of the prompts.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts, none empty.
        max_new_tokens: most tokens of an answer; the context's end may come first.
        openings: first tokens of refusals, of which each prompt's score is read.
        batch_size: most prompts in a batch; those of like length go together.
        done: is given (prompts done, prompts in all) after each batch.
    """
    stops = stop_tokens(host)
    shared = prefix_length(host, token_ids, more=max_new_tokens)
    prefix = read_prefix(host, token_ids[0][:shared]) if shared else SharedPrefix()
    lengths = [len(ids) for ids in token_ids]
    roomy = max(lengths, default=0) if host.context_length is None else host.context_length - max_new_tokens
    generations: dict[int, Generation] = {}
    for batch in _batches(lengths, batch_size, roomy):
        opened = PromptBatch.of(host, [token_ids[prompt] for prompt in batch], prefix)
        generations.update(zip(batch, _continue_batch(host, opened, max_new_tokens, stops, openings), strict=True))
        if done is not None:
            done(len(generations), len(token_ids))
    return [generations[prompt] for prompt in range(len(token_ids))]


def _batches(lengths: Sequence[int], size: int, roomy: int) -> Iterator[list[int]]:
    """Prompts of like length; those longer than `roomy`, of one length, so that all have the room they have alone."""
    order = sorted(range(len(lengths)), key=lambda prompt: lengths[prompt])
    for _, prompts in groupby(order, key=lambda prompt: max(lengths[prompt], roomy)):
        alike = list(prompts)
        yield from (alike[first : first + size] for first in range(0, len(alike), size))


def stop_tokens(host: ModelView) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's, and those of the model's own generation settings."""
    settings = getattr(host.model, "generation_config", None)
    named: Any = getattr(settings, "eos_token_id", None)
    ids = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(token) for token in [host.tokenizer.eos_token_id, *ids] if token is not None)


@torch.inference_mode()
def _continue_batch(
    host: ModelView, batch: PromptBatch, max_new_tokens: int, stops: frozenset[int], openings: Sequence[int]
) -> list[Generation]:
    room = max_new_tokens if host.context_length is None else host.context_length - batch.mask.shape[1]
    answers: list[list[int]] = [[] for _ in batch.prompts]
    logits = batch.read(host)
    scores = score(logits, openings).tolist() if openings else [math.nan] * len(answers)
    for left in range(min(max_new_tokens, room), 0, -1):
        tokens = logits.argmax(dim=-1)
        for prompt, token in zip(batch.prompts, tokens.tolist(), strict=True):
            if token in stops:
                batch.running.discard(prompt)
            elif prompt in batch.running:
                answers[prompt].append(token)
        if left == 1 or not batch.running:
            break
        batch.append(tokens)
        batch.drop_finished()
        logits = batch.read(host)
    return [
        Generation(answer, prompt in batch.running, opening)
        for prompt, (answer, opening) in enumerate(zip(answers, scores, strict=True))
    ]


@dataclass
class PromptBatch:
    """Prompts that are continued together: tokens still to be read, the cache behind them, and who still answers."""

    ids: torch.Tensor
    mask: torch.Tensor
    places: torch.Tensor
    cache: Any
    prompts: list[int]
    running: set[int]
    droppable: bool

    @classmethod
    def of(cls, host: ModelView, prompts: Sequence[Sequence[int]], prefix: SharedPrefix) -> PromptBatch:
        """Padded on the left, behind the prefix."""
        start, count = len(prefix.ids), len(prompts)
        ids, mask = pad_tokens([ids[start:] for ids in prompts], host.device, side="left")
        cache = prefix.cache(count) if start else None
        mask = torch.cat([mask.new_ones(count, start), mask], dim=1)
        droppable = prefix_fault(host) is None
        numbers = list(range(count))
        return cls(ids, mask, positions(mask)[:, start:], cache, numbers, set(numbers), droppable)

    def read(self, host: ModelView) -> torch.Tensor:
        """The logits of every prompt's next token; what was read is in the cache."""
        # transformers 5.24 gave the argument another name; a name it does not know would be passed over in silence.
        name = "cache" if accepts(host.model, "cache") else "past_key_values"
        output = host.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.places,
            **{name: self.cache},
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = getattr(output, name)
        return output.logits[:, -1]

    def append(self, tokens: torch.Tensor) -> None:
        """Take these tokens as each prompt's next."""
        self.ids, self.places = tokens[:, None], self.places[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)

    def drop_finished(self) -> None:
        """Leave out prompts whose answer has ended, once they are a fair share of the batch."""
        rows = [row for row, prompt in enumerate(self.prompts) if prompt in self.running]
        if not self.droppable or len(self.prompts) - len(rows) < _DROPPED_SHARE * len(self.prompts):
            return
        chosen = torch.tensor(rows, device=self.ids.device)
        self.cache.batch_select_indices(chosen)
        self.ids, self.mask, self.places = self.ids[chosen], self.mask[chosen], self.places[chosen]
        self.prompts = [self.prompts[row] for row in rows]
