"""Behaviour of a measured run: every checkpoint of its lineage is asked, and judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.judges import Judge, open_judge
from probes.engine import current_engine
from probes.errors import RunFolderError
from probes.progress import Report, silent, within
from probes.run import Run
from probes.stages.behaviour import write_behaviour
from probes.stages.first_answers import write_first_answers
from probes.stages.probe_answers import judge_probe_answers_again, write_probe_answers
from probes.stages.verdict import write_verdict

_DOCUMENT = "evaluation"
_FIRST = 0.2  # share of the time until the safety answer
_ASKING = 0.6  # share of the time until the probe prompts are asked too


def read_evaluation(run: Run) -> Evaluation | None:
    """What the run's behaviour was last judged on, rendered as its prompts; None where it never was."""
    if not run.has_json(_DOCUMENT):
        return None
    return replace(Evaluation.of(run.read_json(_DOCUMENT)), rendering=run.rendering)


@dataclass(frozen=True)
class Asking:
    """How checkpoints and judges are asked, which changes no answer.

    Attributes:
        device: where the model runs; None is as the run was measured.
        timeout: seconds an endpoint may take for one question.
        probe_prompts: ask the probe prompts too, to be looked at; their answers count in no rate.
    """

    device: str | None = None
    timeout: float = 60.0
    probe_prompts: bool = False


def evaluate(path: Path | str, evaluation: Evaluation, asking: Asking = Asking(), report: Report = silent) -> Run:
    """Judge the behaviour of every checkpoint of a run; what is there already is not done again.

    Answers that are there are judged anew by other judges, or by newer rules of the built-in one, without a model.

    Args:
        path: a measured run, whose checkpoints are still where they were.
        evaluation: what is asked, and who judges.
        asking: where and how long, and whether the probe prompts are asked too.
        report: told where the work is.

    Raises:
        RunFolderError: the run is not measured yet.
        GravityError: a checkpoint is gone, a question was a probe prompt, or a judge cannot be opened.
    """
    judges = _open_judges(evaluation, asking)
    with Run.writing(path) as run, current_engine().threads():
        if not run.manifest.checkpoints:
            raise RunFolderError(f"{path} holds no measured checkpoints", next_step="Run gravity-probe measure first.")
        # What has been answered is only judged again, and then no model is loaded.
        model, share = run.unopened_model(asking.device), _ASKING if asking.probe_prompts else 1.0
        write_first_answers(run, model, evaluation, judges, within(report, 0.0, _FIRST * share))
        write_behaviour(run, model, evaluation, within(report, _FIRST * share, share), judges)
        if asking.probe_prompts:
            write_probe_answers(run, model, evaluation.max_new_tokens, within(report, share, 1.0))
        else:
            judge_probe_answers_again(run, evaluation.max_new_tokens)
        if _verdict_stands(run):  # its last step hangs on behaviour
            write_verdict(run)
        run.save()
    return Run(path)


def answer_first(path: Path | str, evaluation: Evaluation, asking: Asking = Asking(), report: Report = silent) -> None:
    """Ask only what the safety answer needs, and report it as a result; `evaluate` goes on from there.

    Args:
        path: a run that has begun.
        evaluation: what is asked, and who judges.
        asking: where and how long.
        report: told where the work is, and each trajectory's answer.
    """
    with Run.writing(path) as run:
        model = run.unopened_model(asking.device)
        write_first_answers(run, model, evaluation, _open_judges(evaluation, asking), report)


def _open_judges(evaluation: Evaluation, asking: Asking) -> list[Judge]:
    return [open_judge(name, timeout=asking.timeout, device=asking.device or "auto") for name in evaluation.judges]


def _verdict_stands(run: Run) -> bool:
    """Whether the verdict that is there is that of the drift and the nulls that are there, and can be made again."""
    manifest = run.manifest
    tested = "nulls" in manifest.stages or not run.has_witness
    whole = manifest.status == "finished" and manifest.config.get("nulls") and tested
    return bool(whole and run.has_json("verdict") and all(run.has_activations(member.id) for member in run.members))
