"""Arms side by side: the same data in the same order, with and without every effect of the guard, then measured.

`probes.experiments` trains the arms; `probes.experiments.outcome` reads the finished run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probes.errors import UsageError
from probes.experiments.experiment import BASELINE, RESTORED, arm_folder, arm_order, current_names
from probes.experiments.lineage_bench import DATA_SHA256, Bench
from probes.guard.record import begin_run
from probes.guard.training import CHECKPOINTS
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.progress import Report, silent, within
from probes.run import Run
from probes.store.settings import Settings
from probes.tasks.measure import write_stages
from probes.tasks.restore import Lineages, RestoreOptions, restore

_TRAINING = 0.6  # share of the time
_GROWING = ("arms", "seeds", "draws")  # more of these go on with the same run; another training does not
_LATER: Mapping[str, Any] = {"screened": False, "arm_data": {}}  # settings that runs of earlier versions do not name
Trajectories = Mapping[tuple[str, int], Trajectory]


def run_arms(bench: Bench, out: Path, report: Report = silent) -> Run:
    """Train every arm at every seed, measure and judge them all in one run folder.

    Args:
        bench: what the arms are trained on, and its experiment.
        out: run folder, new or of the same experiment.
        report: told where the work is.

    Raises:
        UsageError: an unknown arm, or the folder holds another experiment.
    """
    trainings = bench.trainings
    settings = {name: value for name, value in dataclasses.asdict(bench.experiment).items() if name not in _GROWING}
    config = {"arms": json.loads(json.dumps({**bench.about, **settings}))}
    _refuse_another(out, config)
    run = begin_run(out, bench.lineage, bench.probe, Settings(nulls=False), config)
    # What earlier calls have trained in this run stays part of it.
    earlier = {(trajectory.arm, trajectory.seed): trajectory for trajectory in run.lineage.trajectories}
    trained: dict[tuple[str, int], Trajectory] = {}
    for number, (arm, seed) in enumerate(trainings):
        if arm == "control:drift" and BASELINE not in {trajectory.arm for trajectory in run.lineage.trajectories}:
            baselines = {training: trajectory for training, trajectory in trained.items() if training[0] == BASELINE}
            with _writing(_lineage(bench, baselines), out, config) as writing:
                write_stages(writing, bench.probe)
            run = Run(out)
        share = within(report, _TRAINING * number / len(trainings), _TRAINING * (number + 1) / len(trainings))
        folder = arm_folder(out / CHECKPOINTS, arm, seed)
        if arm in RESTORED:
            _restore(bench, arm, trained[BASELINE, seed], folder)
        else:
            folder = bench.train(arm, seed, run, folder, share)
        trained[arm, seed] = Trajectory.from_folder(folder, arm=arm, seed=seed)
    lineage = _lineage(bench, {**earlier, **trained})
    with _writing(lineage, out, config) as writing:
        write_stages(writing, bench.probe, bench.evaluation, within(report, _TRAINING, 1.0))
    return Run(out)


def _lineage(bench: Bench, trajectories: Trajectories) -> Lineage:
    places: Iterable[tuple[str, int]] = sorted(trajectories, key=lambda place: (arm_order(place[0]), place[1]))
    return bench.lineage.with_trajectories(tuple(trajectories[place] for place in places))


@contextmanager
def _writing(lineage: Lineage, out: Path, config: Mapping[str, Any]) -> Iterator[Run]:
    """The run of a lineage, begun."""
    with Run.writing(out) as run:
        run.begin(lineage, Settings(nulls=False), config)
        yield run


def _restore(bench: Bench, arm: str, baseline: Trajectory, folder: Path) -> None:
    """The last checkpoint of a baseline with its return taken off, unless it is there."""
    last = baseline.checkpoints[-1]
    target = folder / f"checkpoint-{last.step}"
    if target.is_dir():
        return
    tuned = CheckpointRef(model=last.model, adapter=last.adapter)
    witness = bench.lineage.need_witness("Restoring", weights=True)
    restore(Lineages(tuned, bench.lineage.aligned, witness), target, RestoreOptions(form=RESTORED[arm]))


def _refuse_another(out: Path, config: Mapping[str, Any]) -> None:
    """Runs of earlier versions do not name every setting: of those that they do not, nothing is asked."""
    if not (out / "run.json").is_file():
        return
    manifest = Run(out).manifest
    if not manifest.config:
        return  # killed before it had begun
    before = current_names(manifest.config_given)
    unnamed = {**_LATER, **{name: value for name, value in config["arms"].items() if name == DATA_SHA256}}
    if {"arms": {**unnamed, **before.get("arms", {})}} != config:
        raise UsageError(f"{out} holds another run", next_step="Give --out a new folder.")
