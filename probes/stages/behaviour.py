"""Stages `answers/`, `task/`, `completions.parquet` and what follows from them: what every checkpoint does when asked.

Answers are kept by checkpoint, judgements by content, so that a stopped evaluation goes on where it was, and another
judge or another margin needs no new generation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.behaviour.answering import answering_record, prompt_frame
from probes.behaviour.evaluation import (
    Evaluation,
    answer_questions,
    judge_completions,
    progress_callback,
    with_questions,
)
from probes.behaviour.judges import Judge, JudgementCache, open_judge
from probes.errors import PromptError
from probes.models import ModelHost
from probes.progress import Progress, Report, within
from probes.prompts import render
from probes.run import Run
from probes.store import fingerprint

if TYPE_CHECKING:
    pass

_VERSION = 3
_GENERATING = 0.8  # share of the stage's time


def write_behaviour(
    run: Run, model: ModelHost, evaluation: Evaluation, report: Report, judges: list[Judge] | None = None
) -> None:
    """Ask every checkpoint, judge what it answers, and write rates, differences and flips.

    Args:
        run: with the checkpoints' hashes in its manifest.
        model: opened on the aligned model; afterwards it holds some checkpoint of the lineage.
        evaluation: what is asked and who judges.
        report: told after every checkpoint and every few judgements.
        judges: the evaluation's judges, already open; None opens them.

    Raises:
        PromptError: a question is among the run's probe prompts (they are named).
        JudgeError: a judge cannot be opened.
    """
    _refuse_overlap(run, evaluation)
    judges = judges if judges is not None else [open_judge(name) for name in evaluation.judges]
    run.write_json("evaluation", evaluation.document())
    answers = write_answers(run, model, evaluation, within(report, 0.0, _GENERATING))
    made_from = fingerprint([_VERSION, answers, list(evaluation.judges), evaluation.margin])
    if run.holds("behaviour", made_from) and not _has_unjudged(run):
        return
    with run.stage("behaviour", made_from):
        tables = {member.id: run.read_table(f"answers/{member.id}") for member in run.members}
        frame = prompt_frame(model.tokenizer)
        run.write_json("answering", answering_record(evaluation.max_new_tokens, tables, frame=frame))
        _write_tables(run, evaluation, judges, within(report, _GENERATING, 1.0))


def write_answers(run: Run, model: ModelHost, evaluation: Evaluation, report: Report) -> list[str]:
    """Write `answers/<checkpoint>` and `task/<checkpoint>` where they are not there yet; returns their fingerprints."""
    rendered = render(evaluation.questions, model.tokenizer, model.context_length)
    members, keys = run.members, []
    for number, member in enumerate(members):
        weights = run.manifest.checkpoints[member.id]["weights_sha256"]
        inputs = [rendered.sha256, [list(pair) for pair in evaluation.task], evaluation.max_new_tokens]
        keys.append(fingerprint([_VERSION, weights, *inputs]))
        share = within(report, number / len(members), (number + 1) / len(members))
        share(Progress("asking", 0, 1, member.id))
        if not run.holds(f"answers/{member.id}", keys[-1]):
            with run.stage(f"answers/{member.id}", keys[-1]):
                model.put(member.ref)
                answers, losses = answer_questions(
                    model, evaluation, done=progress_callback(share, "asking", member.id)
                )
                run.write_table(f"answers/{member.id}", answers)
                run.write_table(f"task/{member.id}", losses)
    return keys


def _write_tables(run: Run, evaluation: Evaluation, judges: list[Judge], report: Report) -> None:
    import pandas as pd

    from probes.behaviour import rate_tables as tables

    completions = pd.concat(
        [
            with_questions(run.read_table(f"answers/{member.id}"), evaluation).assign(**member.labels)
            for member in run.members
        ],
        ignore_index=True,
    )
    losses = pd.concat(
        [run.read_table(f"task/{member.id}").assign(**member.labels) for member in run.members], ignore_index=True
    )
    cache = JudgementCache(run.path / "judgements.jsonl")
    completions, agreement = judge_completions(completions, judges, cache, report)
    run.write_json("judges", agreement)
    run.write_table("completions", completions)
    run.write_table("flips", tables.flips(completions))
    run.write_table("contrasts", tables.contrasts(completions, losses, margin=evaluation.margin))
    run.write_table("behaviour", tables.rates(completions, losses))


def _has_unjudged(run: Run) -> bool:
    """Whether a judge left something open, which is asked again."""
    return any(run.read_json("judges")["unjudged"].values())


def _refuse_overlap(run: Run, evaluation: Evaluation) -> None:
    probes = run.read_table("prompts", columns=["id", "text"])
    shared = probes.loc[probes["text"].isin(evaluation.questions.texts), "id"].tolist()
    if shared:
        raise PromptError(
            "Evaluation prompts are among the probe prompts of the run",
            got=", ".join(shared[:5]) + (f" and {len(shared) - 5} more" if len(shared) > 5 else ""),
            next_step="Judge behaviour on other prompts than those that made the direction.",
        )
