"""How much of an optimiser's step a part of its gradient makes, once the optimiser has scaled every weight's own.

Adam divides each weight's gradient by the root of its second moment: where the task's gradients are large, an added
gradient counts for little, and the ratio ‖g_added‖ / ‖g_task‖ that a guard is set to is not the ratio of the steps.
Here both are multiplied with the d of the very step that is about to be taken, d = 1 / (√v̂ + ε) with v̂ as that step
will have it; momentum, learning rate and decoupled decay are left out. It is no nonlinear comparison of two trainings:
without the added gradient v̂ would be another too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Group = Mapping[str, Any]


def effective_strength(
    optimizer: torch.optim.Optimizer | Any, weights: Sequence[nn.Parameter], added: Sequence[Tensor | None]
) -> float | None:
    """‖d ⊙ g_added‖ / ‖d ⊙ g_task‖ over all weights; None where the optimiser has no d, or the task no gradient.

    Args:
        optimizer: that is about to step, wrapped by accelerate or not.
        weights: the trained ones; their `grad` is the whole gradient.
        added: the part of it that was added, weight by weight; None is nothing.
    """
    own = getattr(optimizer, "optimizer", optimizer)
    scale = _SCALES.get(type(own))
    if scale is None or reason_against(own) is not None:
        return None
    groups = {id(weight): group for group in own.param_groups for weight in group["params"]}
    squares = []
    for weight, part in zip(weights, added, strict=True):
        if weight.grad is None or id(weight) not in groups:
            continue
        whole = weight.grad.detach()
        d = scale(groups[id(weight)], own.state.get(weight, {}), weight, whole)
        own_part = torch.zeros_like(whole) if part is None else part.to(whole.dtype)
        scaled = (d * own_part, d * (whole - own_part))
        squares.append(torch.stack([half.float().square().sum() for half in scaled]))
    if not squares:
        return None
    ours, task = torch.stack(squares).sum(dim=0).sqrt().tolist()
    return ours / task if task > 0 and math.isfinite(ours / task) else None


def reason_against(optimizer: Any) -> str | None:
    """Why an optimiser has no scale by weight; None where it has."""
    own = getattr(optimizer, "optimizer", optimizer)
    name = type(own).__name__
    if type(own) not in _SCALES:
        return f"{name} does not scale each weight's gradient by a second moment of its own"
    odd = [option for option in ("amsgrad", "centered") if own.defaults.get(option)]
    return f"{name} with {odd[0]}" if odd else None


def _adam(group: Group, state: Mapping[str, Any], weight: Tensor, gradient: Tensor) -> Tensor:
    beta, step = group["betas"][1], int(state.get("step", 0)) + 1
    decay = group.get("weight_decay", 0.0)
    coupled = decay and not group.get("decoupled_weight_decay", False)
    whole = gradient + decay * weight.detach() if coupled else gradient
    second = (1 - beta) * whole.square()
    if "exp_avg_sq" in state:
        second += beta * state["exp_avg_sq"]
    return 1 / ((second / (1 - beta**step)).sqrt() + group["eps"])


def _rmsprop(group: Group, state: Mapping[str, Any], weight: Tensor, gradient: Tensor) -> Tensor:
    whole = gradient + group["weight_decay"] * weight.detach()
    second = (1 - group["alpha"]) * whole.square()
    if "square_avg" in state:
        second += group["alpha"] * state["square_avg"]
    return 1 / (second.sqrt() + group["eps"])


def _adagrad(group: Group, state: Mapping[str, Any], weight: Tensor, gradient: Tensor) -> Tensor:
    whole = gradient + group["weight_decay"] * weight.detach()
    return 1 / ((state["sum"] + whole.square()).sqrt() + group["eps"])


def _plain(group: Group, state: Mapping[str, Any], weight: Tensor, gradient: Tensor) -> Tensor:
    del group, state, weight
    return torch.ones((), device=gradient.device)


_SCALES: dict[type, Callable[[Group, Mapping[str, Any], Tensor, Tensor], Tensor]] = {
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.NAdam: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
    torch.optim.SGD: _plain,
}
