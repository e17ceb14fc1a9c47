"""One checkpoint is asked: its answers, its refusal scores, and its loss on each item of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from probes.behaviour.generate import generate
from probes.behaviour.refusal_score import refusal_scores, refusal_tokens
from probes.behaviour.task import Item, item_losses
from probes.models.view import ModelView


@dataclass(frozen=True)
class Answers:
    """What one checkpoint does.

    Attributes:
        completions: one text for each prompt.
        scores: refusal score of each prompt, in nats of log odds.
        losses: summed loss of each item's answer, in nats.
        tokens: answer tokens of each item.
    """

    completions: tuple[str, ...]
    scores: np.ndarray
    losses: np.ndarray
    tokens: np.ndarray


def ask(
    host: ModelView,
    prompts: Sequence[Sequence[int]],
    items: Sequence[Item] = (),
    *,
    max_new_tokens: int = 32,
    done: Callable[[int, int], None] | None = None,
) -> Answers:
    """Ask the checkpoint in `host`.

    Args:
        host: holds the checkpoint.
        prompts: rendered requests.
        items: rendered task items; without them there are no losses.
        max_new_tokens: length of a completion.
        done: is given (prompts done, prompts in all) after each batch.
    """
    answers = generate(host, prompts, max_new_tokens=max_new_tokens, done=done)
    losses, tokens = item_losses(host, items)
    return Answers(
        tuple(host.tokenizer.batch_decode(answers, skip_special_tokens=True)),
        refusal_scores(host, prompts, refusal_tokens(host.tokenizer)),
        losses,
        tokens,
    )
