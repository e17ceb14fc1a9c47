"""What a training is watched for: its return at every measurement, and its answers where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from probes.guard.alarm import Alarm, AlarmTests, Hearing, Reading, count_measurements
from probes.guard.model_in_training import LiveModel
from probes.guard.resuming import RETURN, SAFETY
from probes.guard.safety_watch import SafetyWatch
from probes.run import Run


class Watch:
    """The alarm on the return and the one on the safety answer; either may be absent."""

    def __init__(self, run: Run, alarm: Alarm | None, answers: SafetyWatch | None, *, recorded: bool) -> None:
        """Choose what rings.

        Args:
            run: holds aligned and witness.
            alarm: on the return.
            answers: on the safety answer.
            recorded: whether the run is written.
        """
        self._run, self._alarm, self._answers, self._recorded = run, alarm, answers, recorded
        self._planned = 1
        self._tests: AlarmTests | None = None

    def __bool__(self) -> bool:
        return bool(self._alarms)

    @property
    def ringing_alarms(self) -> tuple[str, ...]:
        """Names of those that are on."""
        return tuple(name for name, alarm in self._alarms.items() if alarm.ringing)

    def asks_at(self, step: int) -> bool:
        """Whether answers are asked for at a step."""
        return self._answers is not None and self._answers.is_due(step)

    def plan(self, last: int, due: Callable[[int], bool], save_every: int | None) -> None:
        """Share alpha among the measurements; arguments as of `alarm.count_measurements`."""
        self._planned, self._tests = count_measurements(last, due, save_every), None

    def begin(self, live: LiveModel, step: int) -> None:
        """Ask the aligned model, where answers are asked for."""
        if self._answers is not None:
            self._answers.begin(live, self._run, step, recorded=self._recorded)

    def resume(self, ringing: Collection[str]) -> None:
        """Be as when the checkpoint was saved from which training goes on, when the alarms of these names were on."""
        for name, alarm in self._alarms.items():
            alarm.ringing = name in ringing

    def look(self, live: LiveModel, reading: Reading, rows: np.ndarray) -> str | None:
        """Take a measurement in.

        Args:
            live: the model, which is asked where answers are due.
            reading: what was measured.
            rows: activations at the headline layer.

        Returns:
            Why an alarm has begun to ring just now; None where none has.
        """
        sentences = []
        if self._alarm is not None and self._alarm.hears(reading, lambda: self._hear(rows)):
            sentences.append(self._alarm.sentence(reading))
        if self._answers is not None and self.asks_at(reading.step) and self._answers.evaluate(live):
            sentences.append(self._answers.sentence(reading.step))
        return " ".join(sentences) or None

    def entries(self, step: int) -> dict[str, float | None]:
        """What goes to the Trainer's log."""
        entries: dict[str, float | None] = {"alarm": float(bool(self.ringing_alarms))} if self else {}
        if self._answers is not None and self._answers.answer is not None and self.asks_at(step):
            entries["refusal_harmful"] = self._answers.answer.refusal_after
        return entries

    def document(self) -> dict[str, Any]:
        """What the alarms rest on, for `alarm.json`."""
        document: dict[str, Any] = {"planned_measurements": self._planned}
        if self._alarm is not None and self._alarm.heard is not None:
            document["tests"] = self._alarm.document()
        if self._answers is not None and self._answers.answer is not None:
            document["safety"] = self._answers.answer.to_json()
        return document

    @property
    def _alarms(self) -> Mapping[str, Alarm | SafetyWatch]:
        alarms = {RETURN: self._alarm, SAFETY: self._answers}
        return {name: alarm for name, alarm in alarms.items() if alarm is not None}

    def _hear(self, rows: np.ndarray) -> Hearing:
        if self._tests is None:
            self._tests = AlarmTests(self._run, self._planned)
        return self._tests.hear(rows)
