"""What a training without a guard still needs of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from probes.guard.resuming import WholeCheckpoint, forget_after, mark_whole
from probes.guard.trainer_path import TrainerPath


class Unguarded(TrainerCallback):
    """What a training without a guard still needs of one: its checkpoints are marked where they are whole.

    Attributes:
        stopped: None: nothing stops it.
        last_healthy: None: nobody looks at its health.
    """

    stopped: str | None = None
    last_healthy: Path | None = None

    def __init__(self, *, record_path: bool = False) -> None:
        """Record the path of the training, or not."""
        self._path = TrainerPath() if record_path else None

    @property
    def records_path(self) -> bool:
        """Whether it has to see every batch whole."""
        return self._path is not None

    def join(self, trainer: Any) -> Unguarded:
        """Add this to a Trainer."""
        trainer.add_callback(self)
        return self

    def conclude(self, checkpoints: Sequence[WholeCheckpoint]) -> None:
        """Nothing is left to be finished."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What lies beyond the step that training goes on from is written anew."""
        del control
        forget_after(Path(str(args.output_dir)), state.global_step)
        if self._path is not None:
            self._path.begin(args, state, kwargs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradient is whole."""
        del state, control, kwargs
        if self._path is not None:
            self._path.before(args.max_grad_norm or 0.0)
            self._path.add_guard()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimiser has stepped."""
        del args, state, control, kwargs
        if self._path is not None:
            self._path.after()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is recorded before its checkpoint is saved."""
        del args, control, kwargs
        if self._path is not None:
            self._path.end_step(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The path is whole."""
        del args, control, kwargs
        if self._path is not None:
            self._path.end(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint is whole."""
        del control, kwargs
        mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", ringing=(), stopped=None)
