"""Verbs that fine-tune: `train` under a guard, `arms` side by side, and `histories` side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from probes.cli.command import TrainingVerb, Verb, Workers, with_json_lines
from probes.cli.output import print_json
from probes.cli.prompt_files import GroupColumn, PromptFiles
from probes.errors import GateTripped, UsageError

if TYPE_CHECKING:
    from probes.guard.callback import ReversionGuard
    from probes.lineage import Lineage
    from probes.prompts import PromptSet

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Rate = Annotated[
    float | None, typer.Option("--learning-rate", help="Peak learning rate; default 1e-5 for full, 2e-4 for LoRA.")
]
Method = Annotated[Literal["full", "lora"], typer.Option(help="Train every weight, or LoRA on every linear layer.")]
Layers = Annotated[list[int] | None, typer.Option("--layer", min=0, help="Guarded layer; may be repeated.")]
Penalty = Annotated[
    Path | None, typer.Option(help="Penalty prompts (labelled, or harmful ones), neither probe nor evaluation prompts.")
]
Harmful = Annotated[Path | None, typer.Option(help="Harmful probe prompts in any known format.")]
Harmless = Annotated[Path | None, typer.Option(help="Harmless probe prompts in any known format.")]
PenaltyWeight = Annotated[
    float | None, typer.Option("--penalty-weight", help="Weight λ of the penalty; default: the mode's own.")
]
GradientRatio = Annotated[
    float | None,
    typer.Option("--gradient-ratio", help="Rescale the penalty so that ‖g_penalty‖ ÷ ‖g_task‖ is this at every step."),
]
RecordPath = Annotated[
    bool,
    typer.Option("--record-path", help="Keep what every step was made from, for `attribute`; `plan` says its size."),
]
MaxReturn = Annotated[float | None, typer.Option(help="Keep the return fraction at or below this (block).")]


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
    """Put the verbs on the command."""
    app.command(cls=TrainingVerb)(train)
    app.command(cls=TrainingVerb)(with_json_lines(arms))
    app.command("arms-table", cls=Verb)(arms_table)
    app.command(cls=Verb)(histories)


def train(
    lineage: Annotated[Path, typer.Argument(help="A lineage file: training starts from its aligned model.")],
    data: Annotated[Path, typer.Option(help="Requests with answers, in any known format.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder: checkpoints, and the run that watches them.")],
    mode: Annotated[
        str,
        typer.Option(help="watch, block, push, a defence or a control; `list` prints them all.", callback=_list_modes),
    ] = "block",
    method: Method = "full",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 100,
    learning_rate: Rate = None,
    rows: Annotated[int, typer.Option("--batch-size", min=1, help="Examples in a batch.")] = 8,
    accumulation: Annotated[
        int, typer.Option("--gradient-accumulation-steps", min=1, help="Batches in an optimiser step.")
    ] = 1,
    max_length: Annotated[int | None, typer.Option(min=8, help="Truncate examples to this many tokens.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of data order, dropout, adapters and penalty prompts.")] = 0,
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    json_: Json = False,
) -> None:
    """Fine-tune the aligned model of a lineage on your data, under a guard.

    The loss is on answers alone, in the model's chat template. If interrupted, rerun the same command to resume.
    Exit code 3: the alarm stopped the training; the last healthy checkpoint is named.
    """
    from probes.behaviour.task_file import read_task
    from probes.guard.training import Training, fine_tune
    from probes.lineage import Lineage
    from probes.terminal import progress_display

    history = Lineage.load(lineage)
    training = Training(
        method=method,
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
    task = read_task(data)
    with progress_display() as report:
        guard = fine_tune(history.aligned, task, out, training, make, about, device=device, report=report)
    _show_readings(guard, out, json_)
    if guard.stopped:
        raise GateTripped(guard.stopped)


def _guard_maker(
    history: Lineage, options: Mapping[str, Any], prompts: tuple[PromptSet, PromptSet], evaluation: PromptSet | None
) -> tuple[Callable[[Path], ReversionGuard], dict[str, Any]]:
    """What makes the guard that records in a folder, and what of it decides the training's result."""
    from probes.guard.callback import ReversionGuard
    from probes.guard.modes import Options

    probe, penalty = prompts
    own = {name: value for name, value in options.items() if name != "strength"}

    def make(folder: Path) -> ReversionGuard:
        weight = Options(penalty_weight=options["strength"], seed=options["seed"])
        return ReversionGuard(
            history, penalty=penalty, probe=probe, evaluation=evaluation, out=folder, options=weight, **own
        )

    later = ("evaluate_every", "record_path")  # earlier trainings do not name them
    about = {name: value for name, value in options.items() if name not in later or value}
    return make, {**about, "aligned": str(history.aligned), "penalty": penalty.sha256, "probe": probe.sha256}


def _show_readings(guard: Any, out: Path, as_json: bool) -> None:
    readings = [vars(reading) for reading in guard.readings]
    if as_json:
        healthy = str(guard.last_healthy) if guard.last_healthy else None
        document = {"out": str(out), "readings": readings, "stopped": guard.stopped, "last_healthy": healthy}
        print_json(document)
        return
    from probes.terminal import console
    from probes.terminal.show_arms import readings_table

    console().print(readings_table(readings, str(out)))


def arms(
    history: Annotated[
        Path, typer.Argument(help="The organism's history (a demo run, or its checkpoints), or a lineage file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder; rerun the same command to resume.")],
    arms: Annotated[
        str, typer.Option(help="Modes and trained controls, comma-separated; `all` for every one.")
    ] = "baseline,block,push,control:random",
    seeds: Annotated[int, typer.Option(min=1, help="Training runs per arm.")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Directions drawn per randomised control.")] = 1,
    data: Annotated[Path | None, typer.Option(help="For a lineage: requests with answers.")] = None,
    method: Method = "full",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: the organism's own, else 100.")
    ] = None,
    learning_rate: Rate = None,
    rows: Annotated[int | None, typer.Option("--batch-size", min=1, help="Examples in a batch.")] = None,
    layers: Layers = None,
    penalty_weight: PenaltyWeight = None,
    max_return: MaxReturn = None,
    match: GradientRatio = None,
    penalty: Penalty = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    group_column: GroupColumn = None,
    last: Annotated[
        bool, typer.Option("--final-step-only", help="Keep and measure only the last step: faster.")
    ] = False,
    screened: Annotated[
        bool, typer.Option("--screened", help="Drop training examples that the aligned model refuses.")
    ] = False,
    record_path: RecordPath = False,
    arm_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=FILE",
            help="For a lineage: data of control:continued, control:text or helpful; may be repeated.",
        ),
    ] = None,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Fine-tune several arms over seeds, with the same data order in each, and compare the results.

    Prints alignment, return fraction, harmful compliance, over-refusal and task loss at the last step by arm, and how
    specific the block is. If interrupted, rerun the same command to resume.
    """
    from probes.engine import open_engine
    from probes.experiments.experiment import Experiment
    from probes.experiments.lineage_bench import open_bench
    from probes.tasks.arms import run_arms
    from probes.terminal import progress_display

    chosen = tuple(dict.fromkeys(arm.strip() for arm in arms.split(",") if arm.strip()))
    experiment = Experiment(
        arms=chosen,
        seeds=seeds,
        draws=draws,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=rows,
        method=method,
        layers=tuple(layers) if layers else None,
        penalty_weight=penalty_weight,
        max_return=max_return,
        gradient_ratio=match,
        final_step_only=last,
        screened=screened,
        record_path=record_path,
        arm_data=_arm_data(arm_data or []),
    )
    files = PromptFiles(harmful, harmless, group_column, (penalty,))
    probe, penalty_prompts = files.refuse_any() if data is None else files.probe_and_penalty()
    with progress_display() as report, open_engine(workers):
        run = run_arms(open_bench(history, experiment, data, probe, penalty_prompts), out, report)
    _show_arms([run], json_)


def _arm_data(texts: list[str]) -> dict[str, str]:
    """`ARM=FILE` options as a mapping."""
    from probes.experiments.trained_controls import WITH_DATA

    pairs = [text.partition("=")[::2] for text in texts]
    unknown = [text for text, (arm, file) in zip(texts, pairs, strict=True) if arm not in WITH_DATA or not file]
    if unknown:
        raise UsageError("--arm-data takes ARM=FILE", got=unknown[0], expected="ARM one of " + ", ".join(WITH_DATA))
    return dict(pairs)


def arms_table(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of `arms`: the same arms on different histories.")],
    json_: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Compare the arms of one finished experiment, or of several.

    Several runs are averaged run by run, so that the standard deviation is that between histories. --json has every
    run's value and the intervals of the paired differences.
    """
    from probes.experiments.outcome import open_runs

    _show_arms(open_runs(runs), json_, markdown)


def histories(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with a verdict, each from a different history.")],
    json_: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Compare the safety answers, levels and qualifiers of several independent histories.

    From five histories on, it prints the probability that as many would reach level 4 without reversion.
    """
    from probes.experiments.outcome import open_runs
    from probes.tasks.histories import compare_histories

    comparison = compare_histories(open_runs(runs))
    if json_:
        print_json(comparison)
        return
    from probes.terminal import console
    from probes.terminal.show_histories import histories_markdown, histories_table

    if markdown:
        typer.echo(histories_markdown(comparison))
    else:
        console().print(histories_table(comparison))


def _show_arms(runs: Any, as_json: bool, markdown: bool = False) -> None:
    from probes.experiments.outcome import arms_table as tabulated

    table = tabulated(runs)
    if as_json:
        print_json(table)
        return
    from probes.terminal import console
    from probes.terminal.show_arms import experiment_markdown, experiment_table

    if markdown:
        typer.echo(experiment_markdown(table))
    else:
        console().print(experiment_table(table))
