"""What is measured of aligned model and witness besides their activations: noise, loss, and refusal scores.

Each is a job of its own, which workers of this machine take; on a cluster a job begins later than it would be done.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from probes.behaviour.swapped import opening_scores, swap_by_scores
from probes.engine import current_engine
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.learned import learned_nothing
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages.activations import read_noise, write_noise
from probes.stages.jobs import Work, complete_jobs

_PROMPTS_FOR_LOSS = 16  # prompts on which the aligned model's own loss is measured
_PROMPTS_FOR_SCORES = 64  # of each label, on which aligned and witness have refusal scores
_NOISE, _LOSS, _SCORES = "Noise of the aligned model", "Loss of the aligned model", "Refusal scores of the {}"


def check_roles(run: Run, model: ModelHost, report: Report) -> str | None:
    """Write the noise, and put into the manifest what looks wrong with the roles; returns a sentence on the loss."""
    lineage = run.lineage
    jobs: dict[str, Work] = {_LOSS: _measure_loss}
    if not run.holds("noise", write_noise.made_from(run, [])):
        jobs[_NOISE] = read_noise
    if lineage.witness is not None and not lineage.witness.is_estimate:
        roles = {"aligned": lineage.aligned, "witness": lineage.witness}
        jobs |= {_SCORES.format(name): partial(_score_refusals, ref) for name, ref in roles.items()}
    engine = current_engine()
    with (engine if engine.is_local else engine.at_home()).in_use():
        results = dict(complete_jobs(run, model, jobs, report))
    if _NOISE in results:
        write_noise(run, results[_NOISE])
    if "behaviour" not in run.manifest.stages:
        run.note("refusals", None)  # they were of other weights
    run.note("scores", _swap_of_roles(run, *(results.get(_SCORES.format(name)) for name in ("aligned", "witness"))))
    run.save()
    return results[_LOSS]


def _measure_loss(run: Run, model: ModelHost, report: Report) -> str | None:
    report(Progress("measuring the loss", 0, 1, "aligned"))
    model.put(model.aligned)
    return learned_nothing(model, run.rendered.token_ids[:_PROMPTS_FOR_LOSS])


def _score_refusals(ref: CheckpointRef, run: Run, model: ModelHost, report: Report) -> np.ndarray | None:
    report(Progress("scoring refusals", 0, 1, str(ref)))
    model.put(ref)
    return opening_scores(model, [run.rendered.token_ids[place] for place in _places(run)])


def _places(run: Run) -> list[int]:
    """The prompts that have refusal scores."""
    labels = (run.harmful, ~run.harmful)
    return [int(place) for members in labels for place in members.nonzero()[0][:_PROMPTS_FOR_SCORES]]


def _swap_of_roles(run: Run, aligned: np.ndarray | None, witness: np.ndarray | None) -> str | None:
    """A sentence where aligned and witness look swapped, by refusal scores."""
    if aligned is None or witness is None:
        return None
    return swap_by_scores(aligned, witness, run.harmful[_places(run)])


def keep_notices(run: Run, model: ModelHost, of_loss: str | None) -> None:
    """Put into the manifest, in place of what an earlier measurement said, how the lineage's checkpoints were read."""
    known: list[dict[str, Any]] = [run.manifest.checkpoints.get(member.id, {}) for member in run.members]
    of_checkpoints = [sentence for about in known for sentence in about.get("notices", [])]
    notices = [*model.notices, *of_checkpoints, *([of_loss] if of_loss else [])]
    run.manifest.model["notices"] = list(dict.fromkeys(notices))
    run.save()
