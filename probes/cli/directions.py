"""The verb `directions`: fit them over a run, look at them, try what they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probes.cli.output import print_json
from probes.errors import RunFolderError, UsageError

if TYPE_CHECKING:
    from probes.directions.selection import Rule, Selection
    from probes.run import Run

RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: as the run was measured.")]
Layer = Annotated[int | None, typer.Option(min=0, help="Layer; default: the run's headline layer.")]


def register(app: typer.Typer) -> None:
    """Put the verb on the command."""
    app.command()(directions)


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
    if layers is not None and run != "select":
        raise UsageError("--layers is the depth of a model, for select", next_step="A layer is chosen with --layer.")
    if run == "select":
        _select(Path(action), layers, rule, json_)
        return
    one = layer[0] if layer else None
    actions: dict[str, Callable[[], None]] = {
        "fit": lambda: _fit(Path(run), winsorise, rule, device, models, json_),
        "list": lambda: _list(Path(run), one, json_),
        "show": lambda: _show(Path(run), direction, checkpoint, one, json_),
        "compare": lambda: _compare(Path(run), checkpoint or "aligned", one, json_),
        "effect": lambda: _effect(
            Path(run), direction, checkpoint or "aligned", one, coefficient or [1.0], draws, device, json_
        ),
        "mediate": lambda: _mediate(Path(run), checkpoint, layer, draws, device, json_),
    }
    if action not in actions:
        raise UsageError("There is no such action", got=repr(action), expected=", ".join(actions))
    actions[action]()


def _select(file: Path, layers: int | None, rule: Rule, as_json: bool) -> None:
    from probes.directions.selection import read_scores, select
    from probes.terminal.show_directions import selection_lines

    if layers is None:
        raise UsageError("The rule needs the model's depth", expected="--layers N")
    found = select(read_scores(file), layers, rule)
    if as_json:
        print_json(_selection(found))
    else:
        typer.echo("\n".join(selection_lines(found)))
    if found.chosen is None:
        raise typer.Exit(1)


def _fit(run: Path, winsorise: float | None, rule: Rule, device: str | None, models: bool, as_json: bool) -> None:
    from probes.tasks.fit import fit_directions
    from probes.terminal import progress_display
    from probes.terminal.show_directions import selection_lines

    with progress_display() as tell:
        fitted = fit_directions(run, winsorise=winsorise, rule=rule, device=device, models=models, report=tell)
    if as_json:
        chosen = _selection(fitted.selection) if fitted.selection else None
        print_json({"run": str(run), "selection": chosen, "left_out": list(fitted.left_out)})
        return
    if fitted.selection is not None:
        typer.echo("Refusal direction: " + "\n".join(selection_lines(fitted.selection)))
    for sentence in fitted.left_out:
        typer.echo(sentence, err=True)
    _list(run, None, False)


def _list(run: Path, layer: int | None, as_json: bool) -> None:
    from probes.directions.vectors import Vectors
    from probes.run import Run
    from probes.store import records
    from probes.terminal import console
    from probes.terminal.show_directions import list_table

    opened = Run(run)
    place = _layer(opened, layer)
    about = _document(opened)["directions"]
    rows = records(
        opened.read_table("direction_tracks", filters=[("checkpoint", "==", "aligned"), ("layer", "==", place)])
    )
    found = [
        {**row, "says": about[row["direction"]]["says"], "control": about[row["direction"]]["control"]} for row in rows
    ]
    if as_json:
        print_json({"layer": place, "directions": found})
    else:
        console().print(list_table(found, place))
        for name in _imported(opened):
            known = Vectors.read(opened.direction_path(name)).layers
            typer.echo(f"imported: {name}, layers {known[0]} to {known[-1]}")


def _show(run: Path, name: str, checkpoint: str | None, layer: int | None, as_json: bool) -> None:
    from probes.run import Run
    from probes.store import records
    from probes.terminal import console
    from probes.terminal.show_directions import readout_table, track_table

    opened = Run(run)
    about = _document(opened)
    if name in _imported(opened):
        raise UsageError(
            f"{name} was brought in from elsewhere, so nothing is known of how it turns",
            next_step=f"See what it does: gravity-probe directions {run} effect --direction {name}.",
        )
    if name not in about["directions"]:
        raise UsageError("There is no such direction", got=repr(name), expected=", ".join(about["directions"]))
    place = _layer(opened, layer)
    if checkpoint:
        _fitted_at(about, checkpoint)
    wanted = [("direction", "==", name), ("layer", "==", place)]
    wanted += [("checkpoint", "==", checkpoint)] if checkpoint else []
    tracks = records(opened.read_table("direction_tracks", filters=wanted))
    tokens = _tokens(opened, name, checkpoint or "aligned")
    if as_json:
        print_json({"direction": name, "layer": place, "checkpoints": tracks, "tokens": tokens})
        return
    console().print(track_table(name, place, tracks))
    if tokens:
        console().print(readout_table(tokens))


def _compare(run: Path, checkpoint: str, layer: int | None, as_json: bool) -> None:
    from probes.run import Run
    from probes.store import records
    from probes.terminal import console
    from probes.terminal.show_directions import cosine_table

    opened = Run(run)
    place, about = _layer(opened, layer), _document(opened)
    _fitted_at(about, checkpoint)
    wanted = [("checkpoint", "==", checkpoint), ("layer", "==", place)]
    frame = opened.read_table("direction_cosines", filters=wanted)
    if as_json:
        print_json({"checkpoint": checkpoint, "layer": place, "cosines": records(frame[["one", "other", "cosine"]])})
    else:
        console().print(cosine_table(frame, checkpoint, place))


def _effect(
    run: Path,
    name: str,
    checkpoint: str,
    layer: int | None,
    coefficients: list[float],
    draws: int,
    device: str | None,
    as_json: bool,
) -> None:
    from probes.tasks.intervene import try_direction
    from probes.terminal import console, progress_display
    from probes.terminal.show_directions import effect_table

    with progress_display() as tell:
        found = try_direction(
            run,
            name,
            checkpoint=checkpoint,
            layer=layer,
            coefficients=coefficients,
            draws=draws,
            device=device,
            report=tell,
        )
    if as_json:
        print_json(found)
    else:
        console().print(effect_table(found))


def _mediate(
    run: Path, checkpoint: str | None, layers: list[int] | None, draws: int, device: str | None, as_json: bool
) -> None:
    from probes.tasks.intervene import mediate
    from probes.terminal import console, progress_display
    from probes.terminal.show_directions import mediation_table

    with progress_display() as tell:
        found = mediate(run, checkpoint=checkpoint, layers=layers, draws=draws, device=device, report=tell)
    if as_json:
        print_json(found)
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


def _document(run: Run) -> dict[str, Any]:
    from probes.store import DIRECTIONS

    if not run.has_json(DIRECTIONS):
        raise RunFolderError(
            f"{run.path} has no fitted directions", next_step=f"Fit them: gravity-probe directions {run.path} fit."
        )
    return run.read_json(DIRECTIONS)


def _fitted_at(about: dict[str, Any], checkpoint: str) -> None:
    known = about["checkpoints"]
    if checkpoint not in known:
        more = ", …" if len(known) > 8 else ""
        raise UsageError("No directions are fitted there", got=checkpoint, expected=", ".join(known[:8]) + more)


def _layer(run: Run, layer: int | None) -> int:
    depth = int(run.manifest.model["n_layers"])
    if layer is not None and layer >= depth:
        raise UsageError("No such layer", got=layer, expected=f"0 to {depth - 1}")
    return int(run.manifest.config["headline_layer"]) if layer is None else layer


def _tokens(run: Run, name: str, checkpoint: str) -> list[dict[str, Any]]:
    """Tokens by layer and sign, best first; empty where none were read out."""
    if not run.has_table("direction_readout"):
        return []
    frame = run.read_table("direction_readout", filters=[("direction", "==", name), ("checkpoint", "==", checkpoint)])
    return [
        {"layer": int(layer), "sign": int(sign), "tokens": part.sort_values("rank")["token"].tolist()}
        for (layer, sign), part in frame.groupby(["layer", "sign"], sort=True)
    ]


def _imported(run: Run) -> list[str]:
    """Names of the directions that were brought in from elsewhere."""
    from probes.store import direction_file

    fitted = {direction_file(name) for name in _document(run)["directions"]}
    return sorted({path.stem for path in run.direction_path("any").parent.glob("*.safetensors")} - fitted)
