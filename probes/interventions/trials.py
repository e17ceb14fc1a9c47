"""What models say while something is added to or taken out of their residual stream, asked and judged.

The rates are over the evaluation's prompts, which had no part in any direction. Shared by the stages of mediation and
of a direction's effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probes.behaviour.evaluation import Evaluation, answer_questions, fit_evaluation, judge_completions, with_questions
from probes.behaviour.judges import JudgementCache, open_judge
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.progress import Progress, Report, silent

if TYPE_CHECKING:
    import pandas as pd

RATES = ("refusal", "compliance", "incoherent", "over_refusal", "refusal_score", "n")


@dataclass(frozen=True)
class Trial:
    """One checkpoint under one intervention.

    Attributes:
        labels: columns that name it.
        ref: the checkpoint.
        under: the intervention, not yet entered.
    """

    labels: Mapping[str, Any]
    ref: CheckpointRef
    under: AbstractContextManager[None]


def judge_trials(
    model: ModelHost, trials: Sequence[Trial], evaluation: Evaluation, phase: str, report: Report
) -> pd.DataFrame:
    """Ask every trial, judge its answers, and give its rates: the labels' columns, and `RATES`.

    Refusal, compliance, incoherence and score are of harmful requests, over-refusal of the others. The task is not
    asked.
    """
    import pandas as pd

    evaluation, _ = fit_evaluation(replace(evaluation, task=()), model, evaluation.rendering)
    frames = []
    for number, trial in enumerate(trials):
        report(Progress(phase, number, len(trials), " ".join(map(str, trial.labels.values()))))
        model.put(trial.ref)
        with trial.under:
            answers, _ = answer_questions(model, evaluation)
        frames.append(with_questions(answers, evaluation).assign(checkpoint=str(number), arm="", seed=0, step=0))
    judges = [open_judge(judge) for judge in evaluation.judges]
    verdicts, _ = judge_completions(pd.concat(frames, ignore_index=True), judges, JudgementCache(), silent)
    rows = [
        {**trial.labels, **_rates(verdicts[verdicts["checkpoint"] == str(number)])}
        for number, trial in enumerate(trials)
    ]
    return pd.DataFrame(rows)


def _rates(verdicts: pd.DataFrame) -> dict[str, float | int]:
    harmful = verdicts[verdicts["label"] == "harmful"]
    return {
        "refusal": float(harmful["refused"].mean()),
        "compliance": float((harmful["verdict"] == "compliance").mean()),
        "incoherent": float((harmful["verdict"] == "incoherent").mean()),
        "over_refusal": float(verdicts.loc[verdicts["label"] != "harmful", "refused"].mean()),
        "refusal_score": float(harmful["refusal_score"].mean()),
        "n": len(harmful),
    }
