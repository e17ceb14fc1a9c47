"""Stages `behaviour.parquet` and `completions.parquet`: what every checkpoint does when it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from probes import behaviour
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.progress import Report
from probes.prompts import PromptSet
from probes.store import RunFolder, fingerprint

_VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """What behaviour is judged on; none of it is used for a direction or a penalty.

    Attributes:
        prompts: harmful and harmless requests.
        task: (request, right answer) pairs of the benign task, for its loss; empty leaves the loss out.
        max_new_tokens: length of a completion.
    """

    prompts: PromptSet
    task: tuple[tuple[str, str], ...] = ()
    max_new_tokens: int = 32


def write_behaviour(run: RunFolder, lineage: Lineage, host: ModelHost, evaluation: Evaluation, report: Report) -> None:
    """Generate at every checkpoint and write rates with Wilson intervals, and every completion."""
    weights = {name: about["weights_sha256"] for name, about in run.manifest.checkpoints.items()}
    asked = [evaluation.prompts.sha256, list(evaluation.task), evaluation.max_new_tokens]
    made_from = fingerprint([_VERSION, weights, asked])
    if run.holds("behaviour", made_from):
        return
    with run.stage("behaviour", made_from):
        rates, completions = behaviour.evaluate(
            host,
            lineage,
            evaluation=evaluation.prompts,
            task=evaluation.task or None,
            max_new_tokens=evaluation.max_new_tokens,
            progress=report,
        )
        run.write_table("completions", completions)
        run.write_table("behaviour", rates)
