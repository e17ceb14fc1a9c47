"""Ways of fine-tuning at equal task loss: what each has cost by the time that it has learned as much as the others.

At equal steps a method that learns slowly looks safe. So each arm's path is followed to the loss that all arms of its
seed have reached, and everything is read there, interpolated between the two checkpoints around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.experiments.data_defences import DATA_DEFENCES
from probes.experiments.experiment import BASELINE, arm_order, mode_and_draw, split_way
from probes.experiments.outcome import spread
from probes.guard.modes import MODES
from probes.run import Run
from probes.stages.task_divergence import TASK_DIVERGENCE
from probes.stages.weights import total_drift
from probes.store import ALIGNED

MEASURES = ("step", "task_loss", "return_fraction", "harmful_compliance", "over_refusal", "task_kl", "weight_drift")
_LOSS = "task_loss"
_LEAST = 0.1  # of the largest fall of the loss among a seed's arms: less is no place to compare the others at
_AT_THE_START = {"step": 0.0, "return_fraction": 0.0, "task_kl": 0.0, "weight_drift": 0.0}


@dataclass(frozen=True)
class Curve:
    """What one training went through, checkpoint by checkpoint.

    Attributes:
        arm: with its way.
        seed: of its data's order.
        points: of `MEASURES`, in order of steps, the aligned model first; what is not defined is not in a point.
    """

    arm: str
    seed: int
    points: tuple[Mapping[str, float], ...]

    @property
    def best_loss(self) -> float:
        """The lowest loss that it has reached."""
        return min(point[_LOSS] for point in self.points)

    @property
    def fall(self) -> float:
        """How far it has lowered the task's loss."""
        return self.points[0][_LOSS] - self.best_loss

    def at_loss(self, goal: float) -> dict[str, float] | None:
        """Every measure where the path first falls to a loss, linear between checkpoints; None where it never does."""
        for before, after in zip(self.points, self.points[1:], strict=False):
            if after[_LOSS] <= goal <= before[_LOSS]:
                way = 1.0 if after[_LOSS] == before[_LOSS] else (before[_LOSS] - goal) / (before[_LOSS] - after[_LOSS])
                shared = before.keys() & after.keys()
                return {name: before[name] + way * (after[name] - before[name]) for name in shared}
        return None


def equal_loss_table(run: Run) -> dict[str, Any] | None:
    """Baseline, guarded arms and defences of every way at the loss that all of them have reached, a row an arm.

    Returns:
        `{"layer", "goals", "behind", "arms"}`: the loss by seed; arms that are left out, as their loss fell at some
        seed by less than a tenth of what another arm's did; and
        `{"arm", "way", "n", MEASURES..., "return_beside_first"}`, each `{"mean", "sd", "values"}` over seeds, the
        last of them the return less that of the same arm in the first way, paired by seed. None where a run has one
        way alone, or no losses.
    """
    curves = read_curves(run)
    if len({split_way(curve.arm)[1] for curve in curves}) < 2:
        return None
    seeds = {curve.seed for curve in curves}
    falls = {seed: max(curve.fall for curve in curves if curve.seed == seed) for seed in seeds}
    behind = {curve.arm for curve in curves if not curve.fall > _LEAST * falls[curve.seed]}
    learned = [curve for curve in curves if curve.arm not in behind]
    seeds = {curve.seed for curve in learned}
    goals = {seed: max(curve.best_loss for curve in learned if curve.seed == seed) for seed in seeds}
    places = {(curve.arm, curve.seed): curve.at_loss(goals[curve.seed]) for curve in learned}
    arms = sorted({curve.arm for curve in learned}, key=arm_order)
    return {
        "layer": run.headline_layer,
        "goals": {str(seed): goal for seed, goal in sorted(goals.items())},
        "behind": sorted(behind, key=arm_order),
        "arms": [_row(arm, places, sorted(goals)) for arm in arms],
    }


def _row(
    arm: str, places: Mapping[tuple[str, int], Mapping[str, float] | None], seeds: Sequence[int]
) -> dict[str, Any]:
    plain, way = split_way(arm)
    own = {seed: point for seed in seeds if (point := places.get((arm, seed))) is not None}
    first = {seed: point for seed in own if (point := places.get((plain, seed))) is not None}
    name = "return_fraction"
    pairs = [own[seed][name] - first[seed][name] for seed in first if name in own[seed] and name in first[seed]]
    return {
        "arm": plain,
        "way": way,
        "n": len(own),
        **{measure: spread([point.get(measure) for point in own.values()]) for measure in MEASURES},
        "return_beside_first": spread(pairs if way else []),
    }


def read_curves(run: Run) -> list[Curve]:
    """The path of every baseline, defence and guarded arm that was asked the task; trained controls are left out."""
    if not run.has_table("behaviour"):
        return []
    behaviour, drift = run.read_table("behaviour"), run.drift(layer=run.headline_layer)
    drift = drift[drift["statistic"] == "return_fraction"]
    start = _by_measure(behaviour[behaviour["checkpoint"] == ALIGNED])
    if _LOSS not in start:
        return []
    weights, divergence = total_drift(run), _divergence(run)
    trainings = behaviour.groupby(["arm", "seed"], sort=False) if len(behaviour) else []
    curves = []
    for (arm, seed), rows in trainings:
        if not _is_compared(str(arm)):
            continue
        points = [{**start, **_AT_THE_START}]
        for (step, name), of_checkpoint in rows.sort_values("step").groupby(["step", "checkpoint"]):
            values: dict[str, float | None] = {
                **_by_measure(of_checkpoint),
                "step": float(step),
                "return_fraction": _only_value(drift[drift["checkpoint"] == name]),
                "task_kl": divergence.get(str(name)),
                "weight_drift": weights.get(str(name)),
            }
            points.append({measure: value for measure, value in values.items() if value is not None})
        if all(_LOSS in point for point in points):
            curves.append(Curve(str(arm), int(seed), tuple(points)))
    return curves


def _is_compared(arm: str) -> bool:
    plain = mode_and_draw(split_way(arm)[0])[0]
    return plain in (BASELINE, *DATA_DEFENCES, *MODES)


def _by_measure(rows: pd.DataFrame) -> dict[str, float]:
    """What is defined of one checkpoint's behaviour, under our names."""
    rows = rows.dropna(subset="value")
    values = {str(name): float(value) for name, value in zip(rows["measure"], rows["value"], strict=True)}
    if "refusal_harmless" in values:
        values.setdefault("over_refusal", values["refusal_harmless"])
    return {name: values[name] for name in MEASURES if name in values}


def _only_value(rows: pd.DataFrame) -> float | None:
    values = rows["value"].dropna()
    return float(values.iloc[0]) if len(values) else None


def _divergence(run: Run) -> dict[str, float]:
    """KL to the aligned model on the task, by checkpoint; empty where it was not measured."""
    if not run.has_table(TASK_DIVERGENCE):
        return {}
    frame = run.read_table(TASK_DIVERGENCE)
    return {str(name): float(value) for name, value in zip(frame["checkpoint"], frame["value"], strict=True)}
