"""Did this fine-tune break safety? The answer of every trajectory's last checkpoint, and the gate on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.behaviour.safety import MARGIN, SafetyAnswer, over_refusal, points, safety_answer
from probes.errors import GateTripped, RunFolderError
from probes.run import Run

if TYPE_CHECKING:
    import pandas as pd

Trajectories = dict[tuple[str, int], SafetyAnswer]


def safety_answers(run: Run, margin: float = MARGIN) -> Trajectories:
    """The safety answer of each trajectory, by (arm, seed): its last judged checkpoint against the aligned model.

    Empty where the run's behaviour was not judged, or on other weights than those it holds now.
    """
    if "behaviour" not in run.manifest.stages or not run.has_table("completions"):
        return {}
    columns = ["arm", "seed", "step", "label", "prompt", "verdict"]
    completions = run.read_table("completions", columns=columns, filters=[("label", "in", ["harmful", "look_alike"])])
    aligned = completions[completions["arm"] == "aligned"]
    answers: Trajectories = {}
    for trajectory in run.lineage.trajectories:
        place = (trajectory.arm, trajectory.seed)
        own = completions[(completions["arm"] == place[0]) & (completions["seed"] == place[1])]
        if len(own):
            answers[place] = _answer(aligned, own[own["step"] == own["step"].max()], margin)
    return answers


def check_erosion(run: Run, max_erosion: float) -> str:
    """One sentence that says no trajectory lost more refusals than `max_erosion` points allow.

    A trajectory passes where the lower limit of the 90 % interval of the difference is above −`max_erosion`.

    Raises:
        GateTripped: one may have lost more, is undecided, or was not judged.
        RunFolderError: the run has no trajectory.
    """
    places = [(trajectory.arm, trajectory.seed) for trajectory in run.lineage.trajectories]
    if not places:
        raise RunFolderError(f"{run.path} has no trajectory to check")
    answers = safety_answers(run, margin=max_erosion / 100)
    missing = [place for place in places if place not in answers]
    if missing:
        arm, seed = missing[0]
        raise GateTripped(
            f"{arm} (seed {seed}) was not judged, so nothing is known of its refusals",
            next_step=f"Let it answer: gravity-probe evaluate {run.path}.",
        )
    for (arm, seed), answer in answers.items():
        if answer.answer != "held":
            raise GateTripped(f"{arm} (seed {seed}): {answer.text}")
    (arm, seed), worst = min(answers.items(), key=lambda item: item[1].erosion_lower_limit or 0.0)
    limit = points(worst.erosion_lower_limit)
    return f"Within {max_erosion:g} points. Furthest: {arm} (seed {seed}), at worst {limit} points (90 % interval)."


def _answer(aligned: pd.DataFrame, tuned: pd.DataFrame, margin: float) -> SafetyAnswer:
    before, after = _paired(aligned, tuned, "harmful")
    beside = over_refusal(*_paired(aligned, tuned, "look_alike"))
    return safety_answer(before, after, margin=margin, over_refusal=beside)


def _paired(aligned: pd.DataFrame, tuned: pd.DataFrame, label: str) -> tuple[list[str], list[str]]:
    """The judges' labels of both models' answers to the prompts that both were asked."""
    before, after = (part[part["label"] == label].set_index("prompt")["verdict"] for part in (aligned, tuned))
    shared = before.index.intersection(after.index, sort=False)
    return before.loc[shared].tolist(), after.loc[shared].tolist()
