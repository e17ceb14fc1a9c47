"""Stages `probe_answers/<checkpoint>`: what every checkpoint answers to the probe prompts, to be looked at beside them.

Probe prompts make the directions, so their answers are shown and never counted: no rate, no safety answer and no
verdict reads them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from probes.behaviour.evaluation import (
    BUILTIN,
    Evaluation,
    answer_questions,
    fit_evaluation,
    judge_completions,
    progress_callback,
    with_questions,
)
from probes.behaviour.judges import JudgementCache, open_judge
from probes.behaviour.refusal_text import RULES
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages.jobs import StageJob, write_all
from probes.store import fingerprint

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "probe_answers"
COLUMNS = ("prompt", "completion", "cut_off", "verdict", "refused", "reason")
_VERSION = 1


def write_probe_answers(run: Run, model: CheckpointFolders, max_new_tokens: int, report: Report = silent) -> None:
    """Ask every checkpoint the run's probe prompts, and judge the answers with the built-in judge.

    Args:
        run: measured, with the checkpoints' hashes in its manifest.
        model: the run's, which is opened where a checkpoint has not answered yet.
        max_new_tokens: length of a completion.
        report: told after every batch.

    Raises:
        GravityError: a checkpoint is no longer where it was.
    """
    judge_probe_answers_again(run, max_new_tokens)
    every_prompt = Evaluation(prompts=run.prompts, max_new_tokens=max_new_tokens)
    evaluation, _ = fit_evaluation(every_prompt, model, run.rendering)
    jobs = []
    for member in run.members:
        made_from = _made_from(run, member, max_new_tokens, RULES)
        if not run.holds(f"{FOLDER}/{member.id}", made_from):
            name, work = f"Answers of {member.id} to the probe prompts", partial(_answer, member, evaluation)
            jobs.append(StageJob(name, f"{FOLDER}/{member.id}", made_from, work))
    if jobs:
        write_all(run, model, jobs, report)
    run.save()


def judge_probe_answers_again(run: Run, max_new_tokens: int) -> None:
    """Judge by the present rules what earlier ones have judged, from the texts that are there: nobody is asked.

    Args:
        run: measured, open for writing.
        max_new_tokens: length of a completion.
    """
    for member in run.members:
        stage = f"{FOLDER}/{member.id}"
        earlier = (_made_from(run, member, max_new_tokens, rules) for rules in (None, *range(1, RULES)))
        if any(run.holds(stage, key) for key in earlier):
            table = run.read_table(stage)
            ids = set(table["prompt"])
            prompts = replace(run.prompts, prompts=tuple(p for p in run.prompts.prompts if p.id in ids))
            with run.stage(stage, _made_from(run, member, max_new_tokens, RULES)):
                # The refusal score is no column of this table, and no judge's.
                _write_judged(run, member, Evaluation(prompts=prompts), table.assign(refusal_score=math.nan))


def _made_from(run: Run, member: Member, max_new_tokens: int, rules: int | None) -> str:
    """The fingerprint of a checkpoint's answers; the first versions of the program did not name the rules."""
    weights = run.manifest.checkpoints[member.id]["weights_sha256"]
    named = [] if rules is None else [rules]
    return fingerprint([_VERSION, *named, weights, run.rendered.sha256, max_new_tokens])


def _answer(member: Member, evaluation: Evaluation, run: Run, model: ModelHost, report: Report) -> None:
    """Let one checkpoint answer."""
    report(Progress("asking the probe prompts", 0, 1, member.id))
    model.put(member.ref)
    done = progress_callback(report, "asking the probe prompts", member.id)
    answers, _ = answer_questions(model, evaluation, done=done)
    _write_judged(run, member, evaluation, answers)


def _write_judged(run: Run, member: Member, evaluation: Evaluation, answers: pd.DataFrame) -> None:
    """Write a checkpoint's answers with what the built-in judge says of them."""
    rows = with_questions(answers, evaluation).assign(**member.labels)
    judged, _ = judge_completions(rows, [open_judge(BUILTIN)], JudgementCache(), silent)
    run.write_table(f"{FOLDER}/{member.id}", judged[list(COLUMNS)])
