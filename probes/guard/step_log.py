"""What the guard did at each step, in `guard.jsonl` beside a training's checkpoints: one line a step.

`effective_strength` is ‖d ⊙ g_penalty‖ / ‖d ⊙ g_task‖, what the guard's gradient makes of the optimiser's step
(`probes.training.preconditioning`); null where it acted by no gradient, or the optimiser has no such d. Beside it
`guard.json` says along which direction the training is guarded.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.guard.guarded_direction import GuardError
from probes.guard.step import Guard
from probes.lineage.trainer_folder import DIRECTION, GUARDED
from probes.store import write_json, write_text
from probes.store.documents import parse_json_or_lines, read_text

STEP_LOG = "guard.jsonl"


class StepLog:
    """Grows by a line a step; a training that goes on drops what lies beyond the step that it goes on from."""

    def __init__(self, folder: Path, guard: Guard, resumed_at: int = 0) -> None:
        """Take up the log of an attached guard in a training's folder of checkpoints."""
        self._file, self._guard = folder / STEP_LOG, guard
        write_json(folder / GUARDED, {DIRECTION: guard.direction_sha256})
        earlier = [line for line in read_step_log(folder) if line["step"] <= resumed_at]
        write_text(self._file, "".join(json.dumps(line) + "\n" for line in earlier))

    def note(self, step: int) -> None:
        """Take down what the guard has just done."""
        guard = self._guard
        line = {"step": step, "gradient_ratio": guard.ratio, "effective_strength": guard.strength}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | ({"reason": guard.reason} if guard.reason else {})) + "\n")


def read_step_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's log, by step; empty where it has none."""
    file = folder / STEP_LOG
    if not file.is_file():
        return []
    text = read_text(file, kind="log of a guard", error=GuardError)
    whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last line off
    return [line for _, line in parse_json_or_lines(whole, str(file), error=GuardError)] if whole.strip() else []


@dataclass(frozen=True)
class Strength:
    """How strong a guard was in the optimiser's steps.

    Attributes:
        steps: of the training.
        defined: those at which it is defined.
        median: over these; None where there are none.
        low: the least.
        high: the greatest.
        reason: why it is not defined at some; None where it is at all.
    """

    steps: int
    defined: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @classmethod
    def of(cls, lines: Sequence[dict[str, Any]]) -> Strength:
        """Over the lines of a log."""
        values = [line["effective_strength"] for line in lines if line["effective_strength"] is not None]
        reason = next((line["reason"] for line in lines if line.get("reason")), None)
        if not values:
            return cls(len(lines), 0, reason=reason)
        return cls(len(lines), len(values), statistics.median(values), min(values), max(values), reason)

    @property
    def sentence(self) -> str:
        """In words."""
        if self.median is None or self.low is None or self.high is None:
            return f"Guard ÷ task in the optimiser's step: not defined ({self.reason or 'it never acted'})."
        return (
            f"Guard ÷ task in the optimiser's step (norms of the preconditioned gradients): median {self.median:.2g}, "
            f"{self.low:.2g} to {self.high:.2g} over {self.defined} of {self.steps} steps."
        )
