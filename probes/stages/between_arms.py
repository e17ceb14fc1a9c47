"""What a verdict takes from other arms of the run: block, push and controls; a mirror; continued alignment training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.judges import UNJUDGED
from probes.lineage import Trajectory
from probes.run import Run
from probes.verdict.causality import BLOCK, PUSH, Causal, ControlArm, Harm, compare_with_controls
from probes.verdict.comparisons import Comparison, ReturnPair, compare_returns
from probes.verdict.evidence import NO_ARMS
from probes.verdict.families import CONTROL, MIRROR

if TYPE_CHECKING:
    import pandas as pd

BASELINE, CONTINUED = "baseline", "control:continued"
# Controls that train on something else, or block something that is no direction of their own draw.
_NO_DIRECTION = ("continued", "shuffled", "tokens", "text", "harmless")


def block_and_push(run: Run, arm: str) -> Causal | str:
    """Block, push and every control direction beside an arm, at the last step that all have, over all seeds.

    Args:
        run: with behaviour, where that was judged.
        arm: the one that is judged; only the baseline has counterparts.

    Returns:
        The comparison, or why there is none.
    """
    arms = {trajectory.arm for trajectory in run.lineage.trajectories}
    controls = sorted(name for name in arms if name.startswith(CONTROL) and _kind(name) not in _NO_DIRECTION)
    if arm != BASELINE or not ({BLOCK, PUSH} <= arms and controls):
        return NO_ARMS
    if "behaviour" not in run.manifest.stages:
        return "behaviour was not judged, or on other weights"
    answers = _answers(run, [BASELINE, BLOCK, PUSH, *controls])
    if answers is None:
        return "no step at which every arm was judged"
    harm = {name: _harm(rows) for name, rows in answers.groupby("arm")}
    matched = _holds_ratio(run.manifest.config_given)
    return compare_with_controls(
        harm[BASELINE],
        harm[BLOCK],
        harm[PUSH],
        [outcome for name in controls for outcome in _directions(name, harm[name], matched)],
    )


def _kind(control: str) -> str:
    """How a control's direction is drawn: `control:covariance:3` is `covariance`."""
    return control.split(":")[1]


def _directions(control: str, harm: Harm, matched: bool) -> Iterator[ControlArm]:
    """A numbered draw is one direction at every seed; a control alone draws another at each seed."""
    if control.rpartition(":")[2].isdecimal():
        yield ControlArm(control, _kind(control), harm, matched)
        return
    for seed, answers in harm.items():
        yield ControlArm(f"{control}, seed {seed}", _kind(control), {seed: answers}, matched)


def _holds_ratio(config: Any) -> bool:
    """Whether the arms of a run were trained at one gradient ratio, as its settings say."""
    if not isinstance(config, Mapping):
        return False
    return any(
        (name in ("gradient_ratio", "match") and value is not None) or _holds_ratio(value)
        for name, value in config.items()
    )


def _answers(run: Run, names: list[str]) -> pd.DataFrame | None:
    """Judged answers to harmful prompts at the last step that every arm has, of every seed."""
    rows = run.read_table(
        "completions",
        columns=["arm", "seed", "step", "prompt", "verdict"],
        filters=[("label", "==", "harmful"), ("arm", "in", names)],
    )
    rows = rows[rows["verdict"] != UNJUDGED]
    steps = [set(rows.loc[rows["arm"] == name, "step"]) for name in names]
    common = set.intersection(*steps)
    return rows[rows["step"] == max(common)] if common else None


def _harm(rows: pd.DataFrame) -> dict[int, dict[str, bool]]:
    return {
        int(seed): dict(zip(part["prompt"], part["verdict"] == "compliance", strict=True))
        for seed, part in rows.groupby("seed")
    }


def returns_beside(run: Run, trajectory: Trajectory, beside_arm: str) -> Comparison:
    """The return of an arm beside that of another, at the last step that both have, paired by seed.

    Args:
        run: measured.
        trajectory: of the arm that is judged; all of its seeds are taken together.
        beside_arm: `mirror`, whose displacements start at the witness and which stands beside the baseline alone, or
            `control:continued`.
    """
    if beside_arm == trajectory.arm or (beside_arm == MIRROR and trajectory.arm != BASELINE):
        return Comparison("not_tested", reason=f"an arm other than the {BASELINE} needs its own {beside_arm}")
    by_place = {(run_of_arm.arm, run_of_arm.seed): run_of_arm for run_of_arm in run.lineage.trajectories}
    pairs = [
        pair
        for (arm, seed), own in by_place.items()
        if arm == trajectory.arm and (beside_arm, seed) in by_place
        if (pair := _pair(run, own, by_place[beside_arm, seed])) is not None
    ]
    if not pairs:
        return Comparison("not_tested", reason=f"no {beside_arm.removeprefix(CONTROL)} arm was run beside it")
    settings = run.settings
    return compare_returns(pairs, run.harmful, groups=run.groups, splits=settings.splits, seed=settings.seed)


def _pair(run: Run, own: Trajectory, beside_run: Trajectory) -> ReturnPair | None:
    steps = {checkpoint.step for checkpoint in own.checkpoints} & {
        checkpoint.step for checkpoint in beside_run.checkpoints
    }
    if not steps:
        return None
    step, mirrored = max(steps), beside_run.arm == MIRROR
    names = ("aligned", "witness", own.checkpoint_id(step), beside_run.checkpoint_id(step))
    start, end, tuned, beside = (
        run.activations(name, run.headline_layer)[run.harmful].astype(np.float64) for name in names
    )
    return ReturnPair.of(end - start, tuned - start, beside - (end if mirrored else start), mirrored=mirrored)
