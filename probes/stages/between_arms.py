"""What a verdict takes from other arms of the run: block, push and controls; a mirror; continued alignment training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.behaviour.judges import UNJUDGED
from probes.lineage import Trajectory, is_one_direction, name_trainings
from probes.run import Run
from probes.verdict.causality import BLOCK, PUSH, Causal, ControlArm, Harm, compare_with_controls
from probes.verdict.comparisons import Comparison, ReturnPair, compare_returns
from probes.verdict.evidence import NO_ARMS
from probes.verdict.families import CONTROL, MIRROR

if TYPE_CHECKING:
    import pandas as pd

BASELINE, CONTINUED = "baseline", "control:continued"
Losses = Mapping[tuple[str, int], Mapping[int, float]]
_SAME_LOSS = 0.1  # losses on the task no further apart than this share count as equal
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
    plain = [name for name in arms if "-" not in name]  # `control:random-lora` stands beside `baseline-lora`
    controls = sorted(name for name in plain if name.startswith(CONTROL) and _kind(name) not in _NO_DIRECTION)
    if arm != BASELINE or not ({BLOCK, PUSH} <= arms and controls):
        return NO_ARMS
    if "behaviour" not in run.manifest.stages:
        return "behaviour was not judged, or on other weights"
    answers = _answers(run, [BASELINE, BLOCK, PUSH, *controls])
    if answers is None:
        return "no step at which every arm was judged"
    harm: dict[str, Harm] = {str(name): _harm(rows) for name, rows in answers.groupby("arm")}
    note = _keep_one_direction(run, harm)
    matched = _holds_ratio(run.manifest.config_given)
    causal = compare_with_controls(
        harm[BASELINE],
        harm[BLOCK],
        harm[PUSH],
        [outcome for name in controls for outcome in _directions(name, harm[name], matched)],
    )
    return replace(causal, note=note) if isinstance(causal, Causal) else f"{causal}. {note}".removesuffix(". ")


def _keep_one_direction(run: Run, harm: dict[str, Harm]) -> str:
    """Leave to block and push together, and to each numbered draw, the seeds that were guarded along one direction.

    The direction that most seeds have is kept; of two with as many, one that is recorded, and the first.

    Returns:
        Sentences on the seeds that were left out, and on directions that nobody has recorded; empty without any.
    """
    directions = {
        (trajectory.arm, trajectory.seed): trajectory.direction_sha256 for trajectory in run.lineage.trajectories
    }
    sentences, unrecorded = list[str](), list[str]()
    for arms in ((BLOCK, PUSH), *((name,) for name in sorted(harm) if _is_one_draw(name))):
        guarded = {(arm, seed): directions.get((arm, seed)) for arm in arms for seed in harm[arm]}
        seeds = Counter(guarded.values())
        chosen = max(seeds, key=lambda direction: (seeds[direction], direction is not None), default=None)
        left_out = [place for place, direction in guarded.items() if direction != chosen]
        for arm in arms:
            harm[arm] = {seed: answers for seed, answers in harm[arm].items() if (arm, seed) not in left_out}
        if left_out:
            unknown = ", or along one that is not recorded" * any(guarded[place] is None for place in left_out)
            sentences.append(
                f"Left out, as guarded along another direction than the others{unknown}: {name_trainings(left_out)}."
            )
        if chosen is None:
            unrecorded += arms
    if unrecorded:
        sentences.append(
            "Whether all seeds of one arm were guarded along one direction is not recorded (trained by an earlier "
            f"version) of {', '.join(unrecorded)}."
        )
    return " ".join(sentences)


def _kind(control: str) -> str:
    """How a control's direction is drawn: `control:covariance:3` is `covariance`."""
    return control.split(":")[1]


def _is_one_draw(arm: str) -> bool:
    return arm.startswith(CONTROL) and is_one_direction(arm)


def _directions(control: str, harm: Harm, matched: bool) -> Iterator[ControlArm]:
    """A numbered draw is one direction at every seed; a control alone draws another at each seed."""
    if _is_one_draw(control):
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


def returns_beside(run: Run, trajectory: Trajectory, beside_arm: str, *, equal_loss: bool = False) -> Comparison:
    """The return of an arm beside that of another, at the last step that both have, paired by seed.

    Args:
        run: measured.
        trajectory: of the arm that is judged; all of its seeds are taken together.
        beside_arm: `mirror`, whose displacements start at the witness and which stands beside the baseline alone, or
            `control:continued`.
        equal_loss: compare at the steps at which both have reached the same loss on the task instead.
    """
    if beside_arm == trajectory.arm or (beside_arm == MIRROR and trajectory.arm != BASELINE):
        return Comparison("not_tested", reason=f"an arm other than the {BASELINE} needs its own {beside_arm}")
    by_place = {(run_of_arm.arm, run_of_arm.seed): run_of_arm for run_of_arm in run.lineage.trajectories}
    losses = _task_losses(run) if equal_loss else None
    runs = [
        (own, by_place[beside_arm, seed])
        for (arm, seed), own in by_place.items()
        if arm == trajectory.arm and (beside_arm, seed) in by_place
    ]
    steps = [_last_common_step(*two) if losses is None else _steps_of_equal_loss(*two, losses) for two in runs]
    pairs = [_pair(run, *two, places) for two, places in zip(runs, steps, strict=True) if places is not None]
    if not pairs and losses is not None and any(arm == beside_arm for arm, _ in by_place):
        return Comparison("not_tested", reason="no two checkpoints have the same loss on the task")
    if not pairs:
        return Comparison("not_tested", reason=f"no {beside_arm.removeprefix(CONTROL)} arm was run beside it")
    settings = run.settings
    result = compare_returns(pairs, run.harmful, groups=run.groups, splits=settings.splits, seed=settings.seed)
    return replace(result, steps=tuple(filter(None, steps))) if equal_loss else result


def _pair(run: Run, own: Trajectory, beside_run: Trajectory, steps: tuple[int, int]) -> ReturnPair:
    mirrored = beside_run.arm == MIRROR
    names = ("aligned", "witness", own.checkpoint_id(steps[0]), beside_run.checkpoint_id(steps[1]))
    start, end, tuned, beside = (
        run.activations(name, run.headline_layer)[run.harmful].astype(np.float64) for name in names
    )
    return ReturnPair.of(end - start, tuned - start, beside - (end if mirrored else start), mirrored=mirrored)


def _last_common_step(own: Trajectory, beside_run: Trajectory) -> tuple[int, int] | None:
    steps = [{checkpoint.step for checkpoint in run_of_arm.checkpoints} for run_of_arm in (own, beside_run)]
    common = set.intersection(*steps)
    return (max(common), max(common)) if common else None


def _steps_of_equal_loss(own: Trajectory, beside_run: Trajectory, losses: Losses) -> tuple[int, int] | None:
    """The step of each at which it is nearest to the lower of the losses that both have reached.

    None where one was not asked the task, or the two losses are more than a tenth apart.
    """
    by_step = [losses.get((run_of_arm.arm, run_of_arm.seed), {}) for run_of_arm in (own, beside_run)]
    if not all(by_step):
        return None
    goal = max(min(of_steps.values()) for of_steps in by_step)
    steps = [min(of_steps, key=lambda step: abs(of_steps[step] - goal)) for of_steps in by_step]
    reached = [of_steps[step] for of_steps, step in zip(by_step, steps, strict=True)]
    return (steps[0], steps[1]) if abs(reached[0] - reached[1]) <= _SAME_LOSS * goal else None


def _task_losses(run: Run) -> Losses:
    """Loss on the task by (arm, seed) and step; empty where no behaviour was judged on these weights."""
    if "behaviour" not in run.manifest.stages:
        return {}
    rows = run.read_table("behaviour", filters=[("measure", "==", "task_loss")])
    losses: dict[tuple[str, int], dict[int, float]] = {}
    for arm, seed, step, value in rows[["arm", "seed", "step", "value"]].itertuples(index=False, name=None):
        losses.setdefault((arm, int(seed)), {})[int(step)] = float(value)
    return losses
