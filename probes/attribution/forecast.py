"""The forecast: which examples will pull, before any training: −⟨d₀ ⊙ ∇f₀, ∇ℓ_z⟩ at the model that starts.

It is the first step's share under Adam, for every example at once: ∇f₀ by one backward pass over the probe prompts, d₀
from the mean square of the gradients of a few batches, and one forward-mode pass over the data. It ranks; it is in no
unit of return.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from probes.attribution.replay import Replay
from probes.attribution.targets import Probe, Target, read_targets
from probes.guard.recorded_path import Tensors
from probes.progress import Progress, Report, silent

_BATCHES, _BATCH_SIZE = 8, 32
_EPSILON = 1e-8  # Adam's


def forecast(
    replay: Replay, probe: Probe, targets: Sequence[Target], report: Report = silent, *, seed: int = 0
) -> list[Float[np.ndarray, " example"]]:
    """The forecast of every example for each target, at the replay's present weights; greater pulls harder.

    Args:
        replay: the model, on the weights that training will start from, and the data.
        probe: the prompts that targets are read on.
        targets: what is forecast.
        report: told of every batch.
        seed: of the batches that d₀ is taken from.
    """
    scale = _first_scale(replay, seed)
    readings = read_targets(replay.view, probe, targets, replay.weights)
    directions = [{name: -scale[name] * pull for name, pull in r.gradient.items()} for r in readings]
    values = [np.zeros(len(replay.examples)) for _ in targets]
    for first in range(0, len(replay.examples), _BATCH_SIZE):
        report(Progress("forecasting", first, len(replay.examples)))
        places = range(first, min(first + _BATCH_SIZE, len(replay.examples)))
        for target, direction in enumerate(directions):
            values[target][places] = replay.along(places, direction).cpu().double().numpy()
    return values


def _first_scale(replay: Replay, seed: int) -> Tensors:
    """d₀ = 1 / (√ mean g² + ε) of a few batches; 0 where no batch reaches a weight, as an unseen token's embedding.

    There 1/ε would drown everything: Adam takes such a weight's first gradient, whatever its size, for a whole step.
    """
    order = np.random.default_rng(seed).permutation(len(replay.examples))
    size = min(_BATCH_SIZE, max(1, len(order) // 2))
    batches = [order[first : first + size].tolist() for first in range(0, len(order) - size + 1, size)][:_BATCHES]
    squares = {name: torch.zeros_like(weight) for name, weight in replay.present.items()}
    for places in batches:
        tokens = sum(replay.examples[place].tokens for place in places)
        gradient = replay.gradient(places, torch.full((len(places),), 1 / tokens, device=replay.view.device))
        for name, part in gradient.items():
            squares[name] += part.square() / len(batches)
    return {name: torch.where(square > 0, 1 / (square.sqrt() + _EPSILON), 0.0) for name, square in squares.items()}
