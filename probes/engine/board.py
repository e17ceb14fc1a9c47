"""A task, and the one progress of tasks that are done at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.errors import GravityError
from probes.progress import Progress, Report, TaskCount


class EngineError(GravityError):
    """Tasks that could not be brought to their end."""


@dataclass(frozen=True)
class Task:
    """One piece of work that needs no other of its kind.

    Attributes:
        name: what it is called where it fails.
        work: is given a report; to be done in another process it must be picklable, as must what it returns.
    """

    name: str
    work: Callable[[Report], Any]


class Board:
    """Turns the steps of tasks that are done at the same time into one progress.

    Attributes:
        tasks: how many there are, as far as is known.
    """

    def __init__(self, report: Report, *, alone: bool, hears_steps: bool) -> None:
        """Begin with none.

        Args:
            report: told at every step, and at every end.
            alone: whether one is done after the other, so that its steps are those of the job.
            hears_steps: whether workers report steps; elsewhere nobody knows which are running.
        """
        self.tasks = 0
        self._report, self._alone, self._hears_steps = report, alone, hears_steps
        self._running: dict[str, float] = {}
        self._ended: set[str] = set()
        self._failed = 0
        self._last = Progress("", 0, 0)

    def pass_on(self, name: str, progress: Progress) -> None:
        """A task has come so far."""
        if name not in self._ended:
            self._running[name] = progress.share
        self._last = progress
        self._tell()

    def end(self, name: str, failure: str = "") -> None:
        """A task has ended; `failure` says how, where it failed."""
        self._running.pop(name, None)
        self._ended.add(name)
        self._failed += bool(failure)
        self._tell(failure)

    def _tell(self, failure: str = "") -> None:
        last = self._last
        fraction = min(1.0, (len(self._ended) + sum(self._running.values())) / self.tasks)
        count = self._count()
        if self._alone:
            self._report(Progress(last.phase, last.step, last.steps, last.note, fraction, failure, tasks=count))
            return
        phase = last.phase or "waiting for jobs"
        self._report(Progress(phase, len(self._ended), self.tasks, count.sentence, fraction, failure, tasks=count))

    def _count(self) -> TaskCount:
        running = len(self._running) if self._alone or self._hears_steps else None
        return TaskCount(len(self._ended) - self._failed, self._failed, running, self.tasks)
