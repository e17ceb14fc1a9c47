"""The guard: a penalty on motion along the reversion direction, and a plain training loop that takes it."""

from probes.guard.loop import Batch, Example, Schedule, answer_loss, shuffled, train
from probes.guard.penalty import FORMS, GuardedDirection, GuardError, Penalty, residuals

__all__ = [
    "FORMS",
    "Batch",
    "Example",
    "GuardError",
    "GuardedDirection",
    "Penalty",
    "Schedule",
    "answer_loss",
    "residuals",
    "shuffled",
    "train",
]
