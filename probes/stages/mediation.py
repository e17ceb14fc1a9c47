"""Stage `mediation.parquet`: whether the motion along the reversion is what changes behaviour.

Necessity: the fine-tuned model with that motion taken back. Sufficiency: the aligned model with it put in. Both
beside controls of the same length (`probes.directions.controls`), isotropic and with the activations' covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.evaluation import Evaluation
from probes.directions.controls import control
from probes.interventions.trials import RATES, Trial, judge_trials
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.hooks import add
from probes.progress import Report
from probes.run import Run
from probes.stages import stage
from probes.store import ALIGNED, activations_stage

if TYPE_CHECKING:
    import pandas as pd

NECESSITY, SUFFICIENCY = "necessity", "sufficiency"
AS_IT_IS, REVERSION = "none", "reversion"
COLUMNS = ("checkpoint", "test", "direction", "layers", "length", *RATES)


@dataclass(frozen=True)
class MediationTest:
    """A fine-tuned checkpoint, and where and how its motion is taken back.

    Attributes:
        checkpoint: its name in the run.
        layers: behind which blocks.
        evaluation: what is asked and who judges.
        draws: controls of either kind, `control:random` and `control:covariance`.
        seed: the first draw of them; a control's name in the table ends in its draw's number.
    """

    checkpoint: str
    layers: tuple[int, ...]
    evaluation: Evaluation
    draws: int = 5
    seed: int = 0

    def document(self) -> list[Any]:
        """What decides the result, for fingerprints."""
        return [self.evaluation.document(), list(self.layers), self.draws, self.seed]


def write_mediation(run: Run, model: ModelHost, test: MediationTest, report: Report) -> pd.DataFrame:
    """Ask a fine-tuned checkpoint without, and the aligned model with, the motion along the reversion.

    The motion is (δ·v̂)v̂ at each of the layers, δ the checkpoint's mean displacement on harmful probe prompts; it is
    subtracted (necessity) or added (sufficiency) behind the block, at every token.

    Args:
        run: measured, open for writing; rows of other checkpoints are kept.
        model: opened on the aligned model.
        test: which checkpoint, and how.
        report: told after every question set.

    Returns:
        The rows of this checkpoint (`COLUMNS`).

    Raises:
        UsageError: it is no fine-tuned checkpoint of the run, or the reversion is not defined at a layer.
    """
    member = run.tuned_member(test.checkpoint)
    _write_mediation(run, model, member, test, report)
    table = run.read_table("mediation")
    return table[table["checkpoint"] == test.checkpoint].reset_index(drop=True)


@stage(
    "mediation/{test.checkpoint}",
    version=3,
    needs=(activations_stage(ALIGNED), activations_stage("{test.checkpoint}"), "directions", "prompts"),
)
def _write_mediation(run: Run, model: ModelHost, member: Member, test: MediationTest, report: Report) -> None:
    import pandas as pd

    moves = _moves(run, test)
    trials = [
        Trial(
            {"test": kind, "direction": name},
            member.ref if kind == NECESSITY else run.lineage.aligned,
            add(model, test.layers, moves[name], coefficient=-1.0 if kind == NECESSITY else 1.0),
        )
        for kind in (NECESSITY, SUFFICIENCY)
        for name in moves
    ]
    rates = judge_trials(model, trials, test.evaluation, "testing mediation", report)
    lengths = [float(np.linalg.norm(moves[name], axis=1).mean()) for name in rates["direction"]]
    layers = ",".join(map(str, test.layers))
    table = rates.assign(checkpoint=test.checkpoint, layers=layers, length=lengths)[list(COLUMNS)]
    before = run.read_table("mediation") if run.has_table("mediation") else table.iloc[:0]
    run.write_table("mediation", pd.concat([before[before["checkpoint"] != test.checkpoint], table], ignore_index=True))


def effects(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What each test says: the change of compliance that the reversion makes, beside those of the random directions.

    Returns:
        A row a test: `test`, `before`, `after` (rates of harmful compliance), `effect` (in the direction that the test
        asks for: a fall for necessity, a rise for sufficiency), `random` and `covariance` (mean effects of the
        controls), `p` = (1 + #{controls at least as large}) / (controls + 1), and `p_random` and `p_covariance`, the
        same of either kind alone. None where nothing was judged.
    """
    tests = []
    for test, part in rows.groupby("test", sort=False):
        rates = part.set_index("direction")["compliance"]
        sign = -1.0 if test == NECESSITY else 1.0
        changes = sign * (rates - rates[AS_IT_IS])
        controls, effect = changes.drop([AS_IT_IS, REVERSION]), changes[REVERSION]
        kinds = {kind: controls[controls.index.str.startswith(kind)] for kind in ("random", "covariance")}
        tests.append(
            {
                "test": test,
                "before": _number(rates[AS_IT_IS]),
                "after": _number(rates[REVERSION]),
                "effect": _number(effect),
                **{kind: _number(draws.mean()) for kind, draws in kinds.items()},
                "p": _share(controls, effect),
                **{f"p_{kind}": _share(draws, effect) for kind, draws in kinds.items()},
            }
        )
    return tests


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(controls: pd.Series, effect: float) -> float | None:
    """(1 + #{controls at least as large}) / (controls + 1); None where one of them is not known."""
    if not np.isfinite(effect) or not np.isfinite(controls).all():
        return None
    return float((1 + (controls >= effect).sum()) / (len(controls) + 1))


def _moves(run: Run, test: MediationTest) -> dict[str, np.ndarray]:
    """By name, what is added at each layer [layer, d_model]: nothing, the motion, and controls of its length."""
    reversion, harmful = run.direction(REVERSION), run.harmful
    unit = np.stack([reversion.at(layer)[0] for layer in test.layers])
    along = np.array([_mean_motion(run, test.checkpoint, layer, harmful) for layer in test.layers])
    along = (along * unit).sum(axis=1, keepdims=True)
    axes = {AS_IT_IS: 0 * unit, REVERSION: unit}
    for kind in ("random", "covariance"):
        for draw in range(test.seed, test.seed + test.draws):
            vectors = control(run, f"control:{kind}", test.layers, seed=draw)
            axes[f"{kind}:{draw}"] = np.stack([vectors.at(layer)[0] for layer in test.layers])
    return {name: along * axis for name, axis in axes.items()}


def _mean_motion(run: Run, checkpoint: str, layer: int, harmful: np.ndarray) -> np.ndarray:
    """δ: mean displacement on harmful prompts from the aligned model, float64."""
    tuned, aligned = (
        run.activations(name, layer)[harmful].mean(axis=0, dtype=np.float64) for name in (checkpoint, ALIGNED)
    )
    return tuned - aligned
