"""The forecast: which examples will pull, before any training: −⟨d₀ ⊙ ∇f₀, ∇ℓ_z⟩ at the model that starts.

It is the first step's share under Adam, for every example at once: ∇f₀ by one backward pass over the probe prompts, d₀
from the mean square of the gradients of a few batches, and one pass over the data (`slopes`). Weights that ∇f₀ leaves
alone, as those above the layer that is read, need no d₀. It ranks; it is in no unit of return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from probes.attribution.replay import Replay
from probes.attribution.slopes import slopes_along
from probes.attribution.targets import Probe, Target, read_targets
from probes.guard.recorded_path import Tensors
from probes.progress import Progress, Report, silent

_BATCHES, _BATCH_SIZE = 8, 32
_EPSILON = 1e-8  # Adam's


@dataclass(frozen=True)
class Forecasts:
    """What the model that training starts from says of every example.

    Attributes:
        values: for each target, the forecast of each example; greater pulls harder.
        losses: of each example, summed over its tokens, in nats.
    """

    values: list[Float[np.ndarray, " example"]]
    losses: Float[np.ndarray, " example"]


def forecast(
    replay: Replay, probe: Probe, targets: Sequence[Target], report: Report = silent, *, seed: int = 0
) -> Forecasts:
    """The forecast of every example for each target, at the replay's present weights.

    Args:
        replay: the model, on the weights that training will start from, and the data.
        probe: the prompts that targets are read on.
        targets: what is forecast.
        report: told of every batch.
        seed: of the batches that d₀ is taken from.
    """
    directions = [reading.gradient for reading in read_targets(replay.view, probe, targets, replay.weights)]
    moved = [name for name in replay.weights if any(bool(pull[name].any()) for pull in directions)]
    directions = [{name: pull[name] for name in moved} for pull in directions]  # of the others nothing is held
    for name, own in first_scale(replay, seed, moved).items():
        for pull in directions:
            pull[name].mul_(own).neg_()
    values, losses = np.zeros((len(targets), len(replay.examples))), np.zeros(len(replay.examples))
    order = sorted(range(len(replay.examples)), key=lambda place: len(replay.examples[place].ids))
    slopes_of = slopes_along(replay, directions, order)
    for some in replay.batches(order):
        report(Progress("forecasting", some[0], len(order)))
        places = [order[number] for number in some]
        loss, slopes = slopes_of(places)
        losses[places], values[:, places] = loss.cpu().double().numpy(), slopes.cpu().double().numpy()
    return Forecasts(list(values), losses)


def first_scale(replay: Replay, seed: int = 0, names: Sequence[str] | None = None) -> Tensors:
    """d₀ = 1 / (√ mean g² + ε) of a few batches; 0 where no batch reaches a weight, as an unseen token's embedding.

    There 1/ε would drown everything: Adam takes such a weight's first gradient, whatever its size, for a whole step.

    Args:
        replay: the model, on the weights that training will start from, and the data.
        seed: of the batches.
        names: of the weights that it is wanted for; None is all.
    """
    order = np.random.default_rng(seed).permutation(len(replay.examples))
    size = min(_BATCH_SIZE, max(1, len(order) // 2))
    batches = [order[first : first + size].tolist() for first in range(0, len(order) - size + 1, size)][:_BATCHES]
    squares = {name: torch.zeros_like(replay.weights[name]) for name in names or replay.weights}
    for places in batches:
        tokens = sum(replay.examples[place].tokens for place in places)
        gradient = replay.gradient(places, torch.full((len(places),), 1 / tokens, device=replay.view.device), names)
        for name, part in gradient.items():
            squares[name] += part.square() / len(batches)
    return {name: torch.where(square > 0, 1 / (square.sqrt() + _EPSILON), 0.0) for name, square in squares.items()}
