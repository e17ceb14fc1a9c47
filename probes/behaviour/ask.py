"""One checkpoint is asked: its answers, and its refusal scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probes.behaviour.answer_form import marks_form, opens_thinking
from probes.behaviour.generate import continue_prompts
from probes.behaviour.refusal_score import refusal_tokens
from probes.models.view import ModelView

_LAST = 16  # tokens of a rendered prompt in which its template may open the thinking


@dataclass(frozen=True)
class Answers:
    """What one checkpoint does.

    Attributes:
        completions: one text for each prompt, with the model's thinking in its tags.
        cut_off: whether each completion reached its greatest length without a stop token.
        scores: refusal score of each prompt, in nats of log odds.
    """

    completions: tuple[str, ...]
    cut_off: np.ndarray
    scores: np.ndarray


def ask_checkpoint(
    host: ModelView,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 32,
    done: Callable[[int, int], None] | None = None,
) -> Answers:
    """Ask the checkpoint in `host`.

    Args:
        host: holds the checkpoint.
        prompts: rendered requests.
        max_new_tokens: length of a completion.
        done: is given (prompts done, prompts in all) after each batch.
    """
    openings = refusal_tokens(host.tokenizer)
    generations = continue_prompts(host, prompts, max_new_tokens=max_new_tokens, openings=openings, done=done)
    return Answers(
        tuple(
            completion_text(host.tokenizer, prompt, generation.ids)
            for prompt, generation in zip(prompts, generations, strict=True)
        ),
        np.array([generation.cut_off for generation in generations], dtype=bool),
        np.array([generation.refusal_score for generation in generations], dtype=float),
    )


def completion_text(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """A completion as text, from which its form can be told.

    Special tokens are left out, but for those of thinking and of turns; where the prompt's own template opens the
    thinking, the text does so too.
    """
    special = set(tokenizer.all_special_ids)
    shown = [token for token in ids if token not in special or marks_form(tokenizer.convert_ids_to_tokens(token))]
    opened = opens_thinking(tokenizer.decode(list(prompt)[-_LAST:]))
    return ("<think>" if opened else "") + tokenizer.decode(shown)
