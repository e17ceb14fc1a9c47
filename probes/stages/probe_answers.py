"""Stages `probe_answers/<checkpoint>`: what every checkpoint answers to the probe prompts, to be looked at beside them.

Probe prompts make the directions, so their answers are shown and never counted: no rate, no safety answer and no
verdict reads them.
"""

from __future__ import annotations

from probes.behaviour.evaluation import (
    Evaluation,
    answer_questions,
    fit_evaluation,
    judge_completions,
    progress_callback,
    with_questions,
)
from probes.behaviour.judges import JudgementCache, open_judge
from probes.models import ModelHost
from probes.progress import Progress, Report, silent, within
from probes.run import Run
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
    members = run.members
    for number, member in enumerate(members):
        weights = run.manifest.checkpoints[member.id]["weights_sha256"]
        made_from = fingerprint([_VERSION, weights, run.rendered.sha256, max_new_tokens])
        share = within(report, number / len(members), (number + 1) / len(members))
        share(Progress("asking the probe prompts", 0, 1, member.id))
        stage = f"{FOLDER}/{member.id}"
        if run.holds(stage, made_from):
            continue
        with run.stage(stage, made_from):
            model.put(member.ref)
            done = progress_callback(share, "asking the probe prompts", member.id)
            answers, _ = answer_questions(model, evaluation, done=done)
            rows = with_questions(answers, evaluation).assign(**member.labels)
            judged, _ = judge_completions(rows, [open_judge("builtin")], JudgementCache(), silent)
            run.write_table(stage, judged[list(COLUMNS)])
        run.save()
