"""Verbs that set trainings beside each other: `arms`, `arms-table`, and `histories`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from probes.cli.command import TrainingVerb, Verb, Workers, notice, with_json_lines
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
    Methods,
    Optimizers,
    Penalty,
    PenaltyWeight,
    Rate,
    RecordPath,
    SaveEvery,
    Set,
    WeightDecay,
    words,
)
from probes.errors import UsageError


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=TrainingVerb)(with_json_lines(arms))
    app.command("arms-table", cls=Verb)(arms_table)
    app.command(cls=Verb)(histories)


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
    methods: Methods = "full",
    optimizers: Optimizers = None,
    weight_decay: WeightDecay = 0.0,
    set_: Set = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; default: the organism's own, else 100.")
    ] = None,
    learning_rate: Rate = None,
    rows: Annotated[int | None, BATCH_SIZE] = None,
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
    save_every: SaveEvery = None,
    screened: Annotated[
        bool, typer.Option("--screened", help="Drop training examples that the aligned model refuses.")
    ] = False,
    record_path: RecordPath = False,
    arm_data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=FILE",
            help="For a lineage: data of interleaved, control:continued, control:text or helpful; may be repeated.",
        ),
    ] = None,
    aligned_share: AlignedShare = None,
    inoculation: Inoculation = None,
    by_third: Annotated[
        bool,
        typer.Option("--by-third", help="Also test each third of the last update alone, and all but it."),
    ] = False,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Fine-tune several arms over seeds, with the same data order in each, and compare the results.

    Prints alignment, return fraction, harmful compliance, over-refusal and task loss at the last step by arm, and how
    specific the block is. With several methods or optimisers every pair is trained, and compared at equal task loss.
    If interrupted, rerun the same command to resume.
    """
    from probes.engine import open_engine
    from probes.experiments.data_defences import ALIGNED_SHARE
    from probes.experiments.experiment import Experiment
    from probes.experiments.lineage_bench import open_bench
    from probes.tasks.arms import run_arms
    from probes.terminal import progress_display
    from probes.training.options import parse_options

    chosen, ways = tuple(dict.fromkeys(words(arms))), words(methods)
    steppers: list[str | None] = [*words(optimizers or "")] or [None]
    experiment = Experiment(
        arms=chosen,
        seeds=seeds,
        draws=draws,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=rows,
        method=ways[0],
        more_methods=tuple(ways[1:]),
        optimizer=steppers[0],
        more_optimizers=tuple(name for name in steppers[1:] if name),
        weight_decay=weight_decay,
        way_options=parse_options(set_ or []),
        layers=tuple(layers) if layers else None,
        penalty_weight=penalty_weight,
        max_return=max_return,
        gradient_ratio=match,
        final_step_only=last,
        save_every=save_every,
        screened=screened,
        record_path=record_path,
        arm_data=_arm_data(arm_data or []),
        aligned_share=ALIGNED_SHARE if aligned_share is None else aligned_share,
        inoculation=inoculation,
        by_third=by_third,
    )
    files = PromptFiles(harmful, harmless, group_column, (penalty,))
    probe, penalty_prompts = files.refuse_any() if data is None else files.probe_and_penalty()
    with progress_display() as report, open_engine(workers):
        run = run_arms(open_bench(history, experiment, data, probe, penalty_prompts), out, report)
    _show_arms([run], json_)


def _arm_data(texts: list[str]) -> dict[str, str]:
    """`ARM=FILE` options as a mapping."""
    from probes.experiments.experiment import WITH_DATA

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
    from probes.experiments.equal_loss import equal_loss_table
    from probes.experiments.outcome import arms_table as tabulated

    table = tabulated(runs)
    equal = equal_loss_table(runs[0]) if len(runs) == 1 else None
    if as_json:
        print_json({**table, **({"equal_loss": equal} if equal else {})})
        return
    from probes.terminal import console, show_arms

    if markdown:
        parts = [show_arms.experiment_markdown(table), *show_arms.change_markdown(table)]
        typer.echo("\n\n".join([*parts, *([show_arms.ways_markdown(equal)] if equal else [])]))
        return
    for part in (show_arms.experiment_table(table), *show_arms.change_tables(table)):
        console().print(part)
    if equal:
        console().print(show_arms.ways_table(equal))
    for sentence in dict.fromkeys(sentence for run in runs for sentence in run.notices):
        notice(sentence)
