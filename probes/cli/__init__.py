"""The command `gravity-probe`: one file a group of verbs; whatever loads torch is imported inside the verb."""

from __future__ import annotations

import errno
import sys

import typer

from probes import __version__
from probes.cli import behaviour, directions, draw, look, measure, train, vectors
from probes.errors import GravityError

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


measure.register(app)
look.register(app)
draw.register(app)
behaviour.register(app)
directions.register(app)
vectors.register(app)
train.register(app)


def main() -> None:
    """Run the command; a refusal is one sentence on the error stream and its exit code."""
    try:
        app()
    except GravityError as error:
        _stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        _stop("Stopped. The same command goes on where it stopped.", 130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _stop(
            f"The disk is full ({error.filename or 'while writing'}). Free some room; the same command goes on.",
            1,
        )


def _stop(sentence: str, code: int) -> None:
    typer.secho(f"gravity-probe: {sentence}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    sys.exit(code)
