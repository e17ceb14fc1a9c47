"""Slopes of many examples' losses along directions in weight space, by one backward pass and no weight's gradient.

⟨∇ℓ_z, D⟩ = Σ over modules of ⟨g_z, what D adds to the module's output⟩, where g_z is the gradient at that output, which
a backward pass makes anyway (the "ghost" products of Wang et al., arXiv 2406.11011, for any module). A matrix,
y_t = W x_t, gives Σ_t g_tᵀ D x_t along one direction; for several its gradient is made once an example, Σ_t g_t x_tᵀ.
Modules, and rows of a matrix, that no direction moves cost nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils._pytree import tree_leaves

from probes.attribution.replay import Replay
from probes.guard.recorded_path import Tensors
from probes.models.output_gradients import Call, output_gradients

_TRIED = 2  # examples on which slopes are held against forward mode's
_TOLERANCE = 1e-3
_MOST_ROWS = 0.5  # of a matrix: where a direction moves more of them, none is left out

Slopes = Callable[[Sequence[int]], tuple[Float[Tensor, " example"], Float[Tensor, "direction example"]]]


def slopes_along(replay: Replay, directions: Sequence[Tensors], tried: Sequence[int]) -> Slopes:
    """A function of examples that gives their summed losses at the present weights, and the slopes of these.

    It counts on weights being used by the module that holds them, and on examples that stand one behind the other in
    what a module puts out. A model that does otherwise is found out on a few examples; its slopes are then taken in
    forward mode (`Replay.losses_along`), which is slower.

    Args:
        replay: the model and the data.
        directions: by name of the weight, all of the same names.
        tried: places of examples that may be tried: two at most, whose losses count some token.
    """
    parts = _parts_of(replay, directions)

    def backwards(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        return _backwards(replay, parts, len(directions), places)

    def forwards(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        return replay.losses_along(places, directions)

    some = [place for place in tried if replay.examples[place].tokens][:_TRIED]  # of others every slope is 0
    ours, theirs = (way(some)[1] for way in (backwards, forwards))
    is_right = torch.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * float(theirs.abs().max()))
    return backwards if is_right else forwards


def _backwards(
    replay: Replay, parts: Sequence[_Part], directions: int, places: Sequence[int]
) -> tuple[Float[Tensor, " example"], Float[Tensor, "direction example"]]:
    slopes = torch.zeros(directions, len(places), device=replay.view.device)

    def add(part: int, call: Call, gradient: Tensor) -> None:
        is_whole = len(gradient) % len(places) == 0  # else no example has a part of its own: slopes are not to be had
        slopes.add_(parts[part].slopes(call, gradient, len(places)) if is_whole else torch.nan)

    with output_gradients([part.module for part in parts], len(places), add):
        losses = replay.losses(places)(replay.present)
    losses.sum().backward()
    return losses.detach(), slopes


class _Part:
    """A module with weights that some direction moves."""

    def __init__(self, module: nn.Module, moves: Sequence[Tensors]) -> None:
        """`moves`: of each direction, by the weight's name inside the module."""
        self.module, self._moves = module, moves
        weights = dict(module.named_parameters(remove_duplicate=False))
        self._present = {name: weights[name].detach() for name in moves[0]}

    def slopes(self, call: Call, gradient: Tensor, examples: int) -> Float[Tensor, "direction example"]:
        """⟨gradient, what each direction adds to the output⟩ of every example.

        Args:
            call: of the module.
            gradient: of the summed loss at its output.
            examples: of the batch, one behind the other in the output.
        """

        def output(weights: Tensors) -> Tensor:
            return tree_leaves(functional_call(self.module, weights, call.args, call.kwargs))[call.output]

        added: list[Any] = [jvp(output, (self._present,), (move,))[1] for move in self._moves]
        return torch.stack([_by_example(gradient * change, examples).sum(dim=(1, 2)) for change in added])


class _Matrix(_Part):
    """y = W x, perhaps with a bias."""

    def __init__(self, module: nn.Module, moves: Sequence[Tensors]) -> None:
        super().__init__(module, moves)
        self._matrices = [move["weight"] for move in moves if "weight" in move]
        self._biases = [move["bias"] for move in moves if "bias" in move]
        moved = torch.stack([matrix.any(dim=1) for matrix in self._matrices]).any(dim=0) if self._matrices else None
        self._rows = None if moved is None or moved.float().mean() > _MOST_ROWS else moved.nonzero()[:, 0]
        if self._rows is not None:
            self._matrices = [matrix[self._rows] for matrix in self._matrices]

    def slopes(self, call: Call, gradient: Tensor, examples: int) -> Float[Tensor, "direction example"]:
        inputs, pulls = (_by_example(tensor, examples) for tensor in (call.args[0], gradient))
        slopes = torch.zeros(len(self._moves), examples, device=gradient.device)
        if self._biases:
            slopes += torch.stack([(pulls @ bias).sum(dim=1) for bias in self._biases])
        if self._rows is not None:
            pulls = pulls[..., self._rows]
        if len(self._matrices) == 1:
            slopes += ((inputs @ self._matrices[0].T) * pulls).sum(dim=(1, 2))
        elif self._matrices:
            for example in range(examples):
                own = (pulls[example].T @ inputs[example]).flatten()
                slopes[:, example] += torch.stack([own @ matrix.flatten() for matrix in self._matrices])
        return slopes


def _parts_of(replay: Replay, directions: Sequence[Tensors]) -> list[_Part]:
    """Every module with weights that are moved: a tied weight counts in each module that holds it."""
    model = replay.view.model
    modules = dict(model.named_modules(remove_duplicate=False))
    names = {id(weight): name for name, weight in replay.weights.items() if name in directions[0]}
    held: dict[nn.Module, dict[str, str]] = {}
    for path, weight in model.named_parameters(remove_duplicate=False):
        name = names.get(id(weight))
        if name is not None and any(bool(direction[name].any()) for direction in directions):
            holder = _holder(modules, path)
            held.setdefault(modules[holder], {})[path.removeprefix(holder).removeprefix(".")] = name
    return [
        (_Matrix if type(module) is nn.Linear else _Part)(
            module, [{own: direction[name] for own, name in weights.items()} for direction in directions]
        )
        for module, weights in held.items()
    ]


def _holder(modules: dict[str, nn.Module], path: str) -> str:
    """The module that uses a weight: a tuner's layer as a whole, or what holds the weight."""
    ends = [place for place, letter in enumerate(path) if letter == "."]
    above = [path[:end] for end in ends]
    return next((prefix for prefix in above if isinstance(modules[prefix], BaseTunerLayer)), path.rpartition(".")[0])


def _by_example(tensor: Tensor, examples: int) -> Float[Tensor, "example token number"]:
    return tensor.reshape(examples, -1, tensor.shape[-1])
