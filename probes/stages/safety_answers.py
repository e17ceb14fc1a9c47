"""The safety answers of a run, counted from its completions; reading them opens no model."""

from __future__ import annotations

from probes.behaviour.safety import MARGIN, SafetyAnswer
from probes.run import Run

BASE_FLIPS = "base_flips"


def last_safety_answers(run: Run, margin: float = MARGIN) -> dict[tuple[str, int], SafetyAnswer]:
    """The safety answer of each trajectory's last judged checkpoint, by (arm, seed), from `completions.parquet`."""
    from probes.behaviour import rate_tables as tables

    labels = ["harmful", "harmless", tables.LOOK_ALIKE]
    completions = run.read_table("completions", filters=[("label", "in", labels)])
    last = completions.groupby(["arm", "seed"])["step"].transform("max")
    completions = completions[completions["step"] == last]
    flips = run.read_json(BASE_FLIPS)["rate"] if run.has_json(BASE_FLIPS) else None
    by_checkpoint = tables.safety_answers(completions, margin=margin, base_flip_rate=flips)
    places = completions.drop_duplicates("checkpoint").set_index("checkpoint")[["arm", "seed"]]
    answers = {tuple(places.loc[checkpoint]): answer for checkpoint, answer in by_checkpoint.items()}
    trajectories = [(trajectory.arm, trajectory.seed) for trajectory in run.lineage.trajectories]
    return {place: answers[place] for place in trajectories if place in answers}
