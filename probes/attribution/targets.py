"""What is attributed: a number read off the model on the probe prompts, with its gradient.

f(θ) = Σ_x w_x ⟨h_l(x; θ), v̂⟩ / ‖v‖, whose change over a training is the return fraction (w 1/n on harmful prompts) or
its difference in differences (−1/n on harmless ones, and the direction's own twin); or the mean refusal score on
harmful prompts, in log odds; or a pathway (`pathways`), with a vector and a weight of its own for every prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probes.behaviour.refusal_score import refusal_tokens
from probes.errors import PromptError
from probes.guard.material import refusal_of
from probes.guard.recorded_path import Tensors
from probes.models.architecture import logits_of_last
from probes.models.hooks import residuals
from probes.models.padding import pad_tokens
from probes.models.view import ModelView
from probes.run import Run

RETURN, DID, REFUSAL = TARGETS = ("return", "did_return", "refusal_score")
FEATURES, OUTPUT = PATHWAYS = ("features", "output")
SCREEN = "refusal_axis"  # how far harmful prompts move off the refusal axis: it needs no witness
_BATCH_SIZE = 16  # prompts that are held with their gradients at a time: a training's batch has about as many


@dataclass(frozen=True)
class Target:
    """One number to be attributed.

    Attributes:
        name: one of `TARGETS` or of `PATHWAYS`.
        layer: behind which block the stream is read.
        weights: of each prompt, 0 where it does not count.
        vector: v̂ / ‖v‖, or one for each prompt; None for the refusal score.
        tokens: first tokens of refusals, of the refusal score.
    """

    name: str
    layer: int
    weights: Float[np.ndarray, " prompt"]
    vector: Float[np.ndarray, " d_model"] | Float[np.ndarray, "prompt d_model"] | None = None
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


def targets_of(run: Run, layer: int) -> list[Target]:
    """The return and its difference in differences at a layer.

    Raises:
        UsageError: the reversion is not defined at this layer.
        RunFolderError: the run has no witness.
    """
    harmful = run.harmful
    contrast = _mean_of(harmful) - _mean_of(~harmful)
    reversions = {RETURN: ("reversion", _mean_of(harmful)), DID: ("reversion_did", contrast)}
    targets = []
    for name, (direction, weights) in reversions.items():
        unit, norm = run.direction(direction).at(layer)
        targets.append(Target(name, layer, weights, unit / norm))
    return targets


def refusal_score_of(run: Run, layer: int, tokenizer: object) -> list[Target]:
    """The mean refusal score on harmful prompts; none where the tokenizer knows no refusal."""
    try:
        return [Target(REFUSAL, layer, _mean_of(run.harmful), tokens=refusal_tokens(tokenizer))]
    except PromptError:
        return []


def _mean_of(chosen: Bool[np.ndarray, " prompt"]) -> Float[np.ndarray, " prompt"]:
    return chosen / chosen.sum()


def screen_of(run: Run, layer: int) -> Target:
    """How far harmful prompts will move against the aligned model's refusal axis, in its own length."""
    unit, norm = refusal_of(run).at(layer)
    return Target(SCREEN, layer, _mean_of(run.harmful), -unit / norm)


def read_targets(
    view: ModelView, probe: Probe, targets: Sequence[Target], weights: dict[str, nn.Parameter]
) -> list[Reading]:
    """Every target and its gradient with respect to `weights`, at the model's present weights.

    One forward pass serves all targets; each has a backward pass of its own.
    """
    values = [0.0] * len(targets)
    gradients = [{name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in targets]
    for parts in _parts(view, probe, targets):
        for place, part in enumerate(parts):
            values[place] += float(part.detach())
            pulls = torch.autograd.grad(
                part, list(weights.values()), retain_graph=place + 1 < len(parts), allow_unused=True
            )
            for name, pull in zip(weights, pulls, strict=True):
                if pull is not None:
                    gradients[place][name] += pull
    return [Reading(value, gradient) for value, gradient in zip(values, gradients, strict=True)]


@torch.no_grad()
def read_values(view: ModelView, probe: Probe, targets: Sequence[Target]) -> list[float]:
    """Every target at the model's present weights, without gradients."""
    return [float(sum(parts)) for parts in zip(*_parts(view, probe, targets), strict=True)]


def _parts(view: ModelView, probe: Probe, targets: Sequence[Target]) -> Iterator[list[Tensor]]:
    """Each target's part from one batch of prompts after the other."""
    read = np.any([target.weights != 0 for target in targets], axis=0)
    chosen = sorted(np.flatnonzero(read).tolist(), key=lambda prompt: len(probe.token_ids[prompt]))
    for first in range(0, len(chosen), _BATCH_SIZE):
        prompts = chosen[first : first + _BATCH_SIZE]
        numbers = read_prompts(view, probe, targets, prompts)
        scales = [torch.tensor(target.weights[prompts], dtype=torch.float32, device=view.device) for target in targets]
        yield [(scale * number).sum() for scale, number in zip(scales, numbers, strict=True)]


def read_prompts(
    view: ModelView, probe: Probe, targets: Sequence[Target], prompts: Sequence[int]
) -> list[Float[Tensor, " prompt"]]:
    """Each target's number of each of these prompts, before it is weighed; differentiable.

    Logits are made where a refusal could begin, and only where some target asks for them.
    """
    ids, _ = pad_tokens([probe.token_ids[prompt] for prompt in prompts], view.device)
    rows = torch.arange(len(prompts), device=view.device)
    ends = torch.tensor([probe.place(prompt) for prompt in prompts], device=view.device)
    last = torch.tensor([len(probe.token_ids[prompt]) - 1 for prompt in prompts], device=view.device)
    layers = sorted({target.layer for target in targets if target.vector is not None})
    with residuals(view.blocks, layers) as seen:
        if any(target.vector is None for target in targets):
            shortened = logits_of_last(view.model, ids.shape[1] - int(last.min()))
            output = view.model(input_ids=ids, use_cache=False, **shortened)
            logits = output.logits[rows, last - ids.shape[1]].float()
        else:
            view.body(input_ids=ids, use_cache=False)
    numbers = []
    for target in targets:
        if target.vector is None:
            numbers.append(_score(logits, target.tokens))
            continue
        chosen = target.vector[list(prompts)] if target.vector.ndim == 2 else target.vector
        vector = torch.tensor(chosen, dtype=torch.float32, device=view.device)
        numbers.append((seen[target.layer][rows, ends].float() * vector).sum(dim=1))
    return numbers


def _score(logits: Float[Tensor, "prompt vocabulary"], tokens: Sequence[int]) -> Float[Tensor, " prompt"]:
    """As `behaviour.refusal_score.score`, differentiable."""
    within = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    within[list(tokens)] = True
    return logits[:, within].logsumexp(dim=-1) - logits[:, ~within].logsumexp(dim=-1)
