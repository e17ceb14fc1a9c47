"""How long work tells its caller where it is; the edge decides how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

_FIRST_SHARE = 0.01  # of a job: before that much is done, a guess of what is left is idle


@dataclass(frozen=True)
class TaskCount:
    """How many of the tasks that need no other have ended.

    Attributes:
        done: have succeeded.
        failed: were refused.
        running: are being done; None where nobody knows.
        tasks: there are, of this kind.
    """

    done: int
    failed: int
    running: int | None
    tasks: int

    @property
    def sentence(self) -> str:
        """The counts in words; nothing of what failed where none did."""
        counts = {"done": self.done, "failed": self.failed or None, "running": self.running}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count is not None)


@dataclass(frozen=True)
class Progress:
    """One report from a running phase.

    Attributes:
        phase: what is being done, in words a user knows.
        step: units of this phase that are done.
        steps: units this phase will take.
        note: what else is worth seeing, such as the loss or the checkpoint's name.
        fraction: share of the whole job that is done, in [0, 1]; None where only the phase is known.
        failure: what has just failed while the rest goes on, in a sentence to be shown at once.
        result: a sentence that is known already and stays on the screen; empty where there is none.
        tasks: the counts of the tasks that the phase consists of; None where it is a single one.
    """

    phase: str
    step: int
    steps: int
    note: str = ""
    fraction: float | None = None
    failure: str = ""
    result: str = ""
    tasks: TaskCount | None = None

    @property
    def share(self) -> float:
        """Share of the whole job that is done, in [0, 1]; of this phase where only that is known."""
        if self.fraction is not None:
            return self.fraction
        return self.step / self.steps if self.steps else 0.0

    def seconds_left(self, seconds: float) -> float | None:
        """What is left after so many seconds if the rest goes as fast; None before a hundredth is done."""
        return seconds * (1 - self.share) / self.share if self.share >= _FIRST_SHARE else None

    def describe(self, seconds: float) -> dict[str, Any]:
        """As JSON, so many seconds after the beginning: with the time, what is left of it, and the counts of tasks."""
        left = self.seconds_left(seconds)
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "phase": self.phase,
            "note": self.note,
            "share": round(self.share, 4),
            "seconds": round(seconds, 1),
            "seconds_left": None if left is None else round(left, 1),
            **({} if self.tasks is None else vars(self.tasks)),
        }


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


def within(report: Report, start: float, end: float) -> Report:
    """A report for one part of a job, which takes the whole from `start` to `end` (shares in [0, 1])."""

    def part(progress: Progress) -> None:
        report(replace(progress, fraction=start + (end - start) * progress.share))

    return part
