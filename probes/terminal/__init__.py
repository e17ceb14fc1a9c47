"""What the terminal shows: one progress display, tables that fit 100 columns, the same words and order as the app.

The console and the progress display are here; tables by what they are of, in one module each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from probes.progress import Progress, Report
from probes.terminal.json_lines import json_lines_in_use, report_json_lines
from probes.terminal.table import WIDTH

LOG_SECONDS = 25.0  # between lines of a batch job's log
_FIRST_SECONDS = 2.0  # before the first of them


def console(*, stderr: bool = False) -> Console:
    """A console no wider than the tables are made for."""
    plain = Console(stderr=stderr, highlight=False)
    return (
        Console(stderr=stderr, highlight=False, width=min(WIDTH, plain.width))
        if plain.is_terminal
        else Console(stderr=stderr, highlight=False, width=WIDTH)
    )


@contextmanager
def progress_display(log: Path | None = None) -> Iterator[Report]:
    """One line on the error stream for the whole job: phase, step, note, share done, time left.

    Where that stream is no terminal, as in a batch job, a new line every half a minute at the most; JSON lines instead
    where they are in use.

    Args:
        log: a file that gets a line, with the time, for every report.
    """
    if log is not None:
        with progress_display() as shown, open(log, "a", encoding="utf-8") as file:

            def report_twice(progress: Progress) -> None:
                shown(progress)
                _write_line(file, progress)

            yield report_twice
        return
    if json_lines_in_use():
        yield report_json_lines()
        return
    if not console(stderr=True).is_terminal:
        yield _log_lines()
        return
    bar = Bar(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24, complete_style="#0072B2", finished_style="#0072B2"),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[where]:<22}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0, where="")

        def report(progress: Progress) -> None:
            share = progress.share
            note = progress.note or f"{progress.step}/{progress.steps}"
            if progress.failure:
                bar.console.print(progress.failure, style="red", markup=False)
            if progress.result:
                bar.console.print(progress.result, markup=False, highlight=False)
            bar.update(task, description=progress.phase[:24], completed=share, where=note[:22])

        yield report


def _write_line(file: TextIO, progress: Progress) -> None:
    """Add one report to a log, where it can be read at once."""
    step = f"{progress.phase} {progress.step}/{progress.steps} {progress.note}".rstrip()
    file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {100 * progress.share:3.0f} % {step}\n")
    file.flush()


def _log_lines() -> Report:
    """A report that prints its first line, then one at most every `LOG_SECONDS`, then that of each end."""
    started = last = time.monotonic()
    quiet = True

    def report(progress: Progress) -> None:
        nonlocal last, quiet
        now = time.monotonic()
        if progress.failure:
            sys.stderr.write(f"gravity-probe: {progress.failure}\n")
        if progress.result:
            sys.stderr.write(f"gravity-probe: {progress.result}\n")
            return
        if now - last < LOG_SECONDS and not (quiet and now - started > _FIRST_SECONDS):
            return
        last, quiet = now, False
        seconds_left = progress.seconds_left(now - started)
        left = "" if seconds_left is None else f", {_clock(seconds_left)} left"
        note = f" ({progress.note})" if progress.note else ""
        steps = f"{progress.phase} {progress.step}/{progress.steps}{note}"
        sys.stderr.write(f"gravity-probe: {steps}: {100 * progress.share:.0f} % after {_clock(now - started)}{left}\n")
        sys.stderr.flush()

    return report


def _clock(seconds: float) -> str:
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"
