"""Stages `probe_answers/<checkpoint>`: what every checkpoint answers to the probe prompts, to be looked at beside them.

Probe prompts make the directions, so their answers are shown and never counted: no rate, no safety answer and no
verdict reads them.
"""

from __future__ import annotations

from functools import partial

from probes.behaviour.evaluation import (
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
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages.jobs import StageJob, write_all
from probes.store import fingerprint

FOLDER = "probe_answers"
COLUMNS = ("prompt", "completion", "cut_off", "verdict", "refused", "reason")
_VERSION = 1


def write_probe_answers(run: Run, model: ModelHost, max_new_tokens: int, report: Report = silent) -> None:
    """Ask every checkpoint the run's probe prompts, and judge the answers with the built-in judge.

    Args:
        run: measured, with the checkpoints' hashes in its manifest.
        model: opened on the aligned model; afterwards it holds some checkpoint of the lineage.
        max_new_tokens: length of a completion.
        report: told after every batch.

    Raises:
        GravityError: a checkpoint is no longer where it was.
    """
    every_prompt = Evaluation(prompts=run.prompts, max_new_tokens=max_new_tokens)
    evaluation, _ = fit_evaluation(every_prompt, model, run.rendering)
    jobs = []
    for member in run.members:
        weights = run.manifest.checkpoints[member.id]["weights_sha256"]
        made_from = fingerprint([_VERSION, RULES, weights, run.rendered.sha256, max_new_tokens])
        if not run.holds(f"{FOLDER}/{member.id}", made_from):
            name, work = f"Answers of {member.id} to the probe prompts", partial(_answer, member, evaluation)
            jobs.append(StageJob(name, f"{FOLDER}/{member.id}", made_from, work))
    write_all(run, model, jobs, report)
    run.save()


def _answer(member: Member, evaluation: Evaluation, run: Run, model: ModelHost, report: Report) -> None:
    """Let one checkpoint answer."""
    report(Progress("asking the probe prompts", 0, 1, member.id))
    model.put(member.ref)
    done = progress_callback(report, "asking the probe prompts", member.id)
    answers, _ = answer_questions(model, evaluation, done=done)
    rows = with_questions(answers, evaluation).assign(**member.labels)
    judged, _ = judge_completions(rows, [open_judge("builtin")], JudgementCache(), silent)
    run.write_table(f"{FOLDER}/{member.id}", judged[list(COLUMNS)])
