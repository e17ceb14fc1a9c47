"""Verbs that read a run: `summary`, `check`, `compare`, `app`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probes.cli.command import Verb
from probes.cli.output import print_json
from probes.errors import GateTripped, RunFolderError

if TYPE_CHECKING:
    from probes.run import Run
    from probes.tasks.summarise import Summary

RunPath = Annotated[Path, typer.Argument(help="A run folder.")]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(summary)
    app.command(cls=Verb)(check)
    app.command(cls=Verb)(compare)
    app.command(name="app", cls=Verb)(open_app)


def summary(
    run: RunPath, json_: Annotated[bool, typer.Option("--json", help="Print the documented JSON.")] = False
) -> None:
    """Print a run's results at the headline layer, one row per checkpoint."""
    from probes.run import Run

    print_summary(Run(run), as_json=json_)


def check(
    run: RunPath,
    max_return: Annotated[float | None, typer.Option(help="Largest return fraction that still passes.")] = None,
    max_erosion: Annotated[
        float | None,
        typer.Option(
            help="Largest drop in refusals that passes, in percentage points; a larger one must be ruled out at 95 %."
        ),
    ] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Layer; default: the run's headline layer.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")] = False,
) -> None:
    """Exit with 3 when a gate trips: a return above --max-return, or an erosion that cannot be ruled out."""
    from probes.errors import UsageError
    from probes.run import Run
    from probes.tasks.check import return_gate
    from probes.tasks.safety import erosion_gate

    if max_return is None and max_erosion is None:
        raise UsageError("There is nothing to check", expected="--max-erosion, --max-return, or both")
    opened = Run(run)
    gates: dict[str, Any] = {
        **({} if max_erosion is None else {"erosion": erosion_gate(opened, max_erosion)}),
        **({} if max_return is None else {"return": return_gate(opened, max_return, layer)}),
    }
    passed = all(gate.passed for gate in gates.values())
    if json_:
        documents = {name: gate.model_dump(mode="json", by_alias=True) for name, gate in gates.items()}
        print_json({"passed": passed, **documents})
    else:
        for gate in gates.values():
            if gate.passed or passed:
                typer.echo(gate.sentence)
    if not passed:
        raise GateTripped("; ".join(gate.sentence for gate in gates.values() if not gate.passed))


def compare(
    run: RunPath,
    first: Annotated[str, typer.Argument(help="A checkpoint of the run, e.g. aligned.")],
    second: Annotated[str, typer.Argument(help="Another, e.g. baseline-s0-000100.")],
    weights: Annotated[bool, typer.Option("--weights/--no-weights", help="Compare weights, tensor by tensor.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare two checkpoints: representations by layer, weights by tensor (kept for the front end)."""
    from probes.run import Run
    from probes.tasks.compare import compare as put_side_by_side
    from probes.terminal import console
    from probes.terminal.show_run import comparison_tables

    comparison = put_side_by_side(Run(run), first, second, weights=weights)
    if comparison["weights"]:
        from probes.stages.weights import write_weights

        with Run.writing(run) as open_run:
            write_weights(open_run, first, second, comparison)
    if json_:
        print_json(comparison)
        return
    for table in comparison_tables(comparison):
        console().print(table)


def open_app(
    root: Annotated[
        Path | None, typer.Argument(help="Folder or URL of runs, or of one; default: runs, else the shipped runs.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; default: the first free one from 8501.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
) -> None:
    """Open the front end on a folder of runs; it listens on localhost only."""
    start_app(_root(root), port=port, browser=browser)


def print_summary(run: Run, *, as_json: bool) -> Summary:
    """Print a run's summary as a table or as JSON, and return it."""
    from probes.lineage import ROLES
    from probes.tasks.summarise import Behaviour, behaviour_by_step, summarise

    run_summary = summarise(run)
    if as_json:
        typer.echo(run_summary.model_dump_json(indent=1))
        return run_summary
    from probes.tasks.summarise import probes_of_roles
    from probes.terminal import console
    from probes.terminal.show_run import level_words, probe_table, summary_table

    measured = behaviour_by_step(run)
    roles = {role: Behaviour(**measured[role, 0, 0]) for role in reversed(ROLES) if (role, 0, 0) in measured}
    verdicts = {}
    if run.has_json("verdict"):
        verdicts = {
            (entry["arm"], entry["seed"]): level_words(entry) for entry in run.read_json("verdict")["trajectories"]
        }
    print_safety(run)
    console().print(summary_table(run_summary, verdicts, roles))
    if run.has_table("probe"):
        console().print(probe_table(run_summary, probes_of_roles(run, run.headline_layer)))
    return run_summary


def print_safety(run: Run) -> None:
    """Print the plain answer: did this fine-tune break safety?"""
    from probes.tasks.safety import safety_lines
    from probes.terminal import console

    for line in (*safety_lines(run), *run.notices):
        console().print(line, soft_wrap=False)


def start_app(root: Path, *, port: int | None = None, browser: bool = True) -> None:
    """Become the Streamlit server of `root`: it ends with this command, however that ends."""
    import os
    import sys
    from importlib.util import find_spec

    from probes.store.remote import is_url, whole_url

    # Found, not imported: the front end stands above the command.
    package = find_spec("app")
    assert package is not None
    assert package.origin is not None
    options = {
        "server.address": "localhost",
        "server.headless": str(not browser).lower(),
        "server.showEmailPrompt": "false",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        **({"server.port": str(port)} if port else {}),
    }
    command = [sys.executable, "-m", "app"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    place = whole_url(root) if is_url(root) else str(root.resolve())
    os.chdir(Path(package.origin).parent)  # Streamlit takes its theme from the folder it is started in
    typer.echo(
        "The front end opens in your browser, at the address that follows; Ctrl-C ends it."
        if browser
        else "The front end is served at the address that follows; Ctrl-C ends it.",
        err=True,
    )
    sys.stdout.flush()
    os.execv(sys.executable, [*command, "--", place])


def _root(root: Path | None) -> Path:
    """The folder the app looks in.

    Raises:
        RunFolderError: a folder was named and is not there, or the store of a URL refuses.
    """
    from probes.prompts import data_folder
    from probes.store import find_runs
    from probes.store.remote import is_url, mirrors_of_root

    if root is not None and is_url(root):
        mirrors_of_root(str(root))
        return root
    if root is not None:
        if not root.is_dir():
            raise RunFolderError(f"There is no folder {root}")
        return root
    return Path("runs") if find_runs("runs") else data_folder()
