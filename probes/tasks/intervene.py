"""What a direction does to behaviour, and whether the motion along the reversion is what changes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.behaviour.evaluation import Evaluation
from probes.errors import RunFolderError, UsageError
from probes.lineage import Lineage
from probes.progress import Report, silent
from probes.prompts import default_prompts
from probes.stages.directions import owner_of, place_of, read_direction
from probes.stages.effects import write_effect
from probes.stages.mediation import effects, write_mediation
from probes.stages.roles import open_aligned
from probes.store import RunFolder
from probes.tasks.evaluate import kept_evaluation


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
        chosen = sorted(set(layers)) if layers else [int(run.manifest.config["headline_layer"])]
        depth = int(run.manifest.model["n_layers"])
        if max(chosen) >= depth:
            raise UsageError("No such layer", got=max(chosen), expected=f"0 to {depth - 1}")
        host = open_aligned(run, lineage, device)
        rows = write_mediation(
            run,
            lineage,
            host,
            checkpoint,
            _evaluation(run),
            layers=chosen,
            draws=draws,
            seed=int(run.manifest.config["seed"]),
            report=report,
        )
        run.save()
    return {
        "checkpoint": checkpoint,
        "layers": chosen,
        "effects": effects(rows),
        "rows": rows.drop(columns="checkpoint").to_dict("records"),
    }


def try_direction(
    path: Path | str,
    direction: str,
    *,
    checkpoint: str = "aligned",
    layer: int | None = None,
    coefficients: Sequence[float] = (1.0,),
    draws: int = 5,
    device: str | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Ask a checkpoint with a direction ablated and added, beside random directions of the same length.

    Args:
        path: a run with fitted directions, whose checkpoints are still where they were.
        direction: a fitted or imported one, as it is at the aligned model.
        checkpoint: who answers.
        layer: None is the layer that the direction's selection chose, else the headline layer.
        coefficients: strengths of adding, in units of the direction's norm.
        draws: random directions.
        device: None is as the run was measured.
        report: told where the work is.

    Returns:
        `{"checkpoint", "direction", "layer", "rows"}`, the rows as `probes.stages.effects.COLUMNS`.

    Raises:
        LineageError: no such checkpoint.
        UsageError: the direction is not known at the layer or is of another model.
        RunFolderError: the run has no such direction.
    """
    unfit = [each for each in coefficients if not math.isfinite(each)]
    if unfit:
        raise UsageError("A coefficient must be finite", got=unfit[0])
    with RunFolder.writing(path) as run:
        lineage = Lineage.opened(run.manifest.lineage, run.path)
        ref = lineage.ref(checkpoint)
        vectors = read_direction(run, direction)
        owner_of(run).refuse_foreign(vectors)
        where = place_of(run, vectors) if layer is None else layer
        vectors.at(where)
        rows = write_effect(
            run,
            open_aligned(run, lineage, device),
            ref,
            checkpoint,
            vectors,
            _evaluation(run),
            layer=where,
            coefficients=coefficients,
            draws=draws,
            seed=int(run.manifest.config["seed"]),
            report=report,
        )
        run.save()
    kept = rows.drop(columns=["checkpoint", "direction", "layer"]).to_dict("records")
    return {"checkpoint": checkpoint, "direction": direction, "layer": where, "rows": kept}


def _evaluation(run: RunFolder) -> Evaluation:
    """What the run's behaviour is judged on; our own prompts where it never was."""
    return kept_evaluation(run) or Evaluation(default_prompts("evaluation"))
