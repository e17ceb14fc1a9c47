"""The guard: watches and opposes reversion while a model is fine-tuned.

`modes` holds what it can do, `step` acts between backward pass and optimiser, `loop` is a plain training loop that
takes it, `callback` the same for transformers' Trainer.
"""

from typing import Any

from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.loop import Batch, Example, Schedule, answer_loss, shuffle_batches, train
from probes.guard.modes import FORMS, MODES, Options, Projection, describe_modes, make_effect
from probes.guard.reading import Reader
from probes.guard.step import Guard


def __getattr__(name: str) -> Any:
    """`ReversionGuard` loads transformers' Trainer, which the plain loop does without."""
    if name == "ReversionGuard":
        from probes.guard.callback import ReversionGuard

        return ReversionGuard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FORMS",
    "MODES",
    "Batch",
    "Example",
    "Guard",
    "GuardError",
    "GuardedDirection",
    "Options",
    "Projection",
    "Reader",
    "ReversionGuard",
    "Schedule",
    "answer_loss",
    "describe_modes",
    "make_effect",
    "shuffle_batches",
    "train",
]
