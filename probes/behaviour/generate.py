"""Batched greedy generation that gives each prompt what it would get alone.

What all prompts begin with is read once; what follows it is read with prompts of like length, padded on the left by
ourselves, with a mask and with position ids that count from each prompt's own first token: without them, models with
absolute positions answer another question than the one that was asked. Then a prompt joins those that are being
answered, and leaves them when its answer has ended; where the model's cache is of another kind, it stays in the batch
that it was read in. The pass that gives the first token gives the refusal score too.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from probes.behaviour.answer_batches import open_batch
from probes.behaviour.refusal_score import score
from probes.models.view import ModelView

Done = Callable[[int, int], None]
Listen = Callable[[Mapping[int, int]], contextlib.AbstractContextManager[None]]
_BATCH_SIZE = 128


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
    listen: Listen = lambda _prompts: contextlib.nullcontext(),
) -> list[list[int]]:
    """The new tokens of `continue_prompts`, which takes the same arguments."""
    generations = continue_prompts(
        host, token_ids, max_new_tokens=max_new_tokens, batch_size=batch_size, done=done, listen=listen
    )
    return [generation.ids for generation in generations]


@torch.inference_mode()
def continue_prompts(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    openings: Sequence[int] = (),
    batch_size: int = _BATCH_SIZE,
    done: Done | None = None,
    listen: Listen = lambda _prompts: contextlib.nullcontext(),
) -> list[Generation]:
    """Greedy continuations in the order of the prompts.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts, none empty.
        max_new_tokens: most tokens of an answer; the context's end may come first.
        openings: first tokens of refusals, of which each prompt's score is read.
        batch_size: most prompts that are answered at a time.
        done: is given (prompts done, prompts in all) whenever an answer has ended.
        listen: is given the prompts that a pass reads, by their rows, and is open meanwhile; those whose answer has
            ended are left out.
    """
    stops = stop_tokens(host)
    answers = [_Answer(_room(host, len(ids), max_new_tokens)) for ids in token_ids]
    batch, groups = open_batch(host, token_ids, max_new_tokens, batch_size)
    waiting, ended = deque(groups), set[int]()
    while waiting or batch.prompts:
        if waiting and batch.takes(len(waiting[0])):
            prompts = waiting.popleft()
            with listen(dict(enumerate(prompts))):
                logits = batch.join(prompts, [token_ids[prompt] for prompt in prompts])
            _note_scores([answers[prompt] for prompt in prompts], logits, openings)
        else:
            prompts = batch.prompts
            with listen({row: prompt for row, prompt in enumerate(prompts) if prompt not in ended}):
                logits = batch.step([answers[prompt].next_token for prompt in prompts])
        for prompt, token in zip(prompts, logits.argmax(dim=-1).tolist(), strict=True):
            answers[prompt].take(token, stops)
        now = {prompt for prompt in prompts if answers[prompt].ended} - ended
        ended |= now
        batch.leave(ended)
        if done is not None and now:
            done(len(ended), len(answers))
    return [Generation(answer.ids, answer.cut_off, answer.score) for answer in answers]


def stop_tokens(host: ModelView) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's, and those of the model's own generation settings."""
    settings = getattr(host.model, "generation_config", None)
    named: Any = getattr(settings, "eos_token_id", None)
    ids = named if isinstance(named, list | tuple) else [named]
    return frozenset(int(token) for token in [host.tokenizer.eos_token_id, *ids] if token is not None)


@dataclass
class _Answer:
    """One prompt's answer as it grows."""

    room: int
    ids: list[int] = field(default_factory=list)
    stopped: bool = False
    score: float = math.nan

    @property
    def ended(self) -> bool:
        return self.stopped or self.cut_off

    @property
    def cut_off(self) -> bool:
        return not self.stopped and len(self.ids) >= self.room

    @property
    def next_token(self) -> int:
        """What is read next; of an answer that has ended, whatever there is."""
        return self.ids[-1] if self.ids else 0

    def take(self, token: int, stops: frozenset[int]) -> None:
        """Take the next token, unless the answer has ended."""
        if not self.ended:
            self.stopped = token in stops
            self.ids += [] if self.stopped else [token]


def _room(host: ModelView, length: int, max_new_tokens: int) -> int:
    """Most tokens of the answer to a prompt of this length."""
    return max_new_tokens if host.context_length is None else min(max_new_tokens, host.context_length - length)


def _note_scores(answers: Sequence[_Answer], logits: torch.Tensor, openings: Sequence[int]) -> None:
    if openings:
        for answer, value in zip(answers, score(logits, openings).tolist(), strict=True):
            answer.score = value
