"""Verbs about directions: `directions`, `export`, `import`, `steer`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.directions.selection import Rule, Selection

Run = Annotated[Path, typer.Argument(help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: as the run was measured.")]
Layer = Annotated[int | None, typer.Option(min=0, help="Layer; default: the run's headline layer.")]
_ALIGNED = "aligned"


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command()(directions)
    app.command()(export)
    app.command(name="import")(import_)
    app.command()(steer)


def directions(
    run: Annotated[str, typer.Argument(metavar="RUN|select", help="A run folder; or the word select.")],
    action: Annotated[
        str,
        typer.Argument(metavar="ACTION|SCORES", help="fit, list, show, compare, effect, mediate; or a file of scores."),
    ] = "list",
    direction: Annotated[str, typer.Option(help="show, effect: which direction.")] = "refusal",
    checkpoint: Annotated[
        str | None, typer.Option(help="show, compare: at this checkpoint; effect, mediate: of this one.")
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, help="Layer; default the headline layer. mediate: may be repeated.")
    ] = None,
    winsorise: Annotated[
        float | None, typer.Option(help="fit: clip massive activations to so many typical spreads, e.g. 3.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="fit: open the checkpoints, for scores, answers and tokens.")
    ] = True,
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="select: number of the model's layers.")] = None,
    max_kl: Annotated[float, typer.Option(help="select, fit: KL must be below this.")] = 0.1,
    min_induce: Annotated[float, typer.Option(help="select, fit: the induce score must be above this.")] = 0.0,
    depth: Annotated[float, typer.Option(help="select, fit: layers below int(depth · layers) count.")] = 0.8,
    coefficient: Annotated[
        list[float] | None, typer.Option(help="effect: strength in units of the norm; may be repeated. Default 1.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="effect, mediate: random directions (of either kind).")] = 5,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Fit safety-relevant directions at every checkpoint and layer of a run, and look at them.

    \b
    gravity-probe directions RUN fit        every method, everywhere; what is there is not done again
    gravity-probe directions RUN list       at the aligned model: norm, separation, AUROC
    gravity-probe directions RUN show --direction refusal      how it turns, what it reads, its tokens
    gravity-probe directions RUN compare    cosine of each with each
    gravity-probe directions RUN effect     refusals with a direction ablated, and added, beside random ones
    gravity-probe directions RUN mediate    is the motion back what changes behaviour?
    gravity-probe directions select SCORES.json --layers N     the published rule on a file of scores
    """
    from probes.directions.selection import Rule

    rule = Rule(max_kl=max_kl, min_induce=min_induce, depth=depth)
    if run == "select":
        _select(Path(action), layers, rule, json_)
        return
    one = layer[0] if layer else None
    actions: dict[str, Callable[[], None]] = {
        "fit": lambda: _fit(Path(run), winsorise, rule, device, models, json_),
        "list": lambda: _list(Path(run), one, json_),
        "show": lambda: _show(Path(run), direction, checkpoint, one, json_),
        "compare": lambda: _compare(Path(run), checkpoint or _ALIGNED, one, json_),
        "effect": lambda: _effect(
            Path(run), direction, checkpoint or _ALIGNED, one, coefficient or [1.0], draws, device, json_
        ),
        "mediate": lambda: _mediate(Path(run), checkpoint, layer, draws, device, json_),
    }
    if action not in actions:
        raise UsageError("There is no such action", got=repr(action), expected=", ".join(actions))
    actions[action]()


def export(
    run: Run,
    direction: Annotated[str, typer.Option(help="Which direction; `directions RUN list` shows them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File or folder to be; or a folder that is there.")],
    form: Annotated[
        str, typer.Option("--format", "-f", help="safetensors, gguf, npz, csv, json, refusal-direction, …")
    ] = "safetensors",
    layer: Annotated[
        int | None,
        typer.Option(min=0, help="Only this layer; a format of one layer takes the selected or headline one."),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="As it was fitted at this checkpoint.")] = _ALIGNED,
    json_: Json = False,
) -> None:
    """Write a direction in the format of another tool; the place of block l in it is stated.

    Formats: safetensors, gguf (llama.cpp, repeng), npz, csv, json, refusal-direction, persona-vectors,
    steering-vectors, tensorboard, embedding-atlas.
    """
    from probes.exchange import format_named, write_vectors
    from probes.stages.directions import place_of, read_direction
    from probes.store import RunFolder

    opened = RunFolder(run)
    vectors = read_direction(opened, direction, checkpoint)
    if layer is None and format_named(form).one_layer:
        layer = place_of(opened, vectors)
    path, notes = write_vectors(vectors, form, out, layer)
    if format_named(form).one_layer:
        notes = [f"layer {layer}", *notes]
    _say_where(path, format_named(form).says, notes, json_)


def import_(
    file: Annotated[Path, typer.Argument(help="A file or folder that this tool or another one wrote.")],
    name: Annotated[str, typer.Option("--as", help="What it is called from now on.")],
    run: Annotated[Path | None, typer.Option(help="Run that gets it, beside its own directions.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model that it belongs to.")] = None,
    form: Annotated[str | None, typer.Option("--format", "-f", help="Default: told by the content.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Without --run: the file to be.")] = None,
    json_: Json = False,
) -> None:
    """Bring a direction into a run, or make a file of ours of it, once it is known to fit the model.

    One of another width, depth or (where the file says it) other weights is refused; so is a file that wants to run
    code. A control vector of llama.cpp's cvector-generator is off by one block: name it, --format gguf-cvector.
    """
    from probes.importing import import_direction

    found = import_direction(file, name, run=run, model=model, form=form, out=out)
    known = found.vectors.layers
    layers = f"layers {known[0]} to {known[-1]}" if len(known) > 1 else f"layer {known[0]}"
    _say_where(found.path, f"read as: {found.convention}", [f"{layers}, width {found.vectors.width}"], json_)


def steer(
    run: Run,
    prompt: Annotated[str, typer.Option(help="One request; it gets the model's chat template.")],
    direction: Annotated[str, typer.Option(help="Which direction, as it is at the aligned model.")] = "refusal",
    coefficient: Annotated[float, typer.Option(help="In units of the direction's norm; may be negative.")] = 1.0,
    mode: Annotated[
        Literal["add", "ablate", "clamp"], typer.Option(help="Add it; take it out at every block; hold it at a value.")
    ] = "add",
    checkpoint: Annotated[str, typer.Option(help="Who answers.")] = _ALIGNED,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, help="May be repeated; default the selected, or the headline layer.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of the answers.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of the random direction.")] = 0,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Answer a prompt as it is, under a direction, and under a random direction of the same norm."""
    import dataclasses

    from probes.steer import steer as answer
    from probes.terminal import console
    from probes.terminal.directions import steered_table

    found = answer(
        run, direction, prompt, checkpoint=checkpoint, layers=layer, mode=mode, coefficient=coefficient,
        max_new_tokens=max_new_tokens, seed=seed, device=device,
    )  # fmt: skip
    if json_:
        _print_json(dataclasses.asdict(found))
    else:
        console().print(steered_table(found))


def _select(file: Path, layers: int | None, rule: Rule, as_json: bool) -> None:
    from probes.directions.selection import read_scores, select
    from probes.terminal.directions import selection_lines

    if layers is None:
        raise UsageError("The rule needs the model's depth", expected="--layers N")
    found = select(read_scores(file), layers, rule)
    if as_json:
        _print_json(_selection(found))
    else:
        typer.echo("\n".join(selection_lines(found)))
    if found.chosen is None:
        raise typer.Exit(1)


def _fit(run: Path, winsorise: float | None, rule: Rule, device: str | None, models: bool, as_json: bool) -> None:
    from probes.fitting import fit_directions
    from probes.terminal import progress_display
    from probes.terminal.directions import selection_lines

    with progress_display() as tell:
        fitted = fit_directions(run, winsorise=winsorise, rule=rule, device=device, models=models, report=tell)
    if as_json:
        chosen = _selection(fitted.selection) if fitted.selection else None
        _print_json({"run": str(run), "selection": chosen, "left_out": list(fitted.left_out)})
        return
    if fitted.selection is not None:
        typer.echo("Refusal direction: " + "\n".join(selection_lines(fitted.selection)))
    for sentence in fitted.left_out:
        typer.echo(sentence, err=True)
    _list(run, None, False)


def _list(run: Path, layer: int | None, as_json: bool) -> None:
    from probes.store import RunFolder
    from probes.terminal import console
    from probes.terminal.directions import list_table

    opened = RunFolder(run)
    place = _layer(opened, layer)
    about = _document(opened)["directions"]
    rows = _records(
        opened.read_table("direction_tracks", filters=[("checkpoint", "==", _ALIGNED), ("layer", "==", place)])
    )
    found = [
        {**row, "says": about[row["direction"]]["says"], "control": about[row["direction"]]["control"]} for row in rows
    ]
    if as_json:
        _print_json({"layer": place, "directions": found})
    else:
        console().print(list_table(found, place))
        _say_imported(opened)


def _show(run: Path, name: str, checkpoint: str | None, layer: int | None, as_json: bool) -> None:
    from probes.store import RunFolder
    from probes.terminal import console
    from probes.terminal.directions import readout_table, track_table

    opened = RunFolder(run)
    known = list(_document(opened)["directions"])
    if name not in known:
        raise UsageError("There is no such direction", got=repr(name), expected=", ".join(known))
    place = _layer(opened, layer)
    wanted = [("direction", "==", name), ("layer", "==", place)]
    wanted += [("checkpoint", "==", checkpoint)] if checkpoint else []
    tracks = _records(opened.read_table("direction_tracks", filters=wanted))
    tokens = _tokens(opened, name, checkpoint or _ALIGNED)
    if as_json:
        _print_json({"direction": name, "layer": place, "checkpoints": tracks, "tokens": tokens})
        return
    console().print(track_table(name, place, tracks))
    if tokens:
        console().print(readout_table(tokens))


def _compare(run: Path, checkpoint: str, layer: int | None, as_json: bool) -> None:
    from probes.store import RunFolder
    from probes.terminal import console
    from probes.terminal.directions import cosine_table

    opened = RunFolder(run)
    place, about = _layer(opened, layer), _document(opened)
    if checkpoint not in about["checkpoints"]:
        raise UsageError("No directions are fitted there", got=checkpoint, expected=", ".join(about["checkpoints"][:8]))
    wanted = [("checkpoint", "==", checkpoint), ("layer", "==", place)]
    frame = opened.read_table("direction_cosines", filters=wanted)
    if as_json:
        _print_json({"checkpoint": checkpoint, "layer": place, "cosines": _records(frame[["one", "other", "cosine"]])})
    else:
        console().print(cosine_table(frame, checkpoint, place))


def _effect(
    run: Path, name: str, checkpoint: str, layer: int | None, coefficients: list[float], draws: int,
    device: str | None, as_json: bool,
) -> None:  # fmt: skip
    from probes.terminal import console, progress_display
    from probes.terminal.directions import effect_table
    from probes.trials import try_direction

    with progress_display() as tell:
        found = try_direction(
            run, name, checkpoint=checkpoint, layer=layer, coefficients=coefficients, draws=draws, device=device,
            report=tell,
        )  # fmt: skip
    if as_json:
        _print_json(found)
    else:
        console().print(effect_table(found))


def _mediate(
    run: Path, checkpoint: str | None, layers: list[int] | None, draws: int, device: str | None, as_json: bool
) -> None:
    from probes.terminal import console, progress_display
    from probes.terminal.directions import mediation_table
    from probes.trials import mediate

    with progress_display() as tell:
        found = mediate(run, checkpoint=checkpoint, layers=layers, draws=draws, device=device, report=tell)
    if as_json:
        _print_json(found)
    else:
        console().print(mediation_table(found))


def _selection(found: Selection) -> dict[str, Any]:
    """The documented JSON of a selection: the place, or null with what is nearest and what would let it pass."""
    import dataclasses

    nothing = {"position": None, "layer": None, "bypass": None, "induce": None, "kl": None}
    return {
        **(dataclasses.asdict(found.chosen) if found.chosen else nothing),
        "passing": found.passing,
        "candidates": found.candidates,
        "nearest": [{**dataclasses.asdict(each), "fails": list(fails)} for each, fails in found.nearest],
        "relax": list(found.relax),
    }


def _document(run: Any) -> dict[str, Any]:
    from probes.stages.directions import KEPT

    if not (run.path / f"{KEPT}.json").is_file():
        from probes.errors import RunFolderError

        raise RunFolderError(
            f"{run.path} has no fitted directions", next_step=f"Fit them: gravity-probe directions {run.path} fit."
        )
    return run.read_json(KEPT)


def _layer(run: Any, layer: int | None) -> int:
    depth = int(run.manifest.model["n_layers"])
    if layer is not None and layer >= depth:
        raise UsageError("No such layer", got=layer, expected=f"0 to {depth - 1}")
    return int(run.manifest.config["headline_layer"]) if layer is None else layer


def _tokens(run: Any, name: str, checkpoint: str) -> list[dict[str, Any]]:
    """Tokens by layer and sign, best first; empty where none were read out."""
    if not run.has_table("direction_readout"):
        return []
    frame = run.read_table("direction_readout", filters=[("direction", "==", name), ("checkpoint", "==", checkpoint)])
    return [
        {"layer": int(layer), "sign": int(sign), "tokens": part.sort_values("rank")["token"].tolist()}
        for (layer, sign), part in frame.groupby(["layer", "sign"], sort=True)
    ]


def _say_imported(run: Any) -> None:
    from probes.stages.directions import directions_of, read_direction

    known = set(_document(run)["directions"])
    for name in directions_of(run):
        if name not in known:
            vectors = read_direction(run, name)
            typer.echo(f"imported: {name}, layers {vectors.layers[0]} to {vectors.layers[-1]}")


def _say_where(path: Path, says: str, notes: list[str], as_json: bool) -> None:
    if as_json:
        _print_json({"path": str(path), "layers": says, "notes": notes})
        return
    typer.echo(f"Written: {path}")
    for line in (says, *notes):
        typer.echo(f"  {line}")


def _records(frame: Any) -> list[dict[str, Any]]:
    """Rows of a table, with None for what is not defined."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
