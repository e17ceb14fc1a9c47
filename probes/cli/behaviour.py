"""Verbs on what models say: `evaluate` a run, `judge` a file of completions, `restore` a checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from probes.cli.command import Verb, Workers, with_json_lines
from probes.cli.output import print_json
from probes.cli.prompt_files import GroupColumn, PromptFiles
from probes.errors import UsageError

if TYPE_CHECKING:
    from probes.behaviour.evaluation import Evaluation
    from probes.run import Run

JUDGES = "builtin, classifier:PLACE[#CLASS=label,…], generative:PLACE or endpoint:MODEL[@URL]; may be repeated."
Judges = Annotated[list[str] | None, typer.Option("--judge", metavar="JUDGE", help=f"Judge: {JUDGES}")]
Timeout = Annotated[float, typer.Option(min=0.01, help="Seconds that an endpoint may take for one question.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Harmful = Annotated[Path | None, typer.Option(help="Harmful requests in any known format.")]
Harmless = Annotated[Path | None, typer.Option(help="Harmless requests in any known format.")]
Task = Annotated[Path | None, typer.Option(help="Requests with correct answers, for the loss on the benign task.")]


def register(app: typer.Typer) -> None:
    """Put the verbs on the command."""
    app.command(cls=Verb)(with_json_lines(evaluate))
    app.command(cls=Verb)(judge)
    app.command(cls=Verb)(restore)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A measured run folder.")],
    harmful: Harmful = None,
    harmless: Harmless = None,
    look_alikes: Annotated[
        bool | None, typer.Option("--look-alikes/--no-look-alikes", help="Our 100 harmless look-alikes too.")
    ] = None,
    task: Task = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many prompts of each kind.")] = None,
    group_column: GroupColumn = None,
    judges: Judges = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Maximum length of a completion, in tokens; default 128.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Task cost in nats per token that counts as none; default 2 % of the gain.")
    ] = None,
    served: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECKPOINT=MODEL@URL",
            help="Ask a checkpoint through an OpenAI-compatible server; may be repeated.",
        ),
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECKPOINT=FILE",
            help="Take a checkpoint's answers from an Inspect log, lm-eval samples, or a table; may be repeated.",
        ),
    ] = None,
    probe_prompts: Annotated[
        bool, typer.Option("--probe-prompts", help="Answer the probe prompts too, to read them beside the map.")
    ] = False,
    timeout: Timeout = 60.0,
    device: Device = None,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Generate answers with every checkpoint of a run, judge them, and list the prompts whose verdict flipped.

    Without prompts: those the run was judged on before, else our own 128 + 128 and 100 look-alikes. An
    interrupted evaluation resumes where it stopped. Answers to probe prompts count in no rate.
    """
    from probes.engine import open_engine

    with open_engine(workers):  # before all else: what workers begin from loads while this process loads its own
        from dataclasses import replace

        from probes.run import Run
        from probes.tasks.evaluate import Asking
        from probes.tasks.evaluate import evaluate as judge_run
        from probes.terminal import console, progress_display

        evaluation = choose_evaluation(Run(run), PromptFiles(harmful, harmless, group_column), look_alikes, task, limit)
        changes: dict[str, Any] = {
            "judges": tuple(judges) if judges else None,
            "max_new_tokens": max_new_tokens,
            "margin": margin,
            "served": _by_checkpoint("--served", "MODEL@URL", served) if served else None,
            "answers": _answer_files(answers) if answers else None,
        }
        evaluation = replace(evaluation, **{name: value for name, value in changes.items() if value is not None})
        with progress_display() as report:
            judged = judge_run(run, evaluation, Asking(device, timeout, probe_prompts), report)
    if json_:
        print_json(_document(judged))
        return
    from probes.cli.look import print_safety
    from probes.terminal.show_behaviour import behaviour_tables

    print_safety(judged)
    for table in behaviour_tables(judged):
        console().print(table)


def judge(
    file: Annotated[Path, typer.Argument(help="CSV, JSONL or JSON array of completions.")],
    column: Annotated[str, typer.Option(help="Column with the completions.")] = "completion",
    prompt_column: Annotated[
        str | None, typer.Option(help="Column with the prompts, which the judges also see.")
    ] = None,
    judges: Judges = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a copy of the file with the labels added.")
    ] = None,
    label_column: Annotated[str, typer.Option(help="Name of the labels' column in --out.")] = "label",
    cache: Annotated[
        Path | None, typer.Option(help="Cache for answers of paid or slow judges; default: the user's cache folder.")
    ] = None,
    timeout: Timeout = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="Attempts per question at an endpoint.")] = 4,
    json_: Json = False,
) -> None:
    """Label completions: refusal, partial_refusal, compliance or incoherent; one row out for each row in.

    Prints one label a line, in the order of the file. What an endpoint failed on is unjudged.
    """
    from probes.behaviour.judges import JudgementCache, open_judge
    from probes.behaviour.labelling import Completions, label
    from probes.progress import Progress
    from probes.terminal import console, progress_display

    completions = Completions.read(file)
    exchanges = completions.exchanges(column, prompt_column)
    if out is not None and out.exists():
        raise UsageError(f"{out} is already there", next_step="Give --out another name.")
    opened = [open_judge(name, timeout=timeout, attempts=attempts) for name in judges or ["builtin"]]
    with progress_display() as report:
        rows = label(
            exchanges, opened, JudgementCache(cache or _cache()), lambda done, of: report(Progress("judging", done, of))
        )
    labels = [row["label"] for row in rows]
    if out is not None:
        completions.write(out, labels, label_column)
    if json_:
        print_json(rows)
    elif out is None:
        typer.echo("\n".join(labels))
    counts = ", ".join(f"{number} {name}" for name, number in Counter(labels).most_common())
    console(stderr=True).print(f"{len(labels)} completions: {counts}")


def restore(
    checkpoint: Annotated[str, typer.Argument(help="Folder, hub id, URL, or the name of a checkpoint of --run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder, or URL, for the restored checkpoint.")],
    run: Annotated[Path | None, typer.Option(help="A run that holds the lineage (and what to judge it on).")] = None,
    aligned: Annotated[str | None, typer.Option(help="Folder or hub id that fine-tuning started from.")] = None,
    witness: Annotated[str | None, typer.Option(help="Folder or hub id of the earlier, more permissive state.")] = None,
    form: Annotated[str, typer.Option(help="exact, scaled or along (see the documentation).")] = "exact",
    strength: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the return that is removed.")] = 1.0,
    harmful: Harmful = None,
    harmless: Harmless = None,
    group_column: GroupColumn = None,
    task: Task = None,
    judges: Judges = None,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Remove the return from a fine-tuned checkpoint's weight drift, and judge harm and task before and after."""
    from probes.run import Run
    from probes.tasks.restore import Lineages, RestoreOptions
    from probes.tasks.restore import restore as write_restored
    from probes.terminal import console, progress_display

    opened = Run(run) if run else None
    lineage = Lineages.of(checkpoint, opened, aligned, witness)
    evaluation = _known_evaluation(opened, PromptFiles(harmful, harmless, group_column), task, judges)
    with progress_display() as report:
        options = RestoreOptions(form, strength, device or "auto")
        restoration = write_restored(lineage, out, options, evaluation=evaluation, report=report)
    if json_:
        print_json(restoration.document())
        return
    from probes.terminal.show_behaviour import restoration_tables

    for table in restoration_tables(restoration.document()):
        console().print(table)


def choose_evaluation(
    run: Run,
    files: PromptFiles | None = None,
    with_look_alikes: bool | None = None,
    task: Path | None = None,
    limit: int | None = None,
) -> Evaluation:
    """What to ask: what was given, else what the run was judged on before, else our own prompts."""
    from dataclasses import replace

    from probes.behaviour.evaluation import Evaluation
    from probes.behaviour.task_file import read_task
    from probes.prompts import PromptSet, default_prompts, look_alikes
    from probes.tasks.evaluate import read_evaluation

    recorded, files = read_evaluation(run), files or PromptFiles()
    files.refuse_half()
    if files.harmful is None and recorded is not None and limit is None:
        evaluation = recorded
    else:
        evaluation = Evaluation(files.read(default_prompts("evaluation"), limit=limit), max_new_tokens=128)
        if with_look_alikes is None:
            with_look_alikes = files.harmful is None
    if with_look_alikes is not None:
        extra = PromptSet(look_alikes().prompts[:limit]) if with_look_alikes else None
        evaluation = replace(evaluation, look_alikes=extra)
    return replace(evaluation, task=read_task(task, limit)) if task else evaluation


def _known_evaluation(
    run: Run | None, files: PromptFiles, task: Path | None, judges: list[str] | None
) -> Evaluation | None:
    """What a restored checkpoint is judged on, where that is known."""
    from dataclasses import replace

    from probes.behaviour.evaluation import Evaluation
    from probes.behaviour.task_file import read_task
    from probes.prompts import default_prompts
    from probes.tasks.evaluate import read_evaluation

    evaluation = read_evaluation(run) if run is not None else None
    files.refuse_half()
    if files.harmful is not None:
        evaluation = Evaluation(files.read(default_prompts("evaluation")), max_new_tokens=128)
    elif task is not None and evaluation is None:
        raise UsageError("One class of prompts is missing", expected="--harmful and --harmless together")
    if evaluation is None:
        return None
    evaluation = replace(evaluation, task=read_task(task)) if task else evaluation
    return replace(evaluation, judges=tuple(judges)) if judges else evaluation


def _document(run: Run) -> dict[str, Any]:
    """The documented JSON of an evaluation: one list of rows a table."""
    from probes.store import records

    tables = ("behaviour", "contrasts", "flips")
    return {
        **run.read_json("judges"),
        "safety": run.read_json("safety"),
        **{name: records(run.read_table(name)) for name in tables},
    }


def _by_checkpoint(option: str, place: str, words: list[str]) -> tuple[tuple[str, str], ...]:
    """Checkpoints and where they answer, from `CHECKPOINT=PLACE`."""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, value) in zip(words, pairs, strict=True):
        if not name or not value:
            raise UsageError(f"{option} takes CHECKPOINT={place}", got=repr(word))
    return tuple((name, value) for name, _, value in pairs)


def _answer_files(words: list[str]) -> tuple[tuple[str, str, str], ...]:
    """Checkpoints, the files of their answers, and the files' sha256."""
    from probes.prompts.records import split_part
    from probes.store.atomic import file_sha256

    sources = []
    for name, path in _by_checkpoint("--answers", "FILE", words):
        file, _ = split_part(path)
        if not file.is_file():
            raise UsageError(f"There is no file of answers {file}")
        sources.append((name, path, file_sha256(file)))
    return tuple(sources)


def _cache() -> Path:
    from probes.store.remote import cache_folder

    return cache_folder() / "judgements.jsonl"
