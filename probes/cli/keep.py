"""Verbs that look after a run folder: `status`, `pack`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from probes.cli.command import Verb
from probes.cli.output import print_json

RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(status)
    app.command(cls=Verb)(pack)


def status(
    run: RunPath,
    verify: Annotated[bool, typer.Option("--verify", help="Verify every file's hash, not only its size.")] = False,
    unlock: Annotated[
        bool, typer.Option("--unlock", help="Of a run behind a URL: take the lock of a writer that is gone for good.")
    ] = False,
    json_: Json = False,
) -> None:
    """Report a run's progress and whether its files are intact; exit with 1 if one is not."""
    from probes.run import Run
    from probes.tasks.status import status as describe

    del unlock  # before the run was brought: `bring_runs`
    about = describe(Run(run), verify=verify)
    if json_:
        print_json(about)
    else:
        seconds, size = (sum(stage[name] for stage in about["stages"]) for name in ("seconds", "bytes"))
        typer.echo(
            f"{about['name']}: {about['status']}, {about['checkpoints']} checkpoints, {len(about['stages'])} stages"
        )
        typer.echo(f"{seconds:,.0f} s of work, {size / 1e6:,.1f} MB, {about['omitted']} files left out on purpose")
        if about["remote"] is not None:
            typer.echo("\n".join(_remote_lines(about["remote"], run)))
        if about["jobs"] is not None:
            typer.echo("\n".join(_job_lines(about["jobs"])))
        for stage in about["stages"]:
            if stage["fault"]:
                typer.echo(f"{stage['stage']}: a file {stage['fault']}")
        checked = "hashed" if verify else "looked at by size (--verify hashes them)"
        left_there = about["remote"] is not None and about["remote"]["left_there"]
        whole = f"all {'that are here ' if left_there else ''}as they were written"
        typer.echo(f"Files {checked}: {whole if about['whole'] else 'damaged, see above'}.")
    if not about["whole"]:
        raise typer.Exit(1)


def _remote_lines(remote: dict[str, Any], folder: Path) -> Iterator[str]:
    """Where a run behind a URL is, what of it is not here, and who writes to it."""
    left = f"; {remote['left_there']} files come when they are opened" if remote["left_there"] else ""
    yield f"{remote['url']}, worked on in {folder}{left}"
    if remote["writer"] is not None:
        yield f"Written to by {remote['writer']}"


def _job_lines(jobs: dict[str, Any]) -> Iterator[str]:
    """How far the jobs of a run are, and which have failed."""
    from probes.progress import TaskCount

    left, count = jobs["seconds_left"], TaskCount(*(jobs[name] for name in ("done", "failed", "running", "tasks")))
    then = f"about {left / 60:,.0f} min left" if jobs["at_work"] and left is not None else "stopped"
    yield f"{jobs['phase']}: {count.sentence} of {count.tasks} jobs; {then} (as of {jobs['time']})"
    yield from jobs["failures"]


def pack(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the packed run.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint to keep activations and directions of; may be repeated. Default: every last one."
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Round activations to half precision.")] = False,
    answers: Annotated[
        bool, typer.Option(help="Ship the text of answers, or only their labels and scores.", show_default=True)
    ] = True,
    json_: Json = False,
) -> None:
    """Copy a finished run without its checkpoints and most activations, to ship it; the copy records what it omits."""
    from probes.store.remote import outgoing
    from probes.tasks.pack import Packing, omitted_bytes
    from probes.tasks.pack import pack as copy_run
    from probes.terminal import progress_display

    with progress_display() as report, outgoing(out, report) as target:
        left_out = copy_run(run, target.path, keep, Packing(half=half, answers=answers)).manifest.omitted
        size = sum(path.stat().st_size for path in target.path.rglob("*") if path.is_file())
    place = target.place_of(target.path)
    if json_:
        print_json({"run": place, "bytes": size, "omitted": len(left_out), "omitted_bytes": omitted_bytes(left_out)})
    else:
        typer.echo(f"Written: {place}, {size / 1e6:,.1f} MB")
        typer.echo(f"  {len(left_out)} files are left out ({omitted_bytes(left_out) / 1e6:,.1f} MB)")
