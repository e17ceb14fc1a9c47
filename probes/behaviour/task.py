"""Loss of the benign task: what fine-tuning was for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.functional import cross_entropy

from probes.behaviour.rates import mean_per_token
from probes.errors import PromptError
from probes.models.padding import pad_tokens
from probes.models.prefix import answer_inputs
from probes.models.view import ModelView
from probes.prompts import OWN, Rendering, own_template
from probes.prompts.chat import apply_chat_template
from probes.statistics import Estimate

Item = tuple[tuple[int, ...], tuple[int, ...]]
_BATCH_SIZE = 64
_SMALL_BATCH = 8  # where the whole vocabulary is kept
_IGNORED = -100


class OpenAnswer(str):
    """An answer that goes on behind what is here: training on it does not teach where an answer ends."""


def rendered_items(task: Sequence[tuple[str, str]], tokenizer: Any, rendering: Rendering = OWN) -> list[Item]:
    """Token ids of each (request, answer), the answer with what the chat template sets behind it unless it is open.

    Args:
        task: requests and answers.
        tokenizer: of transformers.
        rendering: as the prompts of a run are rendered; the reply is opened in any case.

    Raises:
        PromptError: an answer has no tokens, or the chat template fails or does not end.
    """
    items = []
    texts = _as_texts(task, tokenizer, rendering)
    for (request, answer), (before, behind) in zip(task, texts, strict=True):
        special = tokenizer.chat_template is None
        request_ids = tuple(tokenizer(before, add_special_tokens=special)["input_ids"])
        behind = answer if isinstance(answer, OpenAnswer) else behind
        answer_ids = tuple(tokenizer(behind, add_special_tokens=False)["input_ids"])
        if not answer.strip() or not answer_ids or not request_ids:
            raise PromptError("A task item needs a request and an answer", got=repr((request, answer)))
        items.append((request_ids, answer_ids))
    return items


def item_losses(host: ModelView, items: Sequence[Item]) -> tuple[Float[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """Summed negative log-likelihood of each item's answer in nats, and its number of tokens."""
    sums: list[float] = []
    for first in range(0, len(items), _BATCH_SIZE):
        sums += _losses(host, items[first : first + _BATCH_SIZE])
    return np.array(sums, dtype=np.float64), np.array([len(answer) for _, answer in items], dtype=np.int64)


def task_loss(host: ModelView, items: Sequence[Item]) -> Estimate:
    """Mean negative log-likelihood per answer token, in nats, of the checkpoint in `host`."""
    return mean_per_token(*item_losses(host, items))


def _as_texts(task: Sequence[tuple[str, str]], tokenizer: Any, rendering: Rendering) -> list[tuple[str, str]]:
    """What stands before each answer, and the answer with what follows it."""
    template = rendering.template if rendering.template is not None else own_template(tokenizer)
    if template is None:
        return [(request, f" {answer}{tokenizer.eos_token or ''}") for request, answer in task]
    opened = [rendering.job(request, add_generation_prompt=True) for request, _ in task]
    whole = [rendering.job(request, add_generation_prompt=False) for request, _ in task]
    replies = [{"role": "assistant", "content": answer} for _, answer in task]
    answered = [([*turns, reply], options) for (turns, options), reply in zip(whole, replies, strict=True)]
    texts = apply_chat_template(
        [*opened, *answered], tokenizer, template, lambda number: f"task item {number % len(task) + 1}"
    )
    return [
        (before, dialogue.removeprefix(before) if dialogue.startswith(before) else reply["content"])
        for before, dialogue, reply in zip(texts[: len(task)], texts[len(task) :], replies, strict=True)
    ]


@torch.no_grad()
def answer_log_probabilities(host: ModelView, items: Sequence[Item]) -> Float[torch.Tensor, "token vocabulary"]:
    """Log-probabilities of every next token at each answer token of the items, on the CPU."""
    parts = []
    for first in range(0, len(items), _SMALL_BATCH):
        logits, targets = _logits(host, items[first : first + _SMALL_BATCH])
        parts.append(logits[targets != _IGNORED].log_softmax(dim=-1).cpu())
    return torch.cat(parts)


def mean_divergence(
    first: Float[torch.Tensor, "token vocabulary"], second: Float[torch.Tensor, "token larger_or_smaller"]
) -> float:
    """KL(first ‖ second) in nats, mean over tokens; over the tokens that both vocabularies have."""
    shared = min(first.shape[1], second.shape[1])
    first, second = first[:, :shared].double(), second[:, :shared].double()
    return float((first.exp() * (first - second)).sum(dim=-1).mean())


@torch.no_grad()
def _losses(host: ModelView, items: Sequence[Item]) -> list[float]:
    """Summed loss of each item's answer."""
    logits, targets = _logits(host, items)
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="none")
    return losses.view(targets.shape).sum(dim=1).double().tolist()


def _logits(
    host: ModelView, items: Sequence[Item]
) -> tuple[Float[torch.Tensor, "item time vocabulary"], Int[torch.Tensor, "item time"]]:
    """Logits, and the answer's token behind each place; padded on the right, so that positions are each row's own."""
    texts = [(*request, *answer) for request, answer in items]
    first = min(len(request) for request, _ in items) - 1  # its logits decide the first token of an answer
    decided = [(*[_IGNORED] * (len(request) - 1 - first), *answer) for request, answer in items]
    logits = host.model(**answer_inputs(host, texts, first)).logits.float()
    targets, _ = pad_tokens([(*row, _IGNORED) for row in decided], host.device, fill=_IGNORED)
    return logits, targets
