"""Arms trained side by side: once their roles are measured, no training needs another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from probes.directions.measured import Measured, MeasuredInMemory
from probes.engine import Task, current_engine, release_model
from probes.experiments.lineage_bench import Bench
from probes.progress import Report
from probes.run import Run

Arm = tuple[str, int]


def train_arms(
    bench: Bench, folders: Mapping[Arm, Path], measured: Path | MeasuredInMemory, report: Report
) -> dict[Arm, Path]:
    """Train every arm that is not finished yet.

    Args:
        bench: what they are trained on.
        folders: of each (arm, seed); it appears, or is marked, once the training is whole.
        measured: what their effects are made from: a run folder, or activations of the roles.
        report: told about every step.

    Returns:
        The folder with `checkpoint-N` of each.

    Raises:
        GravityError: once the others have ended, the first that failed.
    """
    finished = {arm: bench.find_checkpoints(folder) for arm, folder in folders.items()}
    waiting = {_name(arm): arm for arm, place in finished.items() if place is None}
    if waiting:
        bench.prepare()
    tasks = [Task(name, partial(_train, bench, arm, folders[arm], measured)) for name, arm in waiting.items()]
    trained = {waiting[name]: place for name, place in current_engine(len(tasks)).complete(tasks, report)}
    return {arm: place or trained[arm] for arm, place in finished.items()}


def _name(arm: Arm) -> str:
    return f"Arm {arm[0]}, seed {arm[1]}"


def _train(bench: Bench, arm: Arm, folder: Path, measured: Path | MeasuredInMemory, report: Report) -> Path:
    release_model()  # a training has a model of its own
    roles: Measured = Run(measured) if isinstance(measured, Path) else measured
    return bench.train(*arm, roles, folder, report)
