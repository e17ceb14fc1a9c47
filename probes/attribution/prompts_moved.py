"""Which prompts an example moves: how far one first step on it alone would carry each of them along the way back.

To first order, at the model that training starts from: −⟨d₀ ⊙ ∇ℓ_z, ∇f_x⟩ of example z and prompt x, whose mean over
the prompts of a target is the example's forecast. One backward pass an example, one forward-mode pass over the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp

from probes.attribution.replay import Replay
from probes.attribution.targets import Probe, Target, read_prompts
from probes.guard.recorded_path import Tensors
from probes.progress import Progress, Report, silent

_BATCH_SIZE = 64


def prompts_moved(
    replay: Replay, probe: Probe, target: Target, places: Sequence[int], scale: Tensors, report: Report = silent
) -> tuple[list[int], Float[np.ndarray, "example prompt"]]:
    """The prompts that a target is read on, and how far each of some examples moves them.

    Args:
        replay: the model, on the weights that training starts from, and the data.
        probe: the prompts.
        target: how far a prompt has gone.
        places: of the examples.
        scale: d₀, as `first_scale` gives it.
        report: told of every example.
    """
    prompts = np.flatnonzero(target.weights).tolist()
    rows = []
    for number, place in enumerate(places):
        report(Progress("reading prompts", number, len(places)))
        gradient = replay.gradient([place], torch.ones(1, device=replay.view.device))
        step = {name: -scale[name] * pull for name, pull in gradient.items()}
        rows.append(np.concatenate([_slopes(replay, probe, target, batch, step) for batch in _batches(prompts)]))
    return prompts, np.array(rows).reshape(len(places), len(prompts))


def _batches(prompts: Sequence[int]) -> list[Sequence[int]]:
    return [prompts[first : first + _BATCH_SIZE] for first in range(0, len(prompts), _BATCH_SIZE)]


def _slopes(
    replay: Replay, probe: Probe, target: Target, prompts: Sequence[int], step: Tensors
) -> Float[np.ndarray, " prompt"]:
    outer = _Outer(replay.view.model)

    def numbers(weights: Tensors) -> Tensor:
        def read() -> Tensor:
            return read_prompts(replay.view, probe, [target], prompts)[0]

        return functional_call(outer, {f"model.{name}": weight for name, weight in weights.items()}, (read,))

    return jvp(numbers, (replay.present,), (step,))[1].detach().double().cpu().numpy()


class _Outer(nn.Module):
    """A model inside another module, so that whatever reads it meanwhile sees the weights of a functional call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, read: Callable[[], Tensor]) -> Tensor:
        return read()
