"""A plain training loop: answers' loss through any optimiser, with a guard or without."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardError
from probes.guard.path_recorder import PathRecorder
from probes.guard.recorded_path import RecordedExample
from probes.guard.step import Guard
from probes.guard.step_log import StepLog
from probes.models.padding import pad_tokens
from probes.models.view import unwrap
from probes.training.optimizers import ADAM, optimizer
from probes.training.tuners import auxiliary_loss, end_step

IGNORED = -100  # what transformers and torch's cross entropy leave out


@dataclass(frozen=True)
class Example:
    """A text as token ids; the loss is taken on the tokens from `answer_start` on."""

    ids: tuple[int, ...]
    answer_start: int

    @property
    def targets(self) -> tuple[int, ...]:
        """At each token the next one, where the loss is taken on it, else `IGNORED`."""
        return (*self.labels[1:], IGNORED)

    @property
    def labels(self) -> tuple[int, ...]:
        """Each token where the loss is taken on it, else `IGNORED`."""
        return (*[IGNORED] * self.answer_start, *self.ids[self.answer_start :])


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of examples; a target is the next token, or `IGNORED`.

    The padding needs no mask: it lies behind every token that counts, and the models are causal.
    """

    ids: Int[Tensor, "row time"]
    targets: Int[Tensor, "row time"]
    examples: tuple[int, ...] = ()  # their places in the data

    @classmethod
    def of(cls, examples: Sequence[Example], pad: int, places: Sequence[int] = ()) -> Batch:
        """Pad examples to the longest."""
        cpu = torch.device("cpu")
        ids, _ = pad_tokens([example.ids for example in examples], cpu, fill=pad)
        targets, _ = pad_tokens([example.targets for example in examples], cpu, fill=IGNORED)
        return cls(ids, targets, tuple(places))


@dataclass(frozen=True)
class Recording:
    """Where the path of a training is recorded, and what its batches are drawn from."""

    folder: Path
    examples: Sequence[Example]

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, guard: Guard | None) -> PathRecorder:
        """A recorder that is ready for the first step."""
        recorder = PathRecorder(self.folder)
        examples = [RecordedExample(example.ids, example.labels) for example in self.examples]
        recorder.begin(model, optimizer, examples, guard)
        return recorder


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: a linear rise over `warmup` steps, then down a half cosine to `floor` × peak.

    A floor of 1 keeps it constant.
    """

    peak: float
    steps: int
    warmup: int = 0
    floor: float = 0.1

    def learning_rate(self, step: int) -> float:
        """The rate of optimiser step `step`, counted from 1."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        way = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, way))))


@dataclass(frozen=True)
class Stepping:
    """What steps the weights, by name, and what it is told.

    Attributes:
        optimizer: a name that `probes.training.optimizers` knows.
        options: its own.
        weight_decay: of matrices.
    """

    optimizer: str = ADAM
    options: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0

    def begin(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """An optimiser of every trained weight."""
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return optimizer(weights, self.optimizer, learning_rate, self.weight_decay, model=model, **self.options)


def set_rates(own: torch.optim.Optimizer, starts: Sequence[float], rate: float, peak: float) -> None:
    """Give every group of weights its part of a schedule's rate: the rate itself where it began at the peak."""
    for group, start in zip(own.param_groups, starts, strict=True):
        group["lr"] = rate if start == peak else start * rate / peak


def shuffle_batches(
    examples: Sequence[Example], *, batch_size: int, steps: int, seed: int, pad: int
) -> Iterator[Batch]:
    """`steps` batches, going through all examples in a new order each time; the order depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < batch_size:
            order += torch.randperm(len(examples), generator=generator).tolist()
        yield Batch.of([examples[place] for place in order[:batch_size]], pad, order[:batch_size])
        del order[:batch_size]


def answer_loss(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the answer tokens, in nats; other positions are never unembedded."""
    inner = unwrap(model)
    hidden = inner.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    counted = batch.targets != IGNORED
    logits = inner.lm_head(hidden[counted])
    return nn.functional.cross_entropy(logits.float(), batch.targets[counted])


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    schedule: Schedule,
    *,
    stepping: Stepping | None = None,
    guard: Guard | None = None,
    on_step: Callable[[int, float], None] | None = None,
    record: Recording | None = None,
    log: StepLog | None = None,
) -> None:
    """Train every weight that is switched on, in place.

    Args:
        model: a causal language model of transformers, with a tuner on it or without.
        batches: one for each optimiser step.
        schedule: the learning rate.
        stepping: what steps the weights; None is Adam.
        guard: acts at each step; it must be attached.
        on_step: called after each optimiser step with its number, from 1, and the loss without any penalty.
        record: where the path is recorded, and the examples that the batches are drawn from.
        log: takes down what the guard did at each step.

    Raises:
        GuardError: the loss or the penalty is not finite; the weights are then those of the step before.
        UsageError: the optimiser cannot be made.
    """
    own = (stepping or Stepping()).begin(model, schedule.peak)
    starts = [float(group["lr"]) for group in own.param_groups]
    recorder = None if record is None else record.begin(model, own, guard)
    step = 0
    with contextlib.nullcontext() if guard is None else guard.editing():
        for step, batch in enumerate(batches, start=1):
            set_rates(own, starts, schedule.learning_rate(step), schedule.peak)
            loss = answer_loss(model, batch)
            if not torch.isfinite(loss):
                raise GuardError(
                    f"The loss of step {step} is not finite", next_step="Lower the learning rate or the penalty."
                )
            own.zero_grad(set_to_none=True)
            _whole_loss(model, loss).backward()
            if recorder is not None:
                recorder.batch(batch.examples)
                recorder.before()
            if guard is not None:
                guard.step(model, own)
            if recorder is not None:
                recorder.add_guard()
            own.step()
            end_step(model, step)
            if recorder is not None:
                recorder.after()
            if guard is not None:
                guard.after_step()
            if log is not None:
                log.note(step)
            if recorder is not None:
                recorder.end_step(step)
            if on_step is not None:
                on_step(step, loss.item())
    if recorder is not None:
        recorder.end(step)


def _whole_loss(model: nn.Module, loss: Tensor) -> Tensor:
    """The task's loss, with what a tuner adds to it."""
    more = auxiliary_loss(model)
    return loss if more is None else loss + more
