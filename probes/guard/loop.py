"""A plain training loop: answers' loss through Adam, with a guard or without."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardError
from probes.guard.path_recorder import PathRecorder
from probes.guard.recorded_path import RecordedExample
from probes.guard.step import Guard
from probes.models.padding import pad_tokens

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
    hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state  # type: ignore[operator]
    counted = batch.targets != IGNORED
    logits = model.lm_head(hidden[counted])  # type: ignore[operator]
    return nn.functional.cross_entropy(logits.float(), batch.targets[counted])


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    schedule: Schedule,
    *,
    guard: Guard | None = None,
    on_step: Callable[[int, float], None] | None = None,
    record: Recording | None = None,
) -> None:
    """Train every weight in place with Adam.

    Args:
        model: a causal language model of transformers.
        batches: one for each optimiser step.
        schedule: the learning rate.
        guard: acts at each step; it must be attached.
        on_step: called after each optimiser step with its number, from 1, and the loss without any penalty.
        record: where the path is recorded, and the examples that the batches are drawn from.

    Raises:
        GuardError: the loss or the penalty is not finite; the weights are then those of the step before.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.peak, fused=True)
    recorder = None if record is None else record.begin(model, optimizer, guard)
    step = 0
    with contextlib.nullcontext() if guard is None else guard.editing():
        for step, batch in enumerate(batches, start=1):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate(step)
            loss = answer_loss(model, batch)
            if not torch.isfinite(loss):
                raise GuardError(
                    f"The loss of step {step} is not finite", next_step="Lower the learning rate or the penalty."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if recorder is not None:
                recorder.batch(batch.examples)
                recorder.before()
            if guard is not None:
                guard.step(model)
            if recorder is not None:
                recorder.add_guard()
            optimizer.step()
            if recorder is not None:
                recorder.after()
            if guard is not None:
                guard.after_step()
            if recorder is not None:
                recorder.end_step(step)
            if on_step is not None:
                on_step(step, loss.item())
    if recorder is not None:
        recorder.end(step)
