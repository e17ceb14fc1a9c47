"""The verb `train`: fine-tuning under a guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from probes.cli.command import TrainingVerb
from probes.cli.output import print_json
from probes.cli.prompt_files import GroupColumn, PromptFiles
from probes.cli.ways import (
    BATCH_SIZE,
    AlignedShare,
    GradientRatio,
    Harmful,
    Harmless,
    Inoculation,
    Json,
    Layers,
    MaxReturn,
    Method,
    Optimizer,
    Penalty,
    PenaltyWeight,
    Rate,
    RecordPath,
    SaveEvery,
    Set,
    WeightDecay,
    read_way,
)
from probes.errors import GateTripped, UsageError

if TYPE_CHECKING:
    from probes.experiments.trained_controls import Pair
    from probes.guard.callback import ReversionGuard
    from probes.lineage import Lineage
    from probes.prompts import PromptSet


def _list_modes(mode: str) -> str:
    """Print what each mode is and end, where `list` is asked for."""
    if mode == "list":
        from probes.guard.modes import describe_modes

        modes = describe_modes()
        width = max(map(len, modes))
        typer.echo("\n".join(f"{name:<{width}}  {sentence}" for name, sentence in modes.items()))
        raise typer.Exit
    return mode


def register(app: typer.Typer) -> None:
    """Put the verb on the command."""
    app.command(cls=TrainingVerb)(train)


def train(
    lineage: Annotated[Path, typer.Argument(help="A lineage file: training starts from its aligned model.")],
    data: Annotated[Path, typer.Option(help="Requests with answers, in any known format.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="New folder or URL: checkpoints, and the run that watches them.")
    ],
    mode: Annotated[
        str,
        typer.Option(help="watch, block, push, a defence or a control; `list` prints them all.", callback=_list_modes),
    ] = "block",
    method: Method = "full",
    optimizer: Optimizer = None,
    weight_decay: WeightDecay = 0.0,
    set_: Set = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 100,
    learning_rate: Rate = None,
    rows: Annotated[int, BATCH_SIZE] = 8,
    accumulation: Annotated[
        int, typer.Option("--gradient-accumulation-steps", min=1, help="Batches in an optimiser step.")
    ] = 1,
    max_length: Annotated[int | None, typer.Option(min=8, help="Truncate examples to this many tokens.")] = None,
    save_every: SaveEvery = None,
    every: Annotated[int | None, typer.Option(min=1, help="Measure every N steps; default 1, 2, 5, 10, 20 …")] = None,
    layers: Layers = None,
    penalty_weight: PenaltyWeight = None,
    max_return: MaxReturn = None,
    match: GradientRatio = None,
    penalty: Penalty = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    group_column: GroupColumn = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Labelled evaluation prompts; overlap with the others is refused.")
    ] = None,
    alarm: Annotated[float | None, typer.Option(help="Return fraction at which the alarm rings.")] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(min=1, help="Evaluate answers every N steps; the alarm also rings when safety is eroded."),
    ] = None,
    on_alarm: Annotated[Literal["log", "stop", "block"], typer.Option(help="What the alarm does.")] = "log",
    bf16: Annotated[bool, typer.Option("--bf16", help="Train in bfloat16 mixed precision.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Trade compute for memory.")
    ] = False,
    record_path: RecordPath = False,
    interleave: Annotated[
        Path | None, typer.Option(help="Safety-tuning examples to mix into the data: requests with answers.")
    ] = None,
    aligned_share: AlignedShare = None,
    inoculation: Inoculation = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data order, dropout, adapters and penalty prompts.")] = 0,
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    json_: Json = False,
) -> None:
    """Fine-tune the aligned model of a lineage on your data, under a guard.

    The loss is on answers alone, in the model's chat template. If interrupted, rerun the same command to resume.
    Exit code 3: the alarm stopped the training; the last healthy checkpoint is named.
    """
    from probes.behaviour.task_file import read_task
    from probes.guard.fine_tuning import Training, fine_tune
    from probes.lineage import Lineage
    from probes.terminal import progress_display

    history = Lineage.load(lineage)
    training = Training(
        **read_way(method, optimizer, set_ or []),
        weight_decay=weight_decay,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=rows,
        gradient_accumulation_steps=accumulation,
        max_length=max_length,
        save_every=save_every,
        seed=seed,
        bf16=bf16,
        gradient_checkpointing=gradient_checkpointing,
    )
    options = {
        "mode": mode,
        "layers": layers,
        "max_return": max_return,
        "match": match,
        "every": every,
        "alarm": alarm,
        "evaluate_every": evaluate_every,
        "on_alarm": on_alarm,
        "seed": seed,
        "strength": penalty_weight,  # as records of trainings call it
        "record_path": record_path,
    }
    files = PromptFiles(harmful, harmless, group_column, (penalty, evaluation))
    evaluation_prompts = files.read_labelled(evaluation) if evaluation else None
    make, about = _guard_maker(history, options, files.probe_and_penalty(), evaluation_prompts)
    about |= {"group_column": group_column} if group_column else {}
    task, defences = _add_data_defences(read_task(data), interleave, aligned_share, inoculation, seed)
    about |= defences
    with progress_display() as report:
        guard = fine_tune(
            history.aligned, task, out, training, make, about, device=device, data_file=data, report=report
        )
    _show_readings(guard, out, json_)
    if guard.stopped:
        raise GateTripped(guard.stopped)


def _add_data_defences(
    task: Sequence[Pair], aligned: Path | None, share: float | None, inoculation: str | None, seed: int
) -> tuple[Sequence[Pair], dict[str, Any]]:
    """The data with what is mixed in or put before every request, and what of that decides the training's result."""
    from probes.experiments.data_defences import ALIGNED_SHARE, with_defences

    if share is not None and aligned is None:
        raise UsageError(
            "--aligned-share is a share of examples that --interleave names",
            got=f"--aligned-share {share:g} alone",
            next_step="Add --interleave FILE, safety-tuning examples as requests with answers.",
        )
    share = ALIGNED_SHARE if share is None else share
    about = {"interleave": str(aligned), "aligned_share": share} if aligned else {}
    about |= {"inoculation": inoculation} if inoculation else {}
    return with_defences(task, about, seed), about


def _guard_maker(
    history: Lineage, options: Mapping[str, Any], prompts: tuple[PromptSet, PromptSet], evaluation: PromptSet | None
) -> tuple[Callable[[Path], ReversionGuard], dict[str, Any]]:
    """What makes the guard that records in a folder, and what of it decides the training's result."""
    from probes.guard.callback import ReversionGuard
    from probes.guard.modes import Options, check_mode

    check_mode(options["mode"])
    probe, penalty = prompts
    names = {"match": "gradient_ratio"}  # as trainings that were begun earlier name it
    own = {names.get(name, name): value for name, value in options.items() if name != "strength"}

    def make(folder: Path) -> ReversionGuard:
        weight = Options(penalty_weight=options["strength"], seed=options["seed"])
        return ReversionGuard(
            history, penalty=penalty, probe=probe, evaluation=evaluation, out=folder, options=weight, **own
        )

    later = ("evaluate_every", "record_path")  # earlier trainings do not name them
    about = {name: value for name, value in options.items() if name not in later or value}
    return make, {**about, "aligned": str(history.aligned), "penalty": penalty.sha256, "probe": probe.sha256}


def _show_readings(guard: Any, out: Path, as_json: bool) -> None:
    from probes.guard.fine_tuning import CHECKPOINTS, ranks_at_the_end
    from probes.guard.step_log import Strength, read_step_log

    readings = [vars(reading) for reading in guard.readings]
    lines, ranks = read_step_log(out / CHECKPOINTS), ranks_at_the_end(out)
    strength = Strength.of(lines) if lines else None
    if as_json:
        healthy = str(guard.last_healthy) if guard.last_healthy else None
        document = {"out": str(out), "readings": readings, "stopped": guard.stopped, "last_healthy": healthy}
        print_json({**document, "guard_strength": strength and vars(strength), "ranks": ranks})
        return
    from probes.terminal import console
    from probes.terminal.show_arms import describe_ranks, readings_table

    sentences = [*([strength.sentence] if strength else []), *([describe_ranks(ranks)] if ranks else [])]
    console().print(readings_table(readings, str(out), " ".join(sentences)))
