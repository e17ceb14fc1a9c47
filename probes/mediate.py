"""Necessity and sufficiency of the motion along the reversion, for one checkpoint of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.errors import RunFolderError, UsageError
from probes.evaluation import kept_evaluation, open_aligned
from probes.lineage import Lineage
from probes.progress import Report, silent
from probes.prompts import default_prompts
from probes.stages.behaviour import Evaluation
from probes.stages.mediation import effects, write_mediation
from probes.store import RunFolder


def mediate(
    path: Path | str,
    *,
    checkpoint: str | None = None,
    layers: Sequence[int] | None = None,
    draws: int = 5,
    device: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Ask a checkpoint with its motion back taken away, and the aligned model with it put in.

    Args:
        path: a measured run, whose checkpoints are still where they were.
        checkpoint: a fine-tuned one; None is the last step of the first trajectory.
        layers: where; None is the headline layer.
        draws: random directions of either kind (isotropic, and with the activations' covariance).
        device: None is as the run was measured.
        report: told where the work is.

    Returns:
        `{"checkpoint", "layers", "effects", "rows"}`, see `probes.stages.mediation`.

    Raises:
        UsageError: no such checkpoint, no such layer, or fewer than one draw.
        RunFolderError: the run has no fine-tuned checkpoint.
    """
    if draws < 1:
        raise UsageError("A test needs controls", got=f"{draws} draws")
    with RunFolder.writing(path) as run:
        lineage = Lineage.opened(run.manifest.lineage, run.path)
        if checkpoint is None:
            if not lineage.trajectories:
                raise RunFolderError(f"{path} has no fine-tuned checkpoint")
            first = lineage.trajectories[0]
            checkpoint = first.checkpoint_id(first.checkpoints[-1].step)
        chosen = list(layers) if layers else [int(run.manifest.config["headline_layer"])]
        evaluation = kept_evaluation(run) or Evaluation(default_prompts("evaluation"))
        host = open_aligned(run, lineage, device)
        rows = write_mediation(
            run, lineage, host, checkpoint, evaluation, layers=chosen, draws=draws,
            seed=int(run.manifest.config["seed"]), report=report,
        )  # fmt: skip
        run.save()
    return {
        "checkpoint": checkpoint, "layers": chosen, "effects": effects(rows),
        "rows": rows.drop(columns="checkpoint").to_dict("records"),
    }  # fmt: skip
