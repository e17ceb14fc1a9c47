"""Stage `task_divergence.parquet`: how far each checkpoint's predictions on the task went from the aligned model's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

from probes.behaviour.task import Item, answer_log_probabilities, mean_divergence, rendered_items
from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages.jobs import complete_jobs
from probes.store import fingerprint

TASK_DIVERGENCE = "task_divergence"
COLUMNS = ("checkpoint", "arm", "seed", "step", "value", "tokens")
Task = Sequence[tuple[str, str]]
_VERSION = 1
_TOKENS = 512  # answer tokens at most: all of the aligned model's predictions on them are held in memory


def write_task_divergence(run: Run, model: ModelHost, task: Task, report: Report) -> None:
    """Write KL(aligned ‖ checkpoint) in nats per answer token of the task, a row a fine-tuned checkpoint.

    Args:
        run: with the checkpoints' hashes in its manifest.
        model: opened on the aligned model; afterwards it holds some checkpoint of the lineage.
        task: (request, right answer) pairs, held out of training; the first that hold 512 answer tokens are taken.
        report: told before every checkpoint.
    """
    known = run.manifest.checkpoints
    weights = [known[name]["weights_sha256"] for name in ("aligned", *(member.id for member in run.tuned))]
    inputs = fingerprint([_VERSION, weights, [list(pair) for pair in task]])
    if run.holds(TASK_DIVERGENCE, inputs):
        return
    import pandas as pd

    with run.stage(TASK_DIVERGENCE, inputs):
        trajectories = groupby(run.tuned, key=lambda member: (member.arm, member.seed))
        jobs = {
            f"Divergence of {arm}, seed {seed}": partial(_measure, list(members), task)
            for (arm, seed), members in trajectories
        }
        rows = dict(complete_jobs(run, model, jobs, report))
        run.write_table(
            TASK_DIVERGENCE, pd.DataFrame([row for name in jobs for row in rows[name]], columns=list(COLUMNS))
        )


def _measure(members: Sequence[Member], task: Task, run: Run, model: ModelHost, report: Report) -> list[dict[str, Any]]:
    """Rows of one trajectory."""
    items = _first_items(rendered_items(task, model.tokenizer, run.rendering))
    model.put(model.aligned)
    start, rows = answer_log_probabilities(model, items), []
    for number, member in enumerate(members):
        report(Progress("comparing predictions on the task", number, len(members), member.id))
        model.put(member.ref)
        value = mean_divergence(start, answer_log_probabilities(model, items))
        rows.append({**member.labels, "value": value, "tokens": len(start)})
    return rows


def _first_items(items: Sequence[Item]) -> list[Item]:
    """The first items whose answers have so many tokens together; one at least."""
    chosen, tokens = [items[0]], len(items[0][1])
    for item in items[1:]:
        tokens += len(item[1])
        if tokens > _TOKENS:
            break
        chosen.append(item)
    return chosen
