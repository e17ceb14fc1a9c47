"""The verb `demo`: a toy model with its whole history, or one made from a chat model that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from probes.cli.command import Json, Verb, Workers, with_json_lines
from probes.cli.output import print_json
from probes.cli.ways import words
from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.tasks.chat_demo import ChatDemo

_WORKERS = 2  # of the toy model's demo, which trains its arms on two cores


def register(app: typer.Typer) -> None:
    """Put the verb on the command."""
    app.command(cls=Verb)(with_json_lines(demo))


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Fine-tuning runs per arm.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the whole history.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Same stages, smaller and shorter: two minutes.")] = False,
    app: Annotated[bool, typer.Option("--app/--no-app", help="Open the front end at the end.")] = True,
    nulls: Annotated[bool, typer.Option("--nulls/--no-nulls", help="Test the drift against its nulls.")] = True,
    recipe: Annotated[
        Literal["post-hoc", "integrated"],
        typer.Option(help="Alignment as the last step of the history (post-hoc), or in its pretraining (integrated)."),
    ] = "post-hoc",
    controls: Annotated[
        bool, typer.Option("--controls", help="Train continued alignment, the mirror and a positive control as well.")
    ] = False,
    screened: Annotated[
        bool, typer.Option("--screened", help="Drop benign requests that the aligned model refuses.")
    ] = False,
    record_path: Annotated[
        bool, typer.Option("--record-path", help="Keep what every step of every arm was made from, for `attribute`.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Make the history from this chat model: a folder, a hub id or a GGUF file."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --model: requests with answers, in place of made-up arithmetic problems.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="With --model: train every weight, not adapters.")] = False,
    method: Annotated[
        str, typer.Option(help="With --model: the tuner of the adapters; `train --method list` prints them all.")
    ] = "lora",
    arms: Annotated[
        str,
        typer.Option(help="With --model: arms to train beside the demo's own, comma-separated, as `arms` takes them."),
    ] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete an earlier demo in the same folder first.")] = False,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Train a small model with a real history on the spot, or align and fine-tune your own, and watch it revert."""
    if model is not None:
        if recipe != "post-hoc" or controls or screened or record_path:
            raise UsageError(
                "--recipe, --controls, --screened and --record-path are of the toy model's demo",
                next_step="Leave out --model REF.",
            )
        from probes.tasks.chat_demo import ChatDemo

        more_arms = tuple(words(arms))
        chat_demo = ChatDemo(
            model, data, seed, seeds, quick, nulls, method="full" if full else method, more_arms=more_arms
        )
        _run_chat_demo(out, chat_demo, workers, fresh=fresh, as_json=json_)
        return _open_app(out, app and not json_)
    if data is not None or full or method != "lora" or arms:
        raise UsageError("--data, --full, --method and --arms need a chat model", next_step="Give --model REF.")
    from probes.cli.look import print_summary
    from probes.engine import open_engine
    from probes.tasks.demo import Demo, make_demo, screenings
    from probes.terminal import console, progress_display
    from probes.terminal.show_run import published_table

    options = Demo(seed, seeds, quick, nulls, recipe, controls, screened, record_path)
    with progress_display() as report, open_engine(workers or _WORKERS):
        run = make_demo(out, options, fresh=fresh, report=report)
    summary = print_summary(run, as_json=json_)
    if not json_:
        console().print(published_table(summary))
        for place, screening in enumerate(screenings(out, options)):
            left = " They are left out." if screened and screening.refused else ""
            console().print(f"Benign data, seed {place}: {screening.sentence}{left}")
    _open_app(run.path, app and not json_)


def _run_chat_demo(out: Path, demo: ChatDemo, workers: str | None, *, fresh: bool, as_json: bool) -> None:
    """Make the demo, or go on with it, and print what came of it.

    Args:
        out: the run folder.
        demo: which one.
        workers: as `open_engine` takes it.
        fresh: delete an earlier demo in the same folder first.
        as_json: print the table of arms and the counts as JSON.
    """
    from probes.cli.look import print_summary
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
    print_summary(run, as_json=False)
    console().print(experiment_table(table))
    typer.echo("\n".join(summary.sentences))


def _open_app(path: Path, opens: bool) -> None:
    """Become the front end on a run, unless it is left out."""
    if opens:
        from probes.cli.look import start_app

        start_app(path)
