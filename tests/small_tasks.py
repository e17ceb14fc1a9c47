"""Tasks that a worker does in a moment; a job that is given one loads little more than that."""

from __future__ import annotations

import os
import signal

from probes.errors import ActivationError
from probes.progress import Progress


def refuse(sentence, report):
    report(Progress("working", 0, 1))
    raise ActivationError(sentence, got="no", next_step="Do otherwise.")


def double(number, report):
    report(Progress("working", 1, 2, f"number {number}"))
    return 2 * number


def threads_of(_):
    import torch

    return torch.get_num_threads()


def fail(_):
    raise ValueError("what nobody foresaw")


def be_killed_once(place, report):
    report(Progress("working", 0, 1))
    if not place.exists():
        place.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()
