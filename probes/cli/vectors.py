"""Verbs that carry a direction somewhere: `export` and `import` a file, `steer` an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from probes.cli.command import Verb
from probes.cli.directions import Device, Json, RunPath
from probes.cli.output import print_json
from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.run import Run

INSPECT = "inspect"  # the format of answers; the others are of directions


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(export)
    app.command(name="import", cls=Verb)(import_)
    app.command(cls=Verb)(steer)


def export(
    run: RunPath,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output file or folder, or an existing folder to write into.")
    ],
    direction: Annotated[str | None, typer.Option(help="Which direction; `directions list RUN` shows them.")] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", help="safetensors, gguf, npz, csv, json, refusal-direction, …; inspect.")
    ] = "safetensors",
    map_: Annotated[
        bool, typer.Option("--map", help="Export the prompts' places at every checkpoint, for Embedding Atlas.")
    ] = False,
    method: Annotated[Literal["pca", "umap"], typer.Option(help="Which maps, for --map.")] = "pca",
    layer: Annotated[
        int | None,
        typer.Option(
            min=0, help="Only this layer; single-layer formats default to the selected layer, else the headline layer."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The direction as fitted at this checkpoint (default: aligned); whose answers, for inspect."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Whole vectors of the measured length (GGUF and others), not unit vectors.")
    ] = False,
    json_: Json = False,
) -> None:
    """Export a direction, the answers or the maps of a run in another tool's format.

    Directions: safetensors, gguf (llama.cpp, repeng), npz, csv, json, refusal-direction, persona-vectors,
    steering-vectors, tensorboard, embedding-atlas; the output says how the format numbers the layers.
    Answers: inspect, an eval log as NAME.eval or NAME.json, or a folder with one for each checkpoint.
    Maps of the prompts: --map.
    """
    from probes.exchange import format_named, write_vectors
    from probes.run import Run
    from probes.store import ALIGNED
    from probes.store.remote import outgoing

    opened = Run(run)
    if map_:
        _refuse_others(
            {"--direction": direction, "--raw": raw, "--checkpoint": checkpoint, "--format inspect": form == INSPECT}
        )
        _export_map(opened, out, method, layer, json_)
        return
    if form == INSPECT:
        _refuse_others({"--direction": direction, "--raw": raw, "--layer": layer is not None})
        _export_answers(opened, out, checkpoint, json_)
        return
    if direction is None:
        raise UsageError(
            "Nothing is named to be exported",
            expected="--direction NAME, --format inspect, or --map",
            next_step=f"Show the directions: gravity-probe directions list {run}.",
        )
    vectors = opened.direction(direction, checkpoint or ALIGNED)
    if layer is None and format_named(form).one_layer:
        layer = opened.layer_of(vectors)
    with outgoing(out) as target:
        path, notes = write_vectors(vectors, form, target.path, layer, raw=raw)
    written = format_named(form).whole() if raw else format_named(form)
    if written.one_layer:
        notes = [f"layer {layer}", *notes]
    _say_where(target.place_of(path), written.says, notes, json_)


def _refuse_others(options: Mapping[str, object]) -> None:
    """Refuse what belongs to another kind of export."""
    present = [name for name, value in options.items() if value]
    if present:
        raise UsageError(
            "One thing is exported at a time",
            got=", ".join(present),
            expected="--direction, --format inspect, or --map",
        )


def _export_answers(run: Run, out: Path, checkpoint: str | None, as_json: bool) -> None:
    from probes.exchange.inspect_log import write_eval_logs
    from probes.store.remote import outgoing

    with outgoing(out) as target:
        files = write_eval_logs(run, target.path, checkpoint)
    place, folder = (files[0] if len(files) == 1 else target.path), files[0].parent
    notes = ["one checkpoint's answers; --out FOLDER writes a log of each"] if out.suffix and not checkpoint else []
    says = f"eval logs: {len(files)}; inspect view --log-dir {target.place_of(folder)}"
    _say_where(target.place_of(place), says, notes, as_json)


def _export_map(run: Run, out: Path, method: str, layer: int | None, as_json: bool) -> None:
    from probes.exchange.prompt_places import write_places
    from probes.store.remote import outgoing

    with outgoing(out) as target:
        path, notes = write_places(run, target.path, method, layer)
    _say_where(target.place_of(path), "layer l is block l (resid_post), counted from 0", notes, as_json)


def import_(
    file: Annotated[Path, typer.Argument(help="A file or folder that this tool or another one wrote.")],
    name: Annotated[str, typer.Option("--as", help="Name for the imported direction.")],
    run: Annotated[Path | None, typer.Option(help="Run to import it into.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model it belongs to.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="Default: detected from the content; vector: one bare vector.")
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(min=0, help="Only this layer; for a bare vector, the layer it is of (default: from its name)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Without --run: the output file.")] = None,
    json_: Json = False,
) -> None:
    """Import a direction into a run, or convert it to our own file format, after checking that it fits the model.

    One of another width, depth or (where the file says it) other weights is refused; so is a file that wants to run
    code. A control vector of llama.cpp's cvector-generator is off by one block: name it, --format gguf-cvector.
    """
    from probes.tasks.import_direction import Target, import_direction

    imported = import_direction(file, name, Target(run, model, out), form=form, layer=layer)
    known = imported.vectors.layers
    layers = f"layers {known[0]} to {known[-1]}" if len(known) > 1 else f"layer {known[0]}"
    _say_where(
        str(imported.path), f"read as: {imported.convention}", [f"{layers}, width {imported.vectors.width}"], json_
    )


def steer(
    run: RunPath,
    prompt: Annotated[str, typer.Option(help="One request; it is rendered in the model's chat template.")],
    direction: Annotated[str, typer.Option(help="Which direction, as fitted at the aligned model.")] = "refusal",
    coefficient: Annotated[
        float, typer.Option(help="Coefficient in units of the direction's norm; may be negative.")
    ] = 1.0,
    mode: Annotated[
        Literal["add", "ablate", "clamp"],
        typer.Option(help="Add it; ablate it at every block; clamp the projection on it to a value."),
    ] = "add",
    checkpoint: Annotated[str, typer.Option(help="Checkpoint that answers.")] = "aligned",
    layer: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Layer; may be repeated. Default: the selected layer, else the headline layer."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random direction.")] = 0,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Answer a prompt without intervention, under a direction, and under a random direction of the same norm."""
    import dataclasses

    from probes.run import Run
    from probes.tasks.steer import Steering
    from probes.tasks.steer import steer as answer
    from probes.terminal import console
    from probes.terminal.show_directions import steered_table

    steering = Steering(
        direction,
        checkpoint,
        tuple(layer) if layer else None,
        mode=mode,
        coefficient=coefficient,
        max_new_tokens=max_new_tokens,
        seed=seed,
        device=device,
    )
    steered = answer(Run(run), prompt, steering)
    if json_:
        print_json(dataclasses.asdict(steered))
    else:
        console().print(steered_table(steered))


def _say_where(place: str, says: str, notes: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"path": place, "layers": says, "notes": notes})
        return
    typer.echo(f"Written: {place}")
    for line in (says, *notes):
        typer.echo(f"  {line}")
