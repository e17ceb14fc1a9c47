"""What is attributed: a number read off the model on the probe prompts, with its gradient.

f(θ) = Σ_x w_x ⟨h_l(x; θ), v̂⟩ / ‖v‖, whose change over a training is the return fraction (w 1/n on harmful prompts) or
its difference in differences (−1/n on harmless ones, and the direction's own twin); or the mean refusal score on
harmful prompts, in log odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probes.behaviour.refusal_score import refusal_tokens
from probes.errors import PromptError
from probes.guard.material import refusal_of
from probes.guard.recorded_path import Tensors
from probes.models.hooks import residuals
from probes.models.padding import pad_tokens
from probes.models.view import ModelView
from probes.run import Run

RETURN, DID, REFUSAL = TARGETS = ("return", "did_return", "refusal_score")
SCREEN = "refusal_axis"  # how far harmful prompts move off the refusal axis: it needs no witness
_BATCH_SIZE = 64


@dataclass(frozen=True)
class Target:
    """One number to be attributed.

    Attributes:
        name: one of `TARGETS`.
        layer: behind which block the stream is read.
        weights: of each prompt, 0 where it does not count.
        vector: v̂ / ‖v‖; None for the refusal score.
        tokens: first tokens of refusals, of the refusal score.
    """

    name: str
    layer: int
    weights: Float[np.ndarray, " prompt"]
    vector: Float[np.ndarray, " d_model"] | None = None
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probe:
    """The prompts that targets are read on: token ids, and the place of each that is read."""

    token_ids: Sequence[Sequence[int]]
    position: int = -1

    def place(self, prompt: int) -> int:
        """The token that is read, counted from the prompt's own start."""
        return self.position % len(self.token_ids[prompt])


@dataclass(frozen=True)
class Reading:
    """A target at some weights: its value up to a constant, and its gradient by name of the weight."""

    value: float
    gradient: Tensors


def targets_of(run: Run, layer: int, tokenizer: object = None) -> list[Target]:
    """The return and its difference in differences at a layer; with a tokenizer that knows refusals, their score too.

    Raises:
        UsageError: the reversion is not defined at this layer.
        RunFolderError: the run has no witness.
    """
    harmful = run.harmful
    alone = harmful / harmful.sum()
    contrast = alone - ~harmful / (~harmful).sum()
    reversions = {RETURN: ("reversion", alone), DID: ("reversion_did", contrast)}
    targets = []
    for name, (direction, weights) in reversions.items():
        unit, norm = run.direction(direction).at(layer)
        targets.append(Target(name, layer, weights, unit / norm))
    tokens = () if tokenizer is None else _refusals(tokenizer)
    return targets + ([Target(REFUSAL, layer, alone, tokens=tokens)] if tokens else [])


def screen_of(run: Run, layer: int) -> Target:
    """How far harmful prompts will move against the aligned model's refusal axis, in its own length."""
    unit, norm = refusal_of(run).at(layer)
    harmful = run.harmful
    return Target(SCREEN, layer, harmful / harmful.sum(), -unit / norm)


def read_targets(
    view: ModelView, probe: Probe, targets: Sequence[Target], weights: dict[str, nn.Parameter]
) -> list[Reading]:
    """Every target and its gradient with respect to `weights`, at the model's present weights.

    One forward pass serves all targets; each has a backward pass of its own.
    """
    values = [0.0] * len(targets)
    gradients = [{name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in targets]
    read = _is_read(targets)
    chosen = sorted(np.flatnonzero(read).tolist(), key=lambda prompt: len(probe.token_ids[prompt]))
    for first in range(0, len(chosen), _BATCH_SIZE):
        prompts = chosen[first : first + _BATCH_SIZE]
        parts = _values(view, probe, targets, prompts)
        for place, part in enumerate(parts):
            values[place] += float(part.detach())
            pulls = torch.autograd.grad(
                part, list(weights.values()), retain_graph=place + 1 < len(parts), allow_unused=True
            )
            for name, pull in zip(weights, pulls, strict=True):
                if pull is not None:
                    gradients[place][name] += pull
    return [Reading(value, gradient) for value, gradient in zip(values, gradients, strict=True)]


def _is_read(targets: Sequence[Target]) -> Bool[np.ndarray, " prompt"]:
    return np.any([target.weights != 0 for target in targets], axis=0)


def _values(view: ModelView, probe: Probe, targets: Sequence[Target], prompts: Sequence[int]) -> list[Tensor]:
    """Each target's part from these prompts, differentiable."""
    ids, _ = pad_tokens([probe.token_ids[prompt] for prompt in prompts], view.device)
    rows = torch.arange(len(prompts), device=view.device)
    ends = torch.tensor([probe.place(prompt) for prompt in prompts], device=view.device)
    last = torch.tensor([len(probe.token_ids[prompt]) - 1 for prompt in prompts], device=view.device)
    layers = sorted({target.layer for target in targets if target.vector is not None})
    scored = any(target.vector is None for target in targets)
    with residuals(view.blocks, layers) as seen:
        output = (view.model if scored else view.model.base_model)(input_ids=ids, use_cache=False)
    parts = []
    for target in targets:
        weights = torch.tensor(target.weights[prompts], dtype=torch.float32, device=view.device)
        if target.vector is None:
            numbers = _score(output.logits[rows, last].float(), target.tokens)
        else:
            vector = torch.tensor(target.vector, dtype=torch.float32, device=view.device)
            numbers = seen[target.layer][rows, ends].float() @ vector
        parts.append((weights * numbers).sum())
    return parts


def _score(logits: Float[Tensor, "prompt vocabulary"], tokens: Sequence[int]) -> Float[Tensor, " prompt"]:
    """As `behaviour.refusal_score.score`, differentiable."""
    within = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    within[list(tokens)] = True
    return logits[:, within].logsumexp(dim=-1) - logits[:, ~within].logsumexp(dim=-1)


def _refusals(tokenizer: object) -> tuple[int, ...]:
    try:
        return refusal_tokens(tokenizer)
    except PromptError:
        return ()
