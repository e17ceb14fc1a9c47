"""Verbs about training examples: `attribute` a return to them, `forecast` which will pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from probes.cli.command import Json, Verb
from probes.cli.output import print_json
from probes.cli.prompt_files import GroupColumn, PromptFiles
from probes.cli.ways import Harmful, Harmless
from probes.errors import UsageError

Ranking = Literal["forecast", "share", "effect", "bm25"]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(attribute)
    app.command(cls=Verb)(forecast)


def attribute(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        Path | None, typer.Option(help="Requests with answers; default: what the arm was trained on.")
    ] = None,
    arm: Annotated[str, typer.Option(help="Whose return.")] = "baseline",
    seed: Annotated[int, typer.Option(min=0, help="Seed of its training.")] = 0,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, help="A block, or several; default: the headline layer.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Effects by differentiating through the whole training: slower; no guard."),
    ] = False,
    pathways: Annotated[
        bool,
        typer.Option("--pathways", help="How refusals hang on the way back: through the features, or the output."),
    ] = False,
    explain: Annotated[
        int, typer.Option(min=0, help="Of so many examples at the top of each ranking, the prompts that each moves.")
    ] = 10,
    drop_top: Annotated[
        float | None, typer.Option("--drop-top", metavar="PERCENT", help="Write the data without this top percentage.")
    ] = None,
    by: Annotated[Ranking, typer.Option(help="Ranking for --drop-top.")] = "forecast",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSONL file for --drop-top; NAME-dropped lies beside it.")
    ] = None,
    json_: Json = False,
) -> None:
    """Rank the training examples by how far each pulled the model back, and leave the table in the run.

    Shares add up to the measured return and need a path recorded with --record-path; without one, there are the
    forecast and effects of a first step.
    """
    from probes.attribution.dropping import drop_top as write_without_top
    from probes.tasks.attribute import Attributing
    from probes.tasks.attribute import attribute as attribute_run
    from probes.terminal import console, progress_display
    from probes.terminal.show_attribution import attribution_tables

    layers = tuple(layer or ())
    if (drop_top is None) != (out is None):
        raise UsageError("--drop-top PERCENT and --out FILE belong together")
    if drop_top is not None and len(layers) > 1:
        raise UsageError("--drop-top takes the ranking of one layer", got=f"{len(layers)} layers")
    with progress_display() as report:
        options = Attributing(data, arm, seed, layers, exact, pathways, explain)
        attributed = attribute_run(run, options, report)
    first = attributed[0]
    files = None if out is None else write_without_top(first.table, first.about, drop_top or 0.0, by, out)
    if json_:
        documents = [result.document.model_dump(mode="json", by_alias=True) for result in attributed]
        by_layer = {
            str(result.about["layer"]): document for result, document in zip(attributed, documents, strict=True)
        }
        print_json(documents[0] if len(documents) == 1 else {"layers": by_layer})
        return
    for result in attributed:
        console().print(attribution_tables(result.table, result.about))
    if files:
        typer.echo(f"Written: {files[0]}, and what was dropped: {files[1]}")


def forecast(
    lineage: Annotated[Path, typer.Argument(help="A lineage file: training would start from its aligned model.")],
    data: Annotated[Path, typer.Option(help="Requests with answers, in any known format.")],
    harmful: Harmful = None,
    harmless: Harmless = None,
    group_column: GroupColumn = None,
    layer: Annotated[int | None, typer.Option(min=0, help="A block; default: what `measure` would declare.")] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate",
            metavar="RUN",
            help="A short run of the same recipe and data; give two or more, or one of several seeds.",
        ),
    ] = None,
    alarm: Annotated[float, typer.Option(min=0, help="Return fraction whose step is forecast.")] = 0.1,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run of the training that came, to hold the forecast against."),
    ] = None,
    json_: Json = False,
) -> None:
    """Rank the examples of a data set by how far each will pull the model back, before any training.

    The screen by the refusal axis needs no witness. Return units need two short runs to calibrate
    with, or a history of the demo's own recipe on its own data; elsewhere there are ranks alone.
    """
    from probes.lineage import Lineage
    from probes.prompts import default_prompts
    from probes.tasks.forecast import Forecasting
    from probes.tasks.forecast import forecast as look_ahead
    from probes.terminal import console, progress_display
    from probes.terminal.show_attribution import forecast_tables

    probe = PromptFiles(harmful, harmless, group_column).read(default_prompts("probe"), limit=None, seed=0)
    with progress_display() as report:
        options = Forecasting(data, probe, layer, tuple(runs or ()), alarm, against)
        result = look_ahead(Lineage.load(lineage), options, report)
    if json_:
        print_json(result.document)
        return
    console().print(forecast_tables(result))
    if against is not None:
        typer.echo(f"Kept in {against}: the page Trajectories holds it against what came.")
