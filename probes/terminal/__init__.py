"""What the terminal shows: one progress display, tables that fit 100 columns, the same words and order as the app.

The console and the progress display are here; tables by what they are of, in one module each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
from probes.terminal.table import WIDTH


def console(*, stderr: bool = False) -> Console:
    """A console no wider than the tables are made for."""
    found = Console(stderr=stderr, highlight=False)
    return (
        Console(stderr=stderr, highlight=False, width=min(WIDTH, found.width))
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, width=WIDTH)
    )


@contextmanager
def progress_display(*, shown: bool = True) -> Iterator[Report]:
    """One line on the error stream for the whole job: phase, step, note, share done, time left."""
    bar = Bar(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24, complete_style="#0072B2", finished_style="#0072B2"),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[where]:<22}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        disable=not shown,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0, where="")

        def report(progress: Progress) -> None:
            share = progress.fraction
            if share is None:
                share = progress.step / progress.steps if progress.steps else 0.0
            where = progress.note or f"{progress.step}/{progress.steps}"
            bar.update(task, description=progress.phase[:24], completed=share, where=where[:22])

        yield report
