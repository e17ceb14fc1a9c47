"""Behaviour of checkpoints, judged from text they generate: refusals, over-refusals, loss of the benign task."""

from probes.behaviour.coherence import incoherence
from probes.behaviour.evaluate import COMPLETION_COLUMNS, RATE_COLUMNS, evaluate
from probes.behaviour.generate import generate
from probes.behaviour.rates import mean_per_token, wilson
from probes.behaviour.refusal import Reading, read
from probes.behaviour.task import rendered_items, task_loss

__all__ = [
    "COMPLETION_COLUMNS",
    "RATE_COLUMNS",
    "Reading",
    "evaluate",
    "generate",
    "incoherence",
    "mean_per_token",
    "read",
    "rendered_items",
    "task_loss",
    "wilson",
]
