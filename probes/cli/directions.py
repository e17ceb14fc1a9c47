"""The verbs `directions fit|list|show|compare|effect|mediate|select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probes.cli.command import Group, Verb, Workers
from probes.cli.output import print_json
from probes.errors import RunFolderError, UsageError

if TYPE_CHECKING:
    from probes.directions.selection import Selection
    from probes.run import Run

LOG = "fit.log"
RunPath = Annotated[Path, typer.Argument(help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: as the run was measured.")]
Layer = Annotated[int | None, typer.Option(min=0, help="Layer; default: the run's headline layer.")]
MaxKl = Annotated[float, typer.Option(help="A refusal candidate's KL on harmless prompts must be below this.")]
MinInduce = Annotated[float, typer.Option(help="Its induce score must be above this.")]
Depth = Annotated[float, typer.Option(help="Only layers below int(depth · layers) count.")]
Draws = Annotated[int, typer.Option(min=1, help="Random directions for comparison.")]

group = typer.Typer(
    cls=Group, no_args_is_help=True, help="Fit safety-relevant directions at every checkpoint, and inspect them."
)


def register(app: typer.Typer) -> None:
    """Put the group on the command."""
    for verb in (fit, show, compare, effect, mediate, select):
        group.command(cls=Verb)(verb)
    group.command("list", cls=Verb)(list_)
    app.add_typer(group, name="directions")


def fit(
    run: RunPath,
    winsorise: Annotated[
        float | None, typer.Option(help="Clip massive activations at this many typical spreads, e.g. 3.")
    ] = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Open the checkpoints to compute scores, answers and tokens.")
    ] = True,
    method: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME…]", help="Fit only these, beside what is fitted; default: all.")
    ] = None,
    max_kl: MaxKl = 0.1,
    min_induce: MinInduce = 0.0,
    depth: Depth = 0.8,
    device: Device = None,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Fit every method at every checkpoint and layer of a run; each is kept as it is done, and logged in fit.log."""
    from probes.engine import open_engine

    with open_engine(workers):  # before all else: what workers begin from loads while this process loads its own
        from probes.directions import METHODS
        from probes.directions.selection import Rule
        from probes.tasks.fit import FitOptions, fit_directions
        from probes.terminal import progress_display
        from probes.terminal.show_directions import selection_lines

        rule = Rule(max_kl=max_kl, min_induce=min_induce, depth=depth)
        methods = tuple(method.split(",")) if method else tuple(METHODS)
        options = FitOptions(winsorise, rule, device, models, methods)
        with progress_display(run / LOG if run.is_dir() else None) as report:
            fitted = fit_directions(run, options, report)
    if json_:
        selection = _selection(fitted.selection) if fitted.selection else None
        print_json({"run": str(run), "selection": selection, "left_out": list(fitted.left_out)})
        return
    if fitted.selection is not None:
        typer.echo("Refusal direction: " + "\n".join(selection_lines(fitted.selection)))
    for sentence in fitted.left_out:
        typer.echo(sentence, err=True)
    list_(run)


def list_(run: RunPath, layer: Layer = None, json_: Json = False) -> None:
    """List the directions at the aligned model: norm, separation, AUROC."""
    from probes.run import Run
    from probes.store import records
    from probes.terminal import console
    from probes.terminal.show_directions import list_table

    opened = Run(run)
    place = _layer(opened, layer)
    about = _document(opened)["directions"]
    tracks = opened.read_table("direction_tracks", filters=[("checkpoint", "==", "aligned"), ("layer", "==", place)])
    rows = [
        {**row, "says": about[row["direction"]]["says"], "control": about[row["direction"]]["control"]}
        for row in records(tracks)
    ]
    if json_:
        print_json({"layer": place, "directions": rows})
        return
    console().print(list_table(rows, place))
    for name in _imported_names(opened):
        layers = opened.direction(name).layers
        typer.echo(f"imported: {name}, layers {layers[0]} to {layers[-1]}")


def show(
    run: RunPath,
    direction: Annotated[str, typer.Option(help="Which direction.")] = "refusal",
    checkpoint: Annotated[str | None, typer.Option(help="Only at this checkpoint.")] = None,
    layer: Layer = None,
    json_: Json = False,
) -> None:
    """Show one direction: how it turns over the checkpoints, what it reads, and its tokens."""
    from probes.run import Run
    from probes.store import current_name, records
    from probes.terminal import console
    from probes.terminal.show_directions import readout_table, track_table

    opened = Run(run)
    about, direction = _document(opened), current_name(direction)
    if direction in _imported_names(opened):
        raise UsageError(
            f"{direction} was brought in from elsewhere, so nothing is known of how it turns",
            next_step=f"See what it does: gravity-probe directions effect {run} --direction {direction}.",
        )
    if direction not in about["directions"]:
        raise UsageError("There is no such direction", got=repr(direction), expected=", ".join(about["directions"]))
    place = _layer(opened, layer)
    if checkpoint:
        _fitted_at(about, checkpoint)
    filters = [("direction", "==", direction), ("layer", "==", place)]
    filters += [("checkpoint", "==", checkpoint)] if checkpoint else []
    tracks = records(opened.read_table("direction_tracks", filters=filters))
    tokens = _tokens(opened, direction, checkpoint or "aligned")
    if json_:
        print_json({"direction": direction, "layer": place, "checkpoints": tracks, "tokens": tokens})
        return
    console().print(track_table(direction, place, tracks))
    if tokens:
        console().print(readout_table(tokens))


def compare(
    run: RunPath,
    checkpoint: Annotated[str, typer.Option(help="At this checkpoint.")] = "aligned",
    layer: Layer = None,
    json_: Json = False,
) -> None:
    """Compare every direction with every other at one checkpoint and layer, by their cosines."""
    from probes.run import Run
    from probes.store import records
    from probes.terminal import console
    from probes.terminal.show_directions import cosine_table

    opened = Run(run)
    place, about = _layer(opened, layer), _document(opened)
    _fitted_at(about, checkpoint)
    filters = [("checkpoint", "==", checkpoint), ("layer", "==", place)]
    frame = opened.read_table("direction_cosines", filters=filters)
    if json_:
        print_json({"checkpoint": checkpoint, "layer": place, "cosines": records(frame[["one", "other", "cosine"]])})
    else:
        console().print(cosine_table(frame, checkpoint, place))


def effect(
    run: RunPath,
    direction: Annotated[str, typer.Option(help="Which direction.")] = "refusal",
    checkpoint: Annotated[str, typer.Option(help="Checkpoint that answers.")] = "aligned",
    layer: Annotated[
        int | None, typer.Option(min=0, help="Layer. Default: the selected layer, else the headline layer.")
    ] = None,
    coefficient: Annotated[
        list[float] | None, typer.Option(help="Coefficient in units of the norm; may be repeated. Default 1.")
    ] = None,
    draws: Draws = 5,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Count refusals with a direction ablated and added, compared with random directions of the same norm."""
    from probes.tasks.intervene import EffectOptions, try_direction
    from probes.terminal import console, progress_display
    from probes.terminal.show_directions import effect_table

    options = EffectOptions(checkpoint, layer, tuple(coefficient or [1.0]), draws, device)
    with progress_display() as report:
        outcome = try_direction(run, direction, options, report)
    if json_:
        print_json(outcome)
    else:
        console().print(effect_table(outcome))


def mediate(
    run: RunPath,
    checkpoint: Annotated[
        str | None, typer.Option(help="A fine-tuned checkpoint; default: the last of the first trajectory.")
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, help="Layer; may be repeated. Default: every layer.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, help="Control directions, most covariance-matched; fewer than 19 cannot decide.")
    ] = 19,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Test whether the motion along the reversion changes behaviour: clamp each prompt's projection, either way."""
    from probes.tasks.intervene import MediationOptions
    from probes.tasks.intervene import mediate as test_mediation
    from probes.terminal import console, progress_display
    from probes.terminal.show_directions import mediation_table

    options = MediationOptions(checkpoint, tuple(layer) if layer else None, draws, device)
    with progress_display() as report:
        outcome = test_mediation(run, options, report)
    if json_:
        print_json(outcome)
    else:
        console().print(mediation_table(outcome))


def select(
    scores: Annotated[Path, typer.Argument(help="A file of candidates' scores, as refusal_direction writes it.")],
    layers: Annotated[int | None, typer.Option("--layers", min=1, help="Number of the model's layers.")] = None,
    max_kl: MaxKl = 0.1,
    min_induce: MinInduce = 0.0,
    depth: Depth = 0.8,
    json_: Json = False,
) -> None:
    """Apply the published rule to a file of scores: which candidate becomes the refusal direction."""
    from probes.directions.selection import Rule, read_scores
    from probes.directions.selection import select as apply_rule
    from probes.terminal.show_directions import selection_lines

    rule = Rule(max_kl=max_kl, min_induce=min_induce, depth=depth)
    if layers is None:
        raise UsageError("The rule needs the model's depth", expected="--layers N")
    selection = apply_rule(read_scores(scores), layers, rule)
    if json_:
        print_json(_selection(selection))
    else:
        typer.echo("\n".join(selection_lines(selection)))
    if selection.chosen is None:
        raise typer.Exit(1)


def _selection(selection: Selection) -> dict[str, Any]:
    """The documented JSON of a selection: the place, or null with what is nearest and what would let it pass."""
    import dataclasses

    nothing = {"position": None, "layer": None, "bypass": None, "induce": None, "kl": None}
    return {
        **(dataclasses.asdict(selection.chosen) if selection.chosen else nothing),
        "passing": selection.passing,
        "candidates": selection.candidates,
        "nearest": [{**dataclasses.asdict(candidate), "fails": list(fails)} for candidate, fails in selection.nearest],
        "relax": list(selection.relax),
    }


def _document(run: Run) -> dict[str, Any]:
    from probes.store import DIRECTIONS

    if not run.has_json(DIRECTIONS):
        raise RunFolderError(
            f"{run.path} has no fitted directions", next_step=f"Fit them: gravity-probe directions fit {run.path}."
        )
    return run.read_json(DIRECTIONS)


def _fitted_at(about: dict[str, Any], checkpoint: str) -> None:
    known = about["checkpoints"]
    if checkpoint not in known:
        more = ", …" if len(known) > 8 else ""
        raise UsageError("No directions are fitted there", got=checkpoint, expected=", ".join(known[:8]) + more)


def _layer(run: Run, layer: int | None) -> int:
    if layer is not None and layer >= run.n_layers:
        raise UsageError("No such layer", got=layer, expected=f"0 to {run.n_layers - 1}")
    return run.headline_layer if layer is None else layer


def _tokens(run: Run, name: str, checkpoint: str) -> list[dict[str, Any]]:
    """Tokens by layer and sign, best first; empty where none were read out."""
    if not run.has_table("direction_readout"):
        return []
    frame = run.read_table("direction_readout", filters=[("direction", "==", name), ("checkpoint", "==", checkpoint)])
    return [
        {"layer": int(layer), "sign": int(sign), "tokens": part.sort_values("rank")["token"].tolist()}
        for (layer, sign), part in frame.groupby(["layer", "sign"], sort=True)
    ]


def _imported_names(run: Run) -> list[str]:
    """Names of the directions that were brought in from elsewhere."""
    fitted = _document(run)["directions"]
    return [name for name in run.directions if name not in fitted]
