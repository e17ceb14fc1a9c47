"""Behaviour over a whole lineage: every checkpoint is asked, its answers are kept, and rates come with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from probes.behaviour.generate import generate
from probes.behaviour.rates import wilson
from probes.behaviour.refusal import read
from probes.behaviour.task import Item, rendered_items, task_loss
from probes.lineage import CheckpointRef, Lineage
from probes.models import ModelHost
from probes.progress import Progress, Report, silent
from probes.prompts import LABELS, PromptSet, render
from probes.records import Estimate

RATE_COLUMNS = ("checkpoint", "arm", "seed", "step", "measure", "value", "low", "high", "n")
COMPLETION_COLUMNS = ("checkpoint", "arm", "seed", "step", "prompt", "label", "text", "completion", "refused")


@dataclass(frozen=True)
class _Place:
    checkpoint: str
    arm: str
    seed: int
    step: int


def evaluate(
    host: ModelHost,
    lineage: Lineage,
    *,
    evaluation: PromptSet,
    task: Sequence[tuple[str, str]] | None = None,
    max_new_tokens: int = 32,
    progress: Report | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask every checkpoint of a lineage, and judge what it answers with the built-in refusal classifier.

    Args:
        host: opened on the lineage's aligned model; afterwards it holds some checkpoint of the lineage.
        lineage: whose checkpoints are asked.
        evaluation: harmful and harmless requests, never used for a direction or a penalty.
        task: (request, right answer) pairs; without them there is no task loss.
        max_new_tokens: length of a completion.
        progress: told after every checkpoint.

    Returns:
        Rates (`RATE_COLUMNS`: `refusal_harmful` and `refusal_harmless` with Wilson intervals, `task_loss` in nats per
        answer token) and completions (`COMPLETION_COLUMNS`).
    """
    report = progress or silent
    prompts = render(evaluation, host.tokenizer, host.context_length).token_ids
    items = rendered_items(task, host.tokenizer) if task else []
    places = list(_places(lineage))
    rates: list[dict[str, Any]] = []
    completions: list[dict[str, Any]] = []
    for done, (place, ref) in enumerate(places, start=1):
        host.put(ref)
        answers = _answers(host, evaluation, prompts, max_new_tokens)
        completions += [{**asdict(place), **answer} for answer in answers]
        rates += [{**asdict(place), **rate} for rate in _rates(host, answers, items)]
        report(Progress("behaviour", done, len(places), note=place.checkpoint))
    return (
        pd.DataFrame(rates, columns=list(RATE_COLUMNS)),
        pd.DataFrame(completions, columns=list(COMPLETION_COLUMNS)),
    )


def _places(lineage: Lineage) -> Iterator[tuple[_Place, CheckpointRef]]:
    runs = {
        trajectory.checkpoint_id(step.step): _Place(
            trajectory.checkpoint_id(step.step), trajectory.arm, trajectory.seed, step.step
        )
        for trajectory in lineage.trajectories
        for step in trajectory.checkpoints
    }
    for name, ref in lineage.checkpoints():
        yield runs.get(name, _Place(name, name, 0, 0)), ref


def _answers(
    host: ModelHost, evaluation: PromptSet, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[dict[str, Any]]:
    texts = host.tokenizer.batch_decode(
        generate(host, prompts, max_new_tokens=max_new_tokens), skip_special_tokens=True
    )
    return [
        {
            "prompt": prompt.id,
            "label": prompt.label,
            "text": prompt.text,
            "completion": text,
            "refused": read(text).refused,
        }
        for prompt, text in zip(evaluation.prompts, texts, strict=True)
    ]


def _rates(host: ModelHost, answers: Sequence[dict[str, Any]], items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    for label in LABELS:
        refused = [answer["refused"] for answer in answers if answer["label"] == label]
        if refused:
            yield _row(f"refusal_{label}", wilson(sum(refused), len(refused)), len(refused))
    if items:
        yield _row("task_loss", task_loss(host, items), len(items))


def _row(measure: str, estimate: Estimate, n: int) -> dict[str, Any]:
    return {"measure": measure, "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": n}
