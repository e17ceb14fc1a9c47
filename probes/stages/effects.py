"""Stage `effects.parquet`: what a direction does to behaviour when it is ablated, or added at some strengths.

Beside random directions of the same length, so that a model which any push would upset is told from one that this
direction steers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.evaluation import Evaluation
from probes.directions.vectors import Vectors
from probes.interventions.trials import RATES, Trial, tried
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.hooks import ablate, add
from probes.progress import Report, silent
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
AS_IT_IS = "none"
COLUMNS = ("checkpoint", "direction", "layer", "mode", "coefficient", "along", *RATES)


def write_effect(
    run: RunFolder,
    host: ModelHost,
    ref: CheckpointRef,
    checkpoint: str,
    vectors: Vectors,
    evaluation: Evaluation,
    *,
    layer: int,
    coefficients: Sequence[float] = (1.0,),
    draws: int = 5,
    seed: int = 0,
    report: Report = silent,
) -> pd.DataFrame:
    """Ask a checkpoint as it is, with the direction ablated at every block, and with it added behind one.

    Args:
        run: measured, open for writing; rows of other directions and checkpoints are kept.
        host: opened on the aligned model.
        ref: the checkpoint that answers.
        checkpoint: its name in the run.
        vectors: the direction.
        evaluation: what is asked and who judges.
        layer: where the direction is taken from, and where it is added.
        coefficients: strengths, in units of the direction's norm there.
        draws: random directions of the same length.
        seed: of them.
        report: told after every question set.

    Returns:
        The rows of this direction and checkpoint (`COLUMNS`); `along` is the direction's name, or `random:<n>`.

    Raises:
        UsageError: the direction is not known or defined at the layer.
    """
    unit, norm = vectors.at(layer)
    made_from = fingerprint(
        [
            _VERSION,
            run.manifest.checkpoints[checkpoint]["key"],
            unit.tolist(),
            norm,
            evaluation.document(),
            layer,
            list(coefficients),
            draws,
            seed,
        ]
    )
    stage = f"effects/{checkpoint}/{vectors.name}"
    if run.holds(stage, made_from):
        return _kept(run, checkpoint, vectors.name)
    with run.stage(stage, made_from):
        import pandas as pd

        trials = _trials(host, ref, vectors.name, unit, norm, layer, coefficients, draws, seed)
        found = tried(host, trials, evaluation, "trying a direction", report)
        table = found.assign(checkpoint=checkpoint, direction=vectors.name, layer=layer)[list(COLUMNS)]
        if run.has_table("effects"):
            others = run.read_table("effects")
            mine = (others["checkpoint"] == checkpoint) & (others["direction"] == vectors.name)
            table = pd.concat([others[~mine], table], ignore_index=True)
        run.write_table("effects", table)
    return _kept(run, checkpoint, vectors.name)


def _trials(
    host: ModelHost,
    ref: CheckpointRef,
    name: str,
    unit: np.ndarray,
    norm: float,
    layer: int,
    coefficients: Sequence[float],
    draws: int,
    seed: int,
) -> list[Trial]:
    rng = np.random.default_rng([seed, 0xEF])
    axes = {name: unit}
    for draw in range(draws):
        axis = rng.standard_normal(unit.shape)
        axes[f"random:{draw}"] = axis / np.linalg.norm(axis)
    trials = [Trial(_labels(AS_IT_IS, AS_IT_IS, 0.0), ref, nullcontext())]
    for along, axis in axes.items():
        trials.append(Trial(_labels(along, "ablate", 0.0), ref, ablate(host, axis)))
        trials += [
            Trial(_labels(along, "add", each), ref, add(host, [layer], norm * axis[None], coefficient=each))
            for each in coefficients
        ]
    return trials


def _labels(along: str, mode: str, coefficient: float) -> dict[str, Any]:
    return {"along": along, "mode": mode, "coefficient": coefficient}


def _kept(run: RunFolder, checkpoint: str, name: str) -> pd.DataFrame:
    table = run.read_table("effects")
    mine = (table["checkpoint"] == checkpoint) & (table["direction"] == name)
    return table[mine].reset_index(drop=True)
