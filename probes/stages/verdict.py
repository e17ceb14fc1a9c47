"""Stage `verdict.json`: the step of the ladder each trajectory has earned, and what an arm's runs say together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.directions.reversion import reversions_at_layer
from probes.errors import StatisticsError
from probes.lineage import NO_WITNESS, Trajectory
from probes.nulls import OffRefusalAxis
from probes.run import ByStep, Run
from probes.stages.between_arms import CONTINUED, block_and_push, returns_beside
from probes.stages.nulls import read_results
from probes.statistics import Estimate
from probes.store import fingerprint
from probes.verdict.evidence import NO_ABLATED_MIRROR, NO_AXIS, Evidence
from probes.verdict.families import MIRROR, POSITIVE_CONTROL, adjust_levels
from probes.verdict.ladder import Verdict, judge

if TYPE_CHECKING:
    import pandas as pd


def write_verdict(run: Run) -> None:
    """Judge the last checkpoint of every trajectory but a mirror's, at the headline layer.

    Made anew each time: it hangs on drift, nulls and behaviour, and costs less than to find out whether they changed.
    """
    made_from = fingerprint([run.made_from(name) for name in ("drift", "nulls", "behaviour")])
    with run.stage("verdict", made_from):
        run.write_json("verdict", _document(run))


def _document(run: Run) -> dict[str, Any]:
    trajectories = [trajectory for trajectory in run.lineage.trajectories if trajectory.arm != MIRROR]
    if not run.has_witness:
        entries = [_without_witness(trajectory) for trajectory in trajectories]
        return {"layer": run.headline_layer, "trajectories": entries, "arms": []}
    estimates = run.estimates(run.headline_layer)
    means = {(trajectory.arm, trajectory.seed): _Mean.of(run, trajectory, estimates) for trajectory in trajectories}
    verdicts = _judge(run, trajectories, estimates, means)
    documents = [
        verdict.to_json() | _alignment(verdict) | {"trajectory": means[verdict.arm, verdict.seed].to_json()}
        for verdict in verdicts
    ]
    arms = dict.fromkeys(arm for arm, _ in means)
    return {
        "layer": run.headline_layer,
        "trajectories": documents,
        "arms": [_arm(arm, [mean for (name, _), mean in means.items() if name == arm]) for arm in arms],
    }


def _without_witness(trajectory: Trajectory) -> dict[str, Any]:
    """What the verdict says of a trajectory where nothing can be said of a way back."""
    undefined = {"answer": "not_defined", "reason": NO_WITNESS}
    nothing = dict.fromkeys(("decided_by", "p", "power", "level_holm", "alignment", "low", "high"))
    return {
        "arm": trajectory.arm,
        "seed": trajectory.seed,
        "level": None,
        "name": f"not defined: {NO_WITNESS}",
        "text": "The way back is not defined: no witness. What needs none is in the run: the safety answer, the "
        "displacement, the refusal probe and the weight drift.",
        "untested": [f"every test of the way back: {NO_WITNESS}"],
        **nothing,
        **{name: undefined for name in ("off_refusal_axis", "mirror", "continued")},
        "trajectory": {**dict.fromkeys(("alignment", "low", "high")), "steps": []},
    }


def _judge(
    run: Run, trajectories: list[Trajectory], estimates: ByStep, means: dict[tuple[str, int], _Mean]
) -> list[Verdict]:
    """Verdicts in the order of the trajectories, adjusted for their number."""
    filters = [("layer", "==", run.headline_layer)]
    nulls, findings = run.read_table("nulls", filters=filters), run.read_json("findings")
    evidence = [
        _evidence(run, trajectory, estimates, nulls, findings.get(_last(trajectory), {})) for trajectory in trajectories
    ]
    evidence = [replace(entry, trajectory=means[entry.arm, entry.seed].alignment) for entry in evidence]
    levels = [judge(arm_evidence).level for arm_evidence in evidence if arm_evidence.arm == POSITIVE_CONTROL]
    sensitive = max(levels) >= 4 if levels else None
    return adjust_levels(
        [judge(replace(arm_evidence, sensitive=sensitive)) for arm_evidence in evidence], run.settings.alpha
    )


def _last(trajectory: Trajectory) -> str:
    """Name of its last checkpoint."""
    return trajectory.checkpoint_id(trajectory.checkpoints[-1].step)


def _evidence(
    run: Run,
    trajectory: Trajectory,
    estimates: ByStep,
    nulls: pd.DataFrame,
    finding: dict[str, Any],
) -> Evidence:
    """What the last checkpoint shows, but for the mean of the trajectory; `finding` is empty where there is none."""
    arm, seed = trajectory.arm, trajectory.seed
    axis = OffRefusalAxis(**finding["off_refusal_axis"]) if finding else NO_AXIS
    ablated = run.lineage.witness is not None and run.lineage.witness.is_estimate
    return Evidence(
        arm=arm,
        seed=seed,
        layer=run.headline_layer,
        estimates=estimates[arm, seed, run.headline_layer][trajectory.checkpoints[-1].step],
        nulls=read_results(nulls[nulls["checkpoint"] == _last(trajectory)]),
        power_together=finding.get("power_together"),
        runs=sum(entry.arm == arm for entry in run.lineage.trajectories),
        witness=run.lineage.witness_label,
        off_refusal_axis=axis,
        mirror=NO_ABLATED_MIRROR if ablated else returns_beside(run, trajectory, MIRROR),
        continued=returns_beside(run, trajectory, CONTINUED),
        equal_loss={
            name: returns_beside(run, trajectory, beside, equal_loss=True)
            for name, beside in (("mirror", MIRROR), ("continued", CONTINUED))
        },
        causal=block_and_push(run, arm),
        alpha=run.settings.alpha,
        power_alignment=run.settings.power_alignment,
    )


def _alignment(verdict: Verdict) -> dict[str, Any]:
    """The number that was judged."""
    alignment = verdict.evidence.estimates["alignment_crossfit"]
    return {"alignment": alignment.value, "low": alignment.low, "high": alignment.high}


class _Mean:
    """A trajectory's mean alignment over log-spaced steps, and its bootstrap draws over prompts."""

    def __init__(self, alignment: Estimate, steps: list[int], draws: np.ndarray | None) -> None:
        self.alignment, self.steps, self.draws = alignment, steps, draws

    @classmethod
    def of(cls, run: Run, trajectory: Trajectory, estimates: ByStep) -> _Mean:
        """Average the checkpoints that are measurable."""
        alignment, steps = drift.trajectory(estimates[trajectory.arm, trajectory.seed, run.headline_layer])
        if alignment.value is None:
            return cls(alignment, steps, None)
        if drift.too_few_groups(run.harmful, run.groups):
            return cls(alignment, steps, None)
        draws = _draws(run, trajectory, steps)
        return cls(Estimate(alignment.value, *drift.interval(alignment.value, draws)), steps, draws)

    def to_json(self) -> dict[str, Any]:
        """As it stands in `verdict.json`: a second line, which decides nothing."""
        whole = self.alignment
        return {"alignment": whole.value, "low": whole.low, "high": whole.high, "steps": self.steps}


def _draws(run: Run, trajectory: Trajectory, steps: list[int]) -> np.ndarray:
    """Bootstrap draws over prompts of the trajectory's alignment; the same prompts at every step of a draw."""
    layer, settings = run.headline_layer, run.settings
    aligned = run.activations("aligned", layer)
    reversions = reversions_at_layer(aligned, run.activations("witness", layer))
    by_step = [
        drift.crossfit_draws(
            aligned,
            reversions,
            run.activations(trajectory.checkpoint_id(step), layer),
            run.harmful,
            groups=run.groups,
            bootstraps=settings.bootstraps,
            seed=settings.seed,
        )
        for step in steps
    ]
    return drift.mean_cosine(np.stack(by_step))


def _arm(arm: str, means: list[_Mean]) -> dict[str, Any]:
    """What the runs of one arm say together: mean alignment, its interval, and how far that goes in words."""
    measured = [mean for mean in means if mean.alignment.value is not None]
    draws = [mean.draws for mean in measured if mean.draws is not None]
    try:
        level = drift.over_runs(
            np.array([mean.alignment.value for mean in measured], dtype=float),
            np.stack(draws) if len(draws) == len(measured) and draws else None,
        )
    except StatisticsError as error:
        return {"arm": arm, "runs": 0, "alignment": None, "words": error.what}
    whole = level.alignment
    return {
        "arm": arm,
        "runs": level.runs,
        "alignment": whole.value,
        "low": whole.low,
        "high": whole.high,
        "words": level.words,
    }
