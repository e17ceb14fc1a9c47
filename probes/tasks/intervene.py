"""What a direction does to behaviour, and whether the motion along the reversion is what changes it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.behaviour.evaluation import Evaluation
from probes.errors import UsageError
from probes.progress import Report, silent
from probes.prompts import default_prompts
from probes.run import Run
from probes.stages.effects import EffectTest, write_effect
from probes.stages.mediation import MediationTest, defined_layers, effects, write_mediation
from probes.store import ALIGNED
from probes.tasks.evaluate import read_evaluation
from probes.verdict.causality import MIN_CONTROLS


@dataclass(frozen=True)
class MediationOptions:
    """How mediation is tested.

    Attributes:
        checkpoint: a fine-tuned one; None is the last step of the first trajectory.
        layers: where; None is every layer at which the reversion is defined.
        draws: control directions, most of them with the covariance within the classes; fewer than 19 cannot decide.
        device: None is as the run was measured.
    """

    checkpoint: str | None = None
    layers: tuple[int, ...] | None = None
    draws: int = MIN_CONTROLS
    device: str | None = None


@dataclass(frozen=True)
class EffectOptions:
    """How a direction is tried.

    Attributes:
        checkpoint: who answers.
        layer: None is the layer that the direction's selection chose, else the headline layer.
        coefficients: strengths of adding, in units of the direction's norm.
        draws: random directions.
        device: None is as the run was measured.
    """

    checkpoint: str = ALIGNED
    layer: int | None = None
    coefficients: tuple[float, ...] = (1.0,)
    draws: int = 5
    device: str | None = None


def mediate(path: Path | str, options: MediationOptions | None = None, report: Report = silent) -> dict[str, Any]:
    """Ask a checkpoint with projections clamped to the aligned model's, and the aligned model the other way round.

    Args:
        path: a measured run, whose checkpoints are still where they were.
        options: how; None is every default.
        report: told where the work is.

    Returns:
        `{"checkpoint", "layers", "effects", "rows"}`, see `probes.stages.mediation`.

    Raises:
        UsageError: no such checkpoint, no such layer, or fewer than one draw.
        RunFolderError: the run has no fine-tuned checkpoint.
    """
    options = options or MediationOptions()
    if options.draws < 1:
        raise UsageError("A test needs controls", got=f"{options.draws} draws")
    with Run.writing(path) as run:
        member = run.tuned_member(options.checkpoint)
        chosen = sorted(set(options.layers or defined_layers(run)))
        if max(chosen) >= run.n_layers:
            raise UsageError("No such layer", got=max(chosen), expected=f"0 to {run.n_layers - 1}")
        test = MediationTest(member.id, tuple(chosen), _evaluation(run), options.draws, run.settings.seed)
        rows = write_mediation(run, run.model(options.device), test, report)
        run.save()
    return {
        "checkpoint": member.id,
        "layers": chosen,
        "effects": effects(rows),
        "rows": rows.drop(columns="checkpoint").to_dict("records"),
    }


def try_direction(
    path: Path | str, direction: str, options: EffectOptions | None = None, report: Report = silent
) -> dict[str, Any]:
    """Ask a checkpoint with a direction ablated and added, beside random directions of the same length.

    Args:
        path: a run with fitted directions, whose checkpoints are still where they were.
        direction: a fitted or imported one, as it is at the aligned model.
        options: how; None is every default.
        report: told where the work is.

    Returns:
        `{"checkpoint", "direction", "layer", "rows"}`, the rows as `probes.stages.effects.COLUMNS`.

    Raises:
        LineageError: no such checkpoint.
        UsageError: the direction is not known at the layer or is of another model.
        RunFolderError: the run has no such direction.
    """
    options = options or EffectOptions()
    unfit = [coefficient for coefficient in options.coefficients if not math.isfinite(coefficient)]
    if unfit:
        raise UsageError("A coefficient must be finite", got=unfit[0])
    with Run.writing(path) as run:
        run.lineage.ref(options.checkpoint)
        vectors = run.direction(direction)
        run.owner.refuse_foreign(vectors)
        place = run.layer_of(vectors) if options.layer is None else options.layer
        vectors.at(place)
        trial = options.checkpoint, vectors, place, _evaluation(run), options.coefficients, options.draws
        rows = write_effect(run, run.model(options.device), EffectTest(*trial, run.settings.seed), report)
        run.save()
    records = rows.drop(columns=["checkpoint", "direction", "layer"]).to_dict("records")
    return {"checkpoint": options.checkpoint, "direction": direction, "layer": place, "rows": records}


def _evaluation(run: Run) -> Evaluation:
    """What the run's behaviour is judged on; our own prompts where it never was."""
    return read_evaluation(run) or Evaluation(default_prompts("evaluation"), rendering=run.rendering)
