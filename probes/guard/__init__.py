"""The guard: watches and opposes reversion while a model is fine-tuned.

`forms` holds what it can do, `guard` acts between backward pass and optimiser, `loop` is a plain training loop that
takes it, `callback` the same for transformers' Trainer.
"""

from probes.guard.direction import GuardedDirection, GuardError
from probes.guard.forms import FORMS, MODES, Options, Projection, make_effect
from probes.guard.guard import Guard
from probes.guard.loop import Batch, Example, Schedule, answer_loss, shuffled, train
from probes.guard.material import Material
from probes.guard.reading import Reader, residuals

__all__ = [
    "FORMS",
    "MODES",
    "Batch",
    "Example",
    "Guard",
    "GuardError",
    "GuardedDirection",
    "Material",
    "Options",
    "Projection",
    "Reader",
    "Schedule",
    "answer_loss",
    "make_effect",
    "residuals",
    "shuffled",
    "train",
]
