"""What `demo --model` prints: whether the safety tuning worked, whether the task was learned, and the arms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from probes.cli.output import print_json

if TYPE_CHECKING:
    from probes.tasks.chat_demo import ChatDemo


def run_chat_demo(out: Path, demo: ChatDemo, workers: str | None, *, fresh: bool, as_json: bool) -> None:
    """Make the demo, or go on with it, and print what came of it.

    Args:
        out: the run folder.
        demo: which one.
        workers: as `open_engine` takes it.
        fresh: delete an earlier demo in the same folder first.
        as_json: print the table of arms and the counts as JSON.
    """
    from probes.engine import open_engine
    from probes.experiments.outcome import arms_table
    from probes.tasks.chat_demo import make_chat_demo, summarise_chat_demo
    from probes.terminal import console, progress_display
    from probes.terminal.show_arms import experiment_table

    with progress_display() as report, open_engine(workers):
        run = make_chat_demo(out, demo, fresh=fresh, report=report)
    summary, table = summarise_chat_demo(run), arms_table([run])
    if as_json:
        print_json({**summary.to_json(), **table})
        return
    from probes.cli.look import print_summary

    print_summary(run, as_json=False)
    console().print(experiment_table(table))
    typer.echo("\n".join(summary.sentences))
