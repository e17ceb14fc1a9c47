"""The command `gravity-probe`: one file a group of verbs; whatever loads torch is imported inside the verb."""

from __future__ import annotations

import typer

from probes import __version__
from probes.cli import arms, attribute, behaviour, demo, directions, draw, keep, look, measure, plan, train, vectors
from probes.cli.command import stop

app = typer.Typer(
    name="gravity-probe",
    help="Is a fine-tuned model falling back towards what it was before alignment: where, how far, how surely?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
    if version:
        typer.echo(f"gravity-probe {__version__}")
        raise typer.Exit


demo.register(app)
measure.register(app)
plan.register(app)
look.register(app)
draw.register(app)
behaviour.register(app)
directions.register(app)
vectors.register(app)
train.register(app)
arms.register(app)
attribute.register(app)
keep.register(app)


def main() -> None:
    """Run the command; whatever goes wrong is one sentence on the error stream and an exit code."""
    try:
        app()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last catch: a traceback is for the log
        stop(error)
