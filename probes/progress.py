"""How long work tells its caller where it is; the edge decides how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace


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
    """

    phase: str
    step: int
    steps: int
    note: str = ""
    fraction: float | None = None
    failure: str = ""
    result: str = ""

    @property
    def share(self) -> float:
        """Share of the whole job that is done, in [0, 1]; of this phase where only that is known."""
        if self.fraction is not None:
            return self.fraction
        return self.step / self.steps if self.steps else 0.0


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


def within(report: Report, start: float, end: float) -> Report:
    """A report for one part of a job, which takes the whole from `start` to `end` (shares in [0, 1])."""

    def part(progress: Progress) -> None:
        report(replace(progress, fraction=start + (end - start) * progress.share))

    return part
