"""Independent histories side by side: what behaviour says of every arm, its level, and the qualifiers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from probes.errors import RunFolderError
from probes.lineage import Trajectory
from probes.run import Run
from probes.tasks.safety import safety_answers
from probes.verdict.families import over_histories

_JUDGED = ("level", "level_holm", "decided_by", "p", "power", "off_refusal_axis", "mirror", "continued")
_MEASURED = ("return_fraction", "alignment_crossfit", "off_axis")


def compare_histories(runs: Sequence[Run]) -> dict[str, Any]:
    """The last checkpoint of every trajectory of several runs.

    Args:
        runs: measured and judged, each of a history of its own (pretraining, alignment and fine-tuning).

    Returns:
        `{"histories": [{"run", "layer", "trajectories": [...]}], "arms": {arm: ...}}`. A trajectory has `arm`, `seed`,
        `step`, `safety` (as `summary --json`; None where it was not judged), the statistics at the headline layer, and
        what `verdict.json` says of it (None for the mirror, which gets no level). `arms` says for each arm in how many
        histories its first seed reached level 4, with the binomial p-value from five histories on.

    Raises:
        RunFolderError: a run has no verdict.
    """
    histories = [_history(run) for run in runs]
    levels: dict[str, list[int]] = {}
    for history in histories:
        for arm, level in _first_levels(history["trajectories"]).items():
            levels.setdefault(arm, []).append(level)
    return {"histories": histories, "arms": {arm: asdict(over_histories(values)) for arm, values in levels.items()}}


def _history(run: Run) -> dict[str, Any]:
    verdicts = {(verdict["arm"], verdict["seed"]): verdict for verdict in run.verdicts}
    if not verdicts:
        raise RunFolderError(f"{run.path} has no verdict", next_step=f"Write it: gravity-probe verdict {run.path}.")
    answers, layer = safety_answers(run), run.headline_layer
    estimates = run.estimates(layer)

    def row(trajectory: Trajectory) -> dict[str, Any]:
        place, step = (trajectory.arm, trajectory.seed), trajectory.checkpoints[-1].step
        answer, verdict = answers.get(place), verdicts.get(place, {})
        statistics = estimates[*place, layer][step]
        return {
            "arm": trajectory.arm,
            "seed": trajectory.seed,
            "step": step,
            "safety": None if answer is None else answer.to_json(),
            **{name: statistics[name].value for name in _MEASURED},
            **{name: verdict.get(name) for name in _JUDGED},
        }

    return {
        "run": str(run.path),
        "layer": layer,
        "trajectories": [row(trajectory) for trajectory in run.lineage.trajectories],
    }


def _first_levels(trajectories: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The level of each arm's first seed."""
    levels: dict[str, int] = {}
    for row in trajectories:
        if row["level"] is not None:
            levels.setdefault(row["arm"], row["level"])
    return levels
