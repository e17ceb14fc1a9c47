"""The candidates for the refusal direction, and what each does when it is ablated or added (arXiv 2406.11717)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.activations import collect
from probes.behaviour.refusal_score import refusal_tokens, score
from probes.directions.refusal import refusal_differences
from probes.directions.selection import Candidate
from probes.models import padding
from probes.models.hooks import ablate, add
from probes.models.view import ModelView

_ROWS = 64
_MOST_POSITIONS = 8
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Asked:
    """Rendered prompts of either class, in two folds: candidates are found on the first and scored on the second."""

    harmful: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
    harmless: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]


def positions_of(token_ids: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Places behind the instruction: those at which all prompts have the same tokens, counted from the end.

    What the chat template sets there is where a model has read the whole request and has not answered yet. Always −1.
    """
    shortest = min(map(len, token_ids))
    same = 0
    while same < shortest - 1 and len({ids[-1 - same] for ids in token_ids}) == 1:
        same += 1
    return tuple(range(-max(1, min(same, _MOST_POSITIONS)), 0))


def candidates(
    host: ModelView,
    questions: Asked,
    positions: Sequence[int],
    done: Done | None = None,
    *,
    layers: Sequence[int] | None = None,
) -> tuple[list[Candidate], Float[np.ndarray, "position layer d_model"]]:
    """Difference of means at every position and layer of the model in `host`, and its three scores.

    Args:
        host: holds the aligned model.
        questions: the prompts.
        positions: counted from the end.
        done: is given (candidates done, candidates in all).
        layers: blocks behind which candidates are scored; None is all of them.

    Returns:
        The scores, and the vectors that were scored (those of the first fold).
    """
    vectors = np.stack([_differences(host, questions, position) for position in positions])
    tokens = refusal_tokens(host.tokenizer)
    harmful, harmless = questions.harmful[1], questions.harmless[1]
    plain = last_logits(host, harmless).double().log_softmax(dim=-1)
    places = [(row, layer) for row in range(len(positions)) for layer in layers or range(host.n_layers)]
    scored = []
    for number, (row, layer) in enumerate(places):
        vector = vectors[row, layer]
        if not vector.any():
            scored.append(Candidate(positions[row], layer, *3 * [float("nan")]))
            continue
        with ablate(host, vector):
            bypass = float(score(last_logits(host, harmful), tokens).mean())
            changed = last_logits(host, harmless).double().log_softmax(dim=-1)
        with add(host, [layer], vector[None]):
            induce = float(score(last_logits(host, harmless), tokens).mean())
        divergence = float((plain.exp() * (plain - changed)).sum(dim=-1).mean())
        scored.append(Candidate(positions[row], layer, bypass, induce, divergence))
        if done is not None:
            done(number + 1, len(places))
    return scored, vectors


@torch.no_grad()
def last_logits(host: ModelView, token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "prompt vocabulary"]:
    """Logits of the token that follows each prompt, float32 on the CPU."""
    parts = []
    for first in range(0, len(token_ids), _ROWS):
        ids, mask = padding.pad_tokens(token_ids[first : first + _ROWS], host.device, side="left")
        output = host.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=padding.positions(mask),
            use_cache=False,
            logits_to_keep=1,
        )
        parts.append(output.logits[:, -1].float().cpu())
    return torch.cat(parts)


def _differences(host: ModelView, questions: Asked, position: int) -> Float[np.ndarray, "layer d_model"]:
    prompts = [*questions.harmful[0], *questions.harmless[0]]
    harmful = np.arange(len(prompts)) < len(questions.harmful[0])
    rows, _ = collect(host, prompts, position=position)
    return refusal_differences(rows, harmful)
