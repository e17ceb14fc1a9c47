"""Stage `effects.parquet`: what a direction does to behaviour when it is ablated, or added at some strengths.

Beside random directions of the same length, so that a model which any push would upset is told from one that this
direction steers.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.evaluation import Evaluation
from probes.directions.controls import control
from probes.directions.vectors import Vectors
from probes.interventions.trials import RATES, Trial, judge_trials
from probes.models import ModelHost
from probes.models.hooks import ablate, add
from probes.progress import Report
from probes.run import Run
from probes.stages import stage
from probes.store import activations_stage

if TYPE_CHECKING:
    import pandas as pd

AS_IT_IS = "none"
COLUMNS = ("checkpoint", "direction", "layer", "mode", "coefficient", "along", *RATES)


@dataclass(frozen=True)
class EffectTest:
    """A direction, and how it is tried.

    Attributes:
        checkpoint: who answers, by its name in the run.
        vectors: the direction.
        layer: where it is taken from, and where it is added.
        evaluation: what is asked and who judges.
        coefficients: strengths, in units of the direction's norm there.
        draws: directions `control:random` of the same length.
        seed: the first draw of them.
    """

    checkpoint: str
    vectors: Vectors
    layer: int
    evaluation: Evaluation
    coefficients: tuple[float, ...] = (1.0,)
    draws: int = 5
    seed: int = 0

    def document(self) -> list[Any]:
        """What decides the result, for fingerprints."""
        unit, norm = self.vectors.at(self.layer)
        options = [self.layer, list(self.coefficients), self.draws, self.seed]
        return [unit.tolist(), norm, self.evaluation.document(), *options]


def write_effect(run: Run, model: ModelHost, test: EffectTest, report: Report) -> pd.DataFrame:
    """Ask a checkpoint as it is, with the direction ablated at every block, and with it added behind one.

    Args:
        run: measured, open for writing; rows of other directions and checkpoints are kept.
        model: opened on the aligned model.
        test: which direction, on whom, and how.
        report: told after every question set.

    Returns:
        The rows of this direction and checkpoint (`COLUMNS`); `along` is the direction's name, or `random:<n>`.

    Raises:
        UsageError: the direction is not known or defined at the layer.
    """
    _write_effect(run, model, test, report)
    table = run.read_table("effects")
    mine = (table["checkpoint"] == test.checkpoint) & (table["direction"] == test.vectors.name)
    return table[mine].reset_index(drop=True)


@stage("effects/{test.checkpoint}/{test.vectors.name}", version=3, needs=(activations_stage("{test.checkpoint}"),))
def _write_effect(run: Run, model: ModelHost, test: EffectTest, report: Report) -> None:
    import pandas as pd

    trials = _trials(run, model, test)
    rates = judge_trials(model, trials, test.evaluation, "trying a direction", report)
    name = test.vectors.name
    table = rates.assign(checkpoint=test.checkpoint, direction=name, layer=test.layer)[list(COLUMNS)]
    if run.has_table("effects"):
        before = run.read_table("effects")
        mine = (before["checkpoint"] == test.checkpoint) & (before["direction"] == name)
        table = pd.concat([before[~mine], table], ignore_index=True)
    run.write_table("effects", table)


def _axes(run: Run, test: EffectTest) -> dict[str, np.ndarray]:
    """By name, the unit vectors that are tried: the direction, and controls."""
    axes = {test.vectors.name: test.vectors.at(test.layer)[0]}
    for draw in range(test.seed, test.seed + test.draws):
        axes[f"random:{draw}"] = control(run, "control:random", [test.layer], seed=draw).at(test.layer)[0]
    return axes


def _trials(run: Run, model: ModelHost, test: EffectTest) -> list[Trial]:
    ref, norm = run.lineage.ref(test.checkpoint), test.vectors.at(test.layer)[1]
    trials = [Trial(_labels(AS_IT_IS, AS_IT_IS, 0.0), ref, nullcontext())]
    for along, axis in _axes(run, test).items():
        trials.append(Trial(_labels(along, "ablate", 0.0), ref, ablate(model, axis)))
        trials += [
            Trial(_labels(along, "add", scale), ref, add(model, [test.layer], norm * axis[None], coefficient=scale))
            for scale in test.coefficients
        ]
    return trials


def _labels(along: str, mode: str, coefficient: float) -> dict[str, Any]:
    return {"along": along, "mode": mode, "coefficient": coefficient}
