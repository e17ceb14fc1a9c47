"""Stage `mediation.parquet`: whether the motion along the reversion is what changes behaviour.

Necessity: the fine-tuned model, with each prompt's projection on v̂ clamped to its value in the aligned model.
Sufficiency: the aligned model, with it clamped to its value in the fine-tuned one. At every layer, token by token of
the prompt; beside the same along control directions (`probes.directions.controls`). Clamping, unlike subtracting the
mean motion, counts nothing twice where layers follow each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.evaluation import Evaluation
from probes.directions.controls import control
from probes.interventions.projections import read_projections
from probes.interventions.trials import RATES, Trial, judge_trials
from probes.lineage import CheckpointRef, Member
from probes.models import ModelHost
from probes.models.hooks import clamp_prompts
from probes.models.prompt_values import Projections
from probes.progress import Progress, Report, within
from probes.prompts import render
from probes.run import Run
from probes.stages import stage
from probes.statistics import ALPHA
from probes.store import ALIGNED, activations_stage
from probes.verdict.causality import MIN_CONTROLS, MIN_COVARIANCE

if TYPE_CHECKING:
    import pandas as pd

NECESSITY, SUFFICIENCY = "necessity", "sufficiency"
AS_IT_IS, REVERSION = "none", "reversion"
COLUMNS = ("checkpoint", "test", "direction", "layers", "length", *RATES)
HOLDS, DOES_NOT, CANNOT_DECIDE = "holds", "does_not", "cannot_decide"


@dataclass(frozen=True)
class MediationTest:
    """A fine-tuned checkpoint, and where and how its projections are clamped.

    Attributes:
        checkpoint: its name in the run.
        layers: behind which blocks.
        evaluation: what is asked and who judges.
        draws: control directions: of nineteen, fifteen `control:covariance` and four `control:random`.
        seed: the first draw of either kind; a control's name in the table ends in its draw's number.
    """

    checkpoint: str
    layers: tuple[int, ...]
    evaluation: Evaluation
    draws: int = MIN_CONTROLS
    seed: int = 0

    @property
    def controls(self) -> dict[str, int]:
        """How many controls of each kind."""
        covariance = -(-self.draws * MIN_COVARIANCE // MIN_CONTROLS)
        return {"random": self.draws - covariance, "covariance": covariance}

    def document(self) -> list[Any]:
        """What decides the result, for fingerprints."""
        return [self.evaluation.document(), list(self.layers), self.draws, self.seed]


def write_mediation(run: Run, model: ModelHost, test: MediationTest, report: Report) -> pd.DataFrame:
    """Ask a fine-tuned checkpoint with its projections as in the aligned model, and the aligned model the other way.

    Args:
        run: measured, open for writing; rows of other checkpoints are kept.
        model: opened on the aligned model.
        test: which checkpoint, and how.
        report: told after every question set.

    Returns:
        The rows of this checkpoint (`COLUMNS`); `length` is the mean distance between the two models' projections at
        the last token of a prompt.

    Raises:
        UsageError: it is no fine-tuned checkpoint of the run, or the reversion is not defined at a layer.
    """
    member = run.tuned_member(test.checkpoint)
    _write_mediation(run, model, member, test, report)
    table = run.read_table("mediation")
    return table[table["checkpoint"] == test.checkpoint].reset_index(drop=True)


@stage(
    "mediation/{test.checkpoint}",
    version=4,
    needs=(activations_stage(ALIGNED), activations_stage("{test.checkpoint}"), "directions", "prompts"),
)
def _write_mediation(run: Run, model: ModelHost, member: Member, test: MediationTest, report: Report) -> None:
    import pandas as pd

    axes = _axes(run, test)
    refs = {NECESSITY: member.ref, SUFFICIENCY: run.lineage.aligned}
    own = _read(model, refs, test, axes, within(report, 0.0, 0.1))
    held = {NECESSITY: own[SUFFICIENCY], SUFFICIENCY: own[NECESSITY]}
    trials = [
        Trial({"test": kind, "direction": name}, ref, clamp)
        for kind, ref in refs.items()
        for name, clamp in _clamps(model, test.layers, axes, held[kind]).items()
    ]
    rates = judge_trials(model, trials, test.evaluation, "testing mediation", within(report, 0.1, 1.0))
    moved = {name: _distance(*(own[kind][name] for kind in refs)) for name in axes}
    rates = rates.assign(
        checkpoint=test.checkpoint,
        layers=",".join(map(str, test.layers)),
        length=[moved.get(name, 0.0) for name in rates["direction"]],
    )
    before = run.read_table("mediation") if run.has_table("mediation") else rates.iloc[:0]
    rows = [before[before["checkpoint"] != test.checkpoint], rates[list(COLUMNS)]]
    run.write_table("mediation", pd.concat(rows, ignore_index=True))


def _axes(run: Run, test: MediationTest) -> dict[str, np.ndarray]:
    """By name, unit vectors at the layers [layer, d_model]: the reversion, and controls."""
    reversion = run.direction(REVERSION)
    axes = {REVERSION: np.stack([reversion.at(layer)[0] for layer in test.layers])}
    for kind, count in test.controls.items():
        for draw in range(test.seed, test.seed + count):
            vectors = control(run, f"control:{kind}", test.layers, seed=draw)
            axes[f"{kind}:{draw}"] = np.stack([vectors.at(layer)[0] for layer in test.layers])
    return axes


def _read(
    model: ModelHost,
    refs: Mapping[str, CheckpointRef],
    test: MediationTest,
    axes: Mapping[str, np.ndarray],
    report: Report,
) -> dict[str, dict[str, Projections]]:
    """By test and direction, the projections of the model that is asked in that test."""
    token_ids = render(
        test.evaluation.questions, model.tokenizer, model.context_length, test.evaluation.rendering
    ).token_ids
    by_test = {}
    for place, (kind, ref) in enumerate(refs.items()):
        report(Progress("reading projections", place, len(refs)))
        model.put(ref)
        projections = read_projections(model, token_ids, test.layers, np.stack(list(axes.values())))
        by_test[kind] = dict(zip(axes, projections, strict=True))
    return by_test


def _clamps(
    model: ModelHost, layers: Sequence[int], axes: Mapping[str, np.ndarray], held: Mapping[str, Projections]
) -> dict[str, AbstractContextManager[None]]:
    """The model as it is, and clamped along each direction."""
    clamps = {name: clamp_prompts(model, layers, axis, held[name]) for name, axis in axes.items()}
    return {AS_IT_IS: nullcontext(), **clamps}


def _distance(before: Projections, after: Projections) -> float:
    return float(np.mean([np.abs(before[ids][:, -1] - after[ids][:, -1]) for ids in before]))


def effects(rows: pd.DataFrame, alpha: float = ALPHA) -> list[dict[str, Any]]:
    """What each test says: the change of compliance that the reversion makes, beside those of the control directions.

    Args:
        rows: of one checkpoint (`COLUMNS`).
        alpha: the level of the test.

    Returns:
        A row a test: `test`, `before`, `after` (rates of harmful compliance), `effect` (in the direction that the test
        asks for: a fall for necessity, a rise for sufficiency), `over_refusal_before` and `over_refusal_after`,
        `random` and `covariance` (mean effects of the controls), `p` = (1 + #{controls at least as large}) /
        (controls + 1), `p_random` and `p_covariance`, the same of either kind alone (None where nothing was judged),
        `controls`, `answer` (`holds`, `does_not`, `cannot_decide`) and `reason`, why it cannot be decided.
    """
    return [_effect(str(test), part, alpha) for test, part in rows.groupby("test", sort=False)]


def _effect(test: str, rows: pd.DataFrame, alpha: float) -> dict[str, Any]:
    by_direction = rows.set_index("direction")
    rates, refused = by_direction["compliance"], by_direction["over_refusal"]
    changes = (-1.0 if test == NECESSITY else 1.0) * (rates - rates[AS_IT_IS])
    controls, effect = changes.drop([AS_IT_IS, REVERSION]), float(changes[REVERSION])
    kinds = {kind: controls[controls.index.str.startswith(kind)] for kind in ("random", "covariance")}
    p, reason = _share(controls, effect), _too_few(len(controls), len(kinds["covariance"]))
    if p is None:
        reason = "answers could not be judged"
    return {
        "test": test,
        "before": _number(rates[AS_IT_IS]),
        "after": _number(rates[REVERSION]),
        "effect": _number(effect),
        "over_refusal_before": _number(refused[AS_IT_IS]),
        "over_refusal_after": _number(refused[REVERSION]),
        **{kind: _number(own.mean()) for kind, own in kinds.items()},
        "p": p,
        **{f"p_{kind}": _share(own, effect) for kind, own in kinds.items()},
        "controls": len(controls),
        "answer": CANNOT_DECIDE if p is None or reason else HOLDS if effect > 0 and p <= alpha else DOES_NOT,
        "reason": reason,
    }


def _too_few(controls: int, covariance: int) -> str | None:
    """Why so few controls cannot decide; None where they can."""
    if controls >= MIN_CONTROLS and covariance >= MIN_COVARIANCE:
        return None
    needed = f"{MIN_CONTROLS} controls, {MIN_COVARIANCE} of them covariance-matched, are needed"
    return f"{needed}; there are {controls} and {covariance}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(controls: pd.Series, effect: float) -> float | None:
    """(1 + #{controls at least as large}) / (controls + 1); None where one of them is not known, or there is none."""
    if not len(controls) or not np.isfinite(effect) or not np.isfinite(controls).all():
        return None
    return float((1 + (controls >= effect).sum()) / (len(controls) + 1))


def defined_layers(run: Run) -> Sequence[int]:
    """The blocks behind which the reversion is defined."""
    reversion = run.direction(REVERSION)
    return [layer for layer, norm in zip(reversion.layers, reversion.norm, strict=True) if norm > 0]
