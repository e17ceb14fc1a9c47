"""Records the path of a Trainer's training: which rows its batches held, and what it clipped, seen by hooks."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probes.guard.guarded_direction import GuardError
from probes.guard.path_recorder import PathRecorder, norm_of
from probes.guard.recorded_path import PATH, RecordedExample, draws_before
from probes.guard.step import Guard, clip_factor
from probes.models.hooks import watch_training
from probes.models.view import unwrap


class TrainerPath:
    """Takes down one training of transformers' Trainer; its callback calls in the order of the methods."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._batches: list[tuple[list[int], float | None]] = []
        self._squares: dict[str, Tensor] = {}

    def begin(self, args: Any, state: Any, events: Mapping[str, Any], guard: Guard | None = None) -> None:
        """Look through the data, and begin to watch.

        Args:
            args: the Trainer's.
            state: the Trainer's.
            events: what else the Trainer gives its callbacks: model, optimizer, train_dataloader.
            guard: what acts beside the task.

        Raises:
            GuardError: several processes, loss scaling, data without an order, or another optimiser.
        """
        model, optimizer = events["model"], events["optimizer"]
        if args.world_size > 1 or args.n_gpu > 1 or getattr(optimizer, "scaler", None) is not None:
            raise GuardError("A path is recorded of one process on one device, without float16's loss scaling")
        folder = Path(str(args.output_dir)) / PATH
        examples = _examples_of(events["train_dataloader"])
        self._places = _Places(examples)
        for place in draws_before(folder, state.global_step):
            self._places.take(examples[place])
        self._recorder = PathRecorder(folder)
        self._recorder.begin(model, optimizer, examples, guard, state.global_step)
        weights = {name: weight for name, weight in unwrap(model).named_parameters() if weight.requires_grad}
        self._open.enter_context(watch_training(model, weights, self._note_batch, self._note_gradient))

    def before(self, limit: float) -> None:
        """The task's gradient is clipped to `limit`."""
        for places, weight in self._batches:
            self._recorder.batch(places, weight, len(self._batches))
        self._batches = []
        self._recorder.before(clip_factor(norm_of(list(self._squares.values())), limit))
        self._squares = {}

    def add_guard(self, clip: float = 1.0) -> None:
        """The guard's gradient is added, and the sum clipped by this factor."""
        self._recorder.add_guard(clip)

    def after(self) -> None:
        """The optimiser has stepped."""
        self._recorder.after()

    def end_step(self, state: Any) -> None:
        """The step is over; behind the last planned one the path is whole before its checkpoint is saved."""
        self._recorder.end_step(state.global_step)
        if state.global_step == state.max_steps:
            self.end(state.global_step)

    def end(self, step: int) -> None:
        """Training is over."""
        self.close()
        self._recorder.end(step)

    def close(self) -> None:
        """No longer watch; needed only after an exception."""
        self._open.close()

    def _note_batch(self, inputs: Mapping[str, Any]) -> None:
        count = inputs.get("num_items_in_batch")
        places = [self._places.take(example) for example in _rows_of(inputs)]
        self._batches.append((places, None if count is None else 1 / float(count)))

    def _note_gradient(self, name: str, gradient: Tensor) -> None:
        self._squares[name] = gradient.detach().float().square().sum()


class _Places:
    """The place of an example in the data by what it holds; equal examples are taken in turn."""

    def __init__(self, examples: Iterable[RecordedExample]) -> None:
        self._places: dict[RecordedExample, list[int]] = defaultdict(list)
        for place, example in enumerate(examples):
            self._places[example].append(place)

    def take(self, example: RecordedExample) -> int:
        """The place of the example that a batch holds.

        Raises:
            GuardError: it is not in the data.
        """
        if example not in self._places:
            raise GuardError(
                "A batch holds a row that is not in the data, so that the path cannot be recorded",
                next_step="Train without packing, and with a data set that gives equal rows at each look.",
            )
        places = self._places[example]
        places.append(places.pop(0))
        return places[-1]


def _examples_of(loader: Any) -> list[RecordedExample]:
    """Every row of the data as a batch of its own shows it."""
    data = loader.dataset
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise GuardError("The path of streamed data is not recorded", next_step="Train on a data set with a length.")
    return [_rows_of(loader.collate_fn([data[place]]))[0] for place in range(len(data))]


def _rows_of(inputs: Mapping[str, Any]) -> list[RecordedExample]:
    """Token ids and labels of the rows of a batch, without padding."""
    ids, labels = inputs["input_ids"].cpu(), inputs["labels"].cpu()
    mask = inputs.get("attention_mask")
    present = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.cpu().bool()
    return [
        RecordedExample(tuple(ids[row][present[row]].tolist()), tuple(labels[row][present[row]].tolist()))
        for row in range(len(ids))
    ]
