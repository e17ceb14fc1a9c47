"""Stages `answers/<checkpoint>.harmful`: what the safety answer needs, asked before all the rest.

The aligned model and the last checkpoint of each trajectory answer the harmful requests, all of them, and their answers
are judged at once: nothing is left out of the comparison, only over-refusal and the base flip rate follow later. The
stage of all answers takes these over and deletes their files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from probes.behaviour.evaluation import (
    HARMFUL,
    Evaluation,
    answer_harmful,
    fit_evaluation,
    judge_completions,
    progress_callback,
    with_questions,
)
from probes.behaviour.judges import Judge, JudgementCache
from probes.behaviour.rate_tables import safety_answers
from probes.errors import PromptError
from probes.lineage import MIRROR, Member
from probes.models import ModelHost
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Progress, Report, silent
from probes.prompts import OWN, PromptSet, render
from probes.run import Run
from probes.stages.answer_sources import names_elsewhere
from probes.stages.jobs import StageJob, write_all
from probes.store import ALIGNED, fingerprint

VERSION = 4  # of answers: raise it when a change alters them
JUDGEMENTS = "judgements.jsonl"
_PHASE = "asking first"


def answers_inputs(model: CheckpointFolders, evaluation: Evaluation) -> list[Any]:
    """What every checkpoint's answers hang on beside its weights.

    Args:
        model: with the aligned model's tokenizer and context.
        evaluation: as it fits this model.
    """
    rendering = evaluation.rendering
    rendered = render(evaluation.questions, model.tokenizer, model.context_length, rendering)
    inputs = [rendered.sha256, [list(pair) for pair in evaluation.task], evaluation.max_new_tokens]
    return [*inputs, rendering.about] if rendering != OWN else inputs  # the task's items are rendered likewise


def answers_key(inputs: Sequence[Any], weights: str, *elsewhere: str) -> str:
    """What a checkpoint's answers are made from.

    Args:
        inputs: of `answers_inputs`.
        weights: the checkpoint's hash.
        elsewhere: `AnswerSource.identity` of what it answers elsewhere; none where it answers here.
    """
    return fingerprint([VERSION, weights, *inputs, *elsewhere])


def first_stage(checkpoint: str) -> str:
    """The stage's name; no checkpoint's own answers are called so, since its name ends in a role or a step."""
    return f"answers/{checkpoint}.{HARMFUL}"


def first_key(evaluation: Evaluation, answers: str) -> str:
    """What first answers are made from: what all answers are (`answers_key`), and which requests are harmful."""
    return fingerprint([answers, list(evaluation.labels)])


def read_first_answers(run: Run, evaluation: Evaluation, member: Member, answers: str) -> pd.DataFrame | None:
    """A checkpoint's first answers, where they were made from what all its answers are made from; else None."""
    stage = first_stage(member.id)
    return run.read_table(stage) if run.holds(stage, first_key(evaluation, answers)) else None


def write_first_answers(
    run: Run, model: CheckpointFolders, evaluation: Evaluation, judges: list[Judge], report: Report = silent
) -> None:
    """Ask what the safety answer needs, unless it was asked before, and report each trajectory's answer.

    Args:
        run: with its prompts rendered; nothing of it needs to be measured.
        model: the run's, which is opened where it has to answer.
        evaluation: what is asked.
        judges: the evaluation's, open.
        report: told after every batch, and the answers.

    Raises:
        PromptError: a question is among the run's probe prompts.
    """
    refuse_overlap(run, evaluation)
    members = _members(run, names_elsewhere(run, evaluation))
    fitted, _ = fit_evaluation(evaluation, model, run.rendering)
    if len(members) < 2 or HARMFUL not in fitted.labels:
        return
    inputs = answers_inputs(model, fitted)
    keys = {member.id: answers_key(inputs, model.weights_sha256(member.ref)) for member in members}
    jobs = [
        StageJob(f"First answers of {member.id}", first_stage(member.id), first_key(fitted, key), work)
        for member, key, work in ((member, keys[member.id], _Answering(member, fitted)) for member in members)
        if not run.holds(f"answers/{member.id}", key) and read_first_answers(run, fitted, member, key) is None
    ]
    if jobs:
        write_all(run, model, jobs, report)
        answers = [_harmful_answers(run, fitted, member, keys[member.id]) for member in members]
        for sentence in _sentences(run, judges, pd.concat(answers, ignore_index=True), members):
            report(Progress(_PHASE, 1, 1, result=sentence))


@dataclass(frozen=True)
class _Answering:
    """One checkpoint's answers to the harmful requests."""

    member: Member
    evaluation: Evaluation

    def __call__(self, run: Run, model: ModelHost, report: Report) -> None:
        """Write them."""
        name = self.member.id
        report(Progress(_PHASE, 0, 1, name))
        model.put(self.member.ref)
        answers = answer_harmful(model, self.evaluation, progress_callback(report, _PHASE, name))
        run.write_table(first_stage(name), answers)


def refuse_overlap(run: Run, evaluation: Evaluation) -> None:
    """Refuse questions that are probe prompts of the run.

    Raises:
        PromptError: some are (they are named).
    """
    probes = run.read_table("prompts", columns=["id", "text"])
    shared = probes.loc[probes["text"].isin(evaluation.questions.texts), "id"].tolist()
    if shared:
        raise PromptError(
            "Evaluation prompts are among the probe prompts of the run",
            got=", ".join(shared[:5]) + (f" and {len(shared) - 5} more" if len(shared) > 5 else ""),
            next_step="Judge behaviour on other prompts than those that made the direction.",
        )


def _members(run: Run, elsewhere: Collection[str]) -> list[Member]:
    """The aligned model, and the last checkpoint of each trajectory that is held against it and answers here."""
    last = {(member.arm, member.seed): member for member in run.tuned}
    held = [member for member in last.values() if member.arm != MIRROR]
    return [] if ALIGNED in elsewhere else [member for member in (run.members[0], *held) if member.id not in elsewhere]


def _sentences(run: Run, judges: list[Judge], answers: pd.DataFrame, members: Sequence[Member]) -> Iterator[str]:
    """The safety answer of each trajectory, from harmful requests alone."""
    completions, _ = judge_completions(answers, judges, JudgementCache(run.path / JUDGEMENTS), silent)
    known = safety_answers(completions)
    yield from (
        f"{member.arm} (seed {member.seed}): {known[member.id].text}" for member in members if member.id in known
    )
    yield "Over-refusal, and how steady the answers are, follow."


def _harmful_answers(run: Run, evaluation: Evaluation, member: Member, key: str) -> pd.DataFrame:
    """A checkpoint's answers to the harmful requests, with their questions."""
    first = read_first_answers(run, evaluation, member, key)
    if first is not None:
        harmful = PromptSet(tuple(prompt for prompt in evaluation.prompts.prompts if prompt.label == HARMFUL))
        return with_questions(first, replace(evaluation, prompts=harmful, look_alikes=None)).assign(**member.labels)
    answers = with_questions(run.read_table(f"answers/{member.id}"), evaluation).assign(**member.labels)
    return answers[answers["label"] == HARMFUL]
