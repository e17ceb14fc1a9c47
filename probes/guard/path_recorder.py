"""Records the path of a training while it runs: what each optimiser step was made from.

`begin`, then around each optimiser step `batch` (for each batch), `before`, `add_guard`, `after` and `end_step`, then
`end`. The plain loop and the Trainer's callback call them in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardError
from probes.guard.model_in_training import dropout_rate
from probes.guard.penalties.edits import Edited
from probes.guard.penalties.effect import Effect
from probes.guard.recorded_path import (
    Optimiser,
    PathWriter,
    RecordedExample,
    Step,
    StepTensors,
    Tensors,
    copy_weights,
)
from probes.guard.step import Guard
from probes.models.view import unwrap

_FIRST, _SECOND, _BUFFER = "exp_avg", "exp_avg_sq", "momentum_buffer"  # as torch's optimisers keep their moments


class PathRecorder:
    """Takes down one training, step by step."""

    def __init__(self, folder: Path) -> None:
        """Record into `folder`, a `path` beside the training's checkpoints."""
        self.folder = folder
        self._writer = PathWriter(folder)

    def begin(
        self,
        model: nn.Module,
        optimizer: Any,
        examples: Sequence[RecordedExample],
        guard: Guard | None = None,
        resumed_at: int = 0,
    ) -> None:
        """Check that the training can be recorded, and write what holds for all of its steps.

        Args:
            model: that is trained, wrapped or not.
            optimizer: torch's AdamW, Adam or SGD, wrapped by accelerate or not.
            examples: all that may be drawn.
            guard: what acts beside the task.
            resumed_at: the step that an interrupted training goes on from.

        Raises:
            GuardError: another optimiser, or dropout, whose masks no later pass repeats.
        """
        self._model = unwrap(model)
        _refuse_dropout(self._model)
        self._weights = {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
        self._optimizer = getattr(optimizer, "optimizer", optimizer)
        self._rule = describe_optimiser(self._optimizer)
        names = {id(weight): name for name, weight in self._weights.items()}
        groups = [[names[id(weight)] for weight in group["params"]] for group in self._optimizer.param_groups]
        self._edits = guard is not None and type(guard.effect).after_step is not Effect.after_step
        self._guard, self._steps = guard, resumed_at
        edited = guard is not None and isinstance(guard.effect, Edited)
        self._writer.begin(self._rule, groups, {"edits_activations": edited})
        self._writer.write_examples(examples)
        self._tokens = [example.tokens for example in examples]
        self._forget()

    def batch(self, examples: Sequence[int], weight: float | None = None, batches: int = 1) -> None:
        """A batch's backward pass belongs to the coming step.

        Args:
            examples: places of its examples.
            weight: what the summed loss of its tokens was multiplied with; None is 1 over their number.
            batches: of the step, where each is a mean of its own.
        """
        tokens = [self._tokens[place] for place in examples]
        self._examples += examples
        self._multipliers += [weight or 1 / (sum(tokens) * batches)] * len(tokens)

    def before(self, clip: float = 1.0) -> None:
        """The task's gradient is there, and clipped by this factor; the guard's is not.

        Raises:
            GuardError: a trained weight has no gradient.
        """
        self._clip, gradients = clip, self._gradients()
        self._tensors = StepTensors(weights=copy_weights(self._weights))
        if self._guard is not None and self._guard.on:
            self._tensors.guard = copy_weights(gradients)

    def add_guard(self, clip: float = 1.0) -> None:
        """The guard's gradient is there, and the sum was clipped by this factor."""
        task = self._tensors.guard
        if task:
            self._tensors.guard = {name: sum_ - clip * task[name] for name, sum_ in self._gradients().items()}
        self._clip *= clip
        if not self._steps:
            self._tensors.moment = self._first_moments()

    def after(self) -> None:
        """The optimiser has stepped, the guard has not yet acted on the weights."""
        self._count = self._steps_of_optimiser()
        if self._rule.is_adaptive:
            self._tensors.scale = {name: self._scale(weight) for name, weight in self._weights.items()}
        if self._edits:
            self._tensors.edit = copy_weights(self._weights)

    def end_step(self, step: int) -> None:
        """The step is over: write it."""
        if self._edits:
            edited = self._tensors.edit
            self._tensors.edit = {name: weight.detach() - edited[name] for name, weight in self._weights.items()}
        groups = self._optimizer.param_groups
        facts = Step(
            step=step,
            count=self._count,
            examples=tuple(self._examples),
            tokens=tuple(self._tokens[place] for place in self._examples),
            weights=tuple(self._multipliers),
            clip=self._clip,
            learning_rate=tuple(float(group["lr"]) for group in groups),
            weight_decay=tuple(float(group["weight_decay"]) for group in groups),
        )
        self._writer.write(facts, self._tensors)
        self._forget()
        self._steps += 1

    def end(self, steps: int) -> None:
        """Training is over."""
        self._writer.end(self._weights, steps)

    def _forget(self) -> None:
        self._examples: list[int] = []
        self._multipliers: list[float] = []
        self._tensors = StepTensors()

    def _gradients(self) -> Tensors:
        gradients = {name: weight.grad for name, weight in self._weights.items() if weight.grad is not None}
        missing = sorted(set(self._weights) - set(gradients))
        if missing:
            raise GuardError(
                "A trained weight has no gradient, so its step cannot be recorded",
                got=missing[0],
                next_step="Freeze what the loss does not reach.",
            )
        return gradients

    def _first_moments(self) -> Tensors:
        """The optimiser's first moments before its next step; those that are zero are left out."""
        key = _FIRST if self._rule.is_adaptive else _BUFFER
        moments = {name: self._optimizer.state.get(weight, {}).get(key) for name, weight in self._weights.items()}
        return {name: moment.detach().clone() for name, moment in moments.items() if moment is not None}

    def _steps_of_optimiser(self) -> int:
        if not self._rule.is_adaptive:  # the first step alone is another
            return 2 if self._steps or self._tensors.moment else 1
        return int(self._optimizer.state[next(iter(self._weights.values()))]["step"])

    def _scale(self, weight: nn.Parameter) -> Tensor:
        """d = 1 / (√v̂ + ε), as the step that has just been taken used it."""
        rule, second = self._rule, self._optimizer.state[weight][_SECOND]
        corrected = second / (1 - (rule.second_beta or 0.0) ** self._count)
        return 1 / (corrected.sqrt() + (rule.epsilon or 0.0))


def describe_optimiser(optimizer: torch.optim.Optimizer) -> Optimiser:
    """What of an optimiser decides its steps.

    Raises:
        GuardError: it is none of torch's AdamW, Adam and SGD, or is one with a rule of its own.
    """
    name, options = type(optimizer).__name__, optimizer.defaults
    odd = [option for option in ("amsgrad", "maximize", "nesterov") if options.get(option)]
    if type(optimizer) not in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD) or odd:
        raise GuardError(
            "The path of this optimiser is not recorded",
            got=" with ".join([name, *odd]),
            expected="torch's AdamW, Adam or SGD (optim=adamw_torch, adamw_torch_fused or sgd)",
        )
    if isinstance(optimizer, torch.optim.SGD):
        return Optimiser(name, float(options["momentum"]), dampening=float(options["dampening"]), coupled=True)
    first, second = options["betas"]
    coupled = not (isinstance(optimizer, torch.optim.AdamW) or options.get("decoupled_weight_decay"))
    return Optimiser(name, float(first), float(second), float(options["eps"]), coupled=coupled)


def _refuse_dropout(model: nn.Module) -> None:
    rate = dropout_rate(model)
    if rate:
        raise GuardError(
            "The path of a training with dropout is not recorded: no later pass repeats its masks",
            got=str(rate),
            next_step="Train without dropout (its rates are in the model's config.json).",
        )


def norm_of(squares: Sequence[Tensor]) -> float:
    """The length of a gradient from the squared lengths of its parts."""
    return float(torch.stack(list(squares)).sum().sqrt()) if squares else 0.0
