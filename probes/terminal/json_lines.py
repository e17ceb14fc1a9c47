"""Progress as JSON lines on the error stream, for a batch job's log or the program that reads it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from probes.progress import Progress, Report

_SECONDS = 1.0  # between events that tell no more than that the work goes on
_chosen: ContextVar[bool] = ContextVar("json_lines", default=False)


@contextmanager
def use_json_lines() -> Iterator[None]:
    """Have every progress display write JSON lines while open."""
    token = _chosen.set(True)
    try:
        yield
    finally:
        _chosen.reset(token)


def json_lines_in_use() -> bool:
    """Whether progress displays write JSON lines."""
    return _chosen.get()


def report_json_lines(clock: Callable[[], float] = time.monotonic) -> Report:
    """A report that writes `failure`, `result`, and at most once a second `progress` events."""
    started, last = clock(), -_SECONDS

    def report(progress: Progress) -> None:
        nonlocal last
        seconds = clock() - started
        for event, sentence in (("failure", progress.failure), ("result", progress.result)):
            if sentence:
                _write({"event": event, "sentence": sentence, **progress.describe(seconds)})
        if not (progress.failure or progress.result) and seconds - last >= _SECONDS:
            last = seconds
            _write({"event": "progress", **progress.describe(seconds)})

    return report


def _write(event: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(event, ensure_ascii=False) + "\n")
    sys.stderr.flush()
