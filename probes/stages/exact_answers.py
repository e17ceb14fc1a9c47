"""Stage `exact_answers.json`: how many held-out problems each role and each last checkpoint answers exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from probes.behaviour.ask import completion_text
from probes.behaviour.exact import count_exact
from probes.behaviour.generate import continue_prompts
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.view import ModelView
from probes.progress import Progress, Report
from probes.prompts import PromptSet, Rendering, render
from probes.run import Run
from probes.stages.jobs import complete_jobs
from probes.store import fingerprint

EXACT_ANSWERS = "exact_answers"
Task = Sequence[tuple[str, str]]
_VERSION = 1
_NEW_TOKENS = 96


def write_exact_answers(run: Run, model: ModelHost, task: Task, report: Report) -> None:
    """Write the number of exact answers by checkpoint, with that of the problems; null where answers have no numbers.

    Args:
        run: with the checkpoints' hashes in its manifest.
        model: opened on the aligned model; afterwards it holds some checkpoint of the lineage.
        task: (problem, right answer) pairs, held out of training.
        report: told before every checkpoint.
    """
    members = _asked_members(run)
    weights = [run.manifest.checkpoints[member.id]["weights_sha256"] for member in members]
    made_from = fingerprint([_VERSION, weights, [list(pair) for pair in task]])
    if run.holds(EXACT_ANSWERS, made_from):
        return
    with run.stage(EXACT_ANSWERS, made_from):
        jobs = {f"Exact answers of {member.id}": partial(_count, member, task) for member in members}
        counts = dict(complete_jobs(run, model, jobs, report))
        exact = {member.id: counts[name] for name, member in zip(jobs, members, strict=True)}
        run.write_json(EXACT_ANSWERS, {"problems": len(task), "exact": exact})


def _asked_members(run: Run) -> list[Member]:
    """The roles, and the last checkpoint of each trajectory."""
    last = {(member.arm, member.seed): member for member in run.members}
    return list(last.values())


def _count(member: Member, task: Task, run: Run, model: ModelHost, report: Report) -> int | None:
    """Let one checkpoint solve the problems."""
    report(Progress("counting exact answers", 0, 1, member.id))
    model.put(member.ref)
    return _count_exact(model, task, run.rendering)


def _count_exact(host: ModelView, task: Task, rendering: Rendering) -> int | None:
    questions = [question for question, _ in task]
    problems = PromptSet.of(questions, ["harmless"] * len(task))
    prompts = render(problems, host.tokenizer, host.context_length, rendering)
    generations = continue_prompts(host, prompts.token_ids, max_new_tokens=_NEW_TOKENS)
    completions = [
        completion_text(host.tokenizer, prompt, generation.ids)
        for prompt, generation in zip(prompts.token_ids, generations, strict=True)
    ]
    return count_exact(completions, [answer for _, answer in task])
