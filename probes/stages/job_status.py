"""How far the jobs of a run are, in a file that another process can read while they go on."""

from __future__ import annotations

import time
from typing import Any

from filelock import FileLock, Timeout

from probes.progress import Progress, Report
from probes.run import Run
from probes.store.atomic import write_json
from probes.store.documents import parse_json

_FILE = ".jobs.json"
_SECONDS = 5.0  # between two times that it is written; what is done sooner leaves none


class JobStatus:
    """Keeps the file, which is gone once all jobs are done."""

    def __init__(self, run: Run, report: Report) -> None:
        """Write nothing yet.

        Args:
            run: open for writing.
            report: told the same.
        """
        self._run, self._path, self._report = run, run.path / _FILE, report
        self._failures: list[str] = []
        self._started = self._written = time.monotonic()

    def report(self, progress: Progress) -> None:
        """Pass it on, and write it down from time to time, and where a job has failed.

        What earlier jobs have left is written into the manifest by the way, once that is due.
        """
        self._report(progress)
        self._run.save_what_waits()
        now = time.monotonic()
        if progress.failure:
            self._failures.append(progress.failure)
        last_word = bool(self._failures) and progress.share == 1.0
        if progress.failure or last_word or now - self._written > _SECONDS:
            self._written = now
            write_json(self._path, {**progress.describe(now - self._started), "failures": self._failures})

    def forget(self) -> None:
        """All are done."""
        self._path.unlink(missing_ok=True)


def read_job_status(run: Run) -> dict[str, Any] | None:
    """What the file says, with whether a process is `at_work` on the run; None where there is none."""
    path = run.path / _FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return {**parse_json(text, str(path)), "at_work": _is_written_to(run)}


def _is_written_to(run: Run) -> bool:
    lock = FileLock(run.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
