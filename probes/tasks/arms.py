"""Arms side by side: the same data in the same order, with and without every effect of the guard, then measured.

`probes.experiments` trains the arms; `probes.experiments.outcome` reads the finished run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probes.directions.measured import Measured
from probes.engine import current_engine
from probes.errors import UsageError
from probes.experiments.data_defences import ALIGNED_SHARE
from probes.experiments.experiment import BASELINE, RESTORED, arm_folder, arm_order, current_names, split_way
from probes.experiments.lineage_bench import HASHES, Bench
from probes.experiments.side_by_side import Arm, train_arms
from probes.experiments.trained_controls import start_of
from probes.guard.fine_tuning import CHECKPOINTS
from probes.guard.guarded_direction import GuardError
from probes.guard.material import layers_of, selective_layers
from probes.guard.modes import SAFETY_DIRECTION
from probes.guard.record import begin_run
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.lineage.raw_form import written_from
from probes.models.identity import weights_sha256
from probes.progress import Report, silent, within
from probes.run import Run
from probes.run.inputs import WITNESS
from probes.stages.changes import last_members, write_changes
from probes.stages.task_divergence import write_task_divergence
from probes.stages.thirds import write_thirds
from probes.store.settings import Settings
from probes.tasks.measure import write_stages
from probes.tasks.restore import Lineages, RestoreOptions, restore

_TRAINING, _JUDGED, _THIRDS = 0.6, 0.96, 0.98  # shares of the time after which these are done
_GROWING = ("arms", "seeds", "draws", "by_third")  # more of these go on with the same run; another training does not
# Settings that runs of earlier versions do not name.
_LATER: Mapping[str, Any] = {
    "screened": False,
    "arm_data": {},
    "aligned_share": ALIGNED_SHARE,
    "inoculation": None,
    "record_path": False,
    "optimizer": None,
    "weight_decay": 0.0,
    "more_methods": [],
    "more_optimizers": [],
    "way_options": {},
    "save_every": None,
}
DRIFT = "control:drift"
Trajectories = Mapping[Arm, Trajectory]


def run_arms(bench: Bench, out: Path, report: Report = silent) -> Run:
    """Train every arm at every seed, measure and judge them all in one run folder.

    Args:
        bench: what the arms are trained on, and its experiment.
        out: run folder, new or of the same experiment.
        report: told where the work is.

    Raises:
        UsageError: an unknown arm, the folder holds another experiment, or a model of the lineage has changed.
        GuardError: an arm was named whose guard has no layer to look at.
    """
    settings = {name: value for name, value in dataclasses.asdict(bench.experiment).items() if name not in _GROWING}
    config = written_from({"arms": json.loads(json.dumps({**bench.about, **settings}))}, out)
    _refuse_another(out, config)
    _refuse_other_weights(out, bench.lineage)
    with current_engine().threads():
        run = begin_run(out, bench.lineage, bench.probe, Settings(nulls=False), config)
        trainings, skipped = leave_out_unguardable(run, bench)
        # What earlier calls have trained in this run stays part of it.
        earlier = {(trajectory.arm, trajectory.seed): trajectory for trajectory in run.lineage.trajectories}
        first, later = _in_two_waves(trainings)
        share = _TRAINING * len(first) / len(trainings)
        trained = _train(bench, first, out, within(report, 0.0, share))
        baselines = {training: trajectory for training, trajectory in trained.items() if training[0] == BASELINE}
        if any(arm == DRIFT for arm, _ in later) and BASELINE not in {arm for arm, _ in earlier}:
            with _writing(_lineage(bench, baselines), out, config) as writing:
                write_stages(writing, bench.probe)
        trained |= _train(bench, [arm for arm in later if arm[0] == DRIFT], out, within(report, share, _TRAINING))
        trained |= _restore_baselines(bench, [arm for arm in later if arm[0] in RESTORED], baselines, out)
        with _writing(_lineage(bench, {**earlier, **trained}), out, config) as writing:
            writing.note("skipped arms", skipped)
            write_stages(writing, bench.probe, bench.evaluation, within(report, _TRAINING, _JUDGED))
            write_changes(writing, writing.headline_layer, _guarded_by_arm(writing, bench))
            if bench.experiment.by_third:
                members = [*last_members(writing)]
                write_thirds(writing, writing.model(), members, bench.evaluation, within(report, _JUDGED, _THIRDS))
            if len(bench.experiment.ways) > 1:
                task = bench.evaluation.task
                write_task_divergence(writing, writing.model(), task, within(report, _THIRDS, 1.0))
            writing.save()
    return Run(out)


def leave_out_unguardable(run: Measured, bench: Bench) -> tuple[list[Arm], str | None]:
    """The trainings, and of `all` a sentence on the arm that is left out since its guard has no layer to look at.

    Raises:
        GuardError: that arm was asked for by its name; what to do is said.
    """
    trainings = list(bench.trainings)
    if not any(split_way(arm)[0] == SAFETY_DIRECTION for arm, _ in trainings):
        return trainings, None
    try:
        selective_layers(run, layers_of(bench.guarded_layers, run.direction("reversion"), run.n_layers))
    except GuardError as error:
        if SAFETY_DIRECTION in bench.experiment.arms:
            raise
        guardable = [training for training in trainings if split_way(training[0])[0] != SAFETY_DIRECTION]
        return guardable, f"The arm {SAFETY_DIRECTION} was left out. {error}"
    return trainings, None


def _guarded_by_arm(run: Run, bench: Bench) -> dict[str, tuple[int, ...]]:
    """The layers that each arm's guard looks at; of arms that have none, those that a block would."""
    if not run.has_witness:
        return {}
    layers = layers_of(bench.guarded_layers, run.direction("reversion"), run.n_layers)
    arms = {trajectory.arm for trajectory in run.lineage.trajectories}
    choosing = {arm for arm in arms if split_way(arm)[0] == SAFETY_DIRECTION}
    chosen = selective_layers(run, layers) if choosing else ()
    return {arm: chosen if arm in choosing else layers for arm in sorted(arms)}


def _in_two_waves(trainings: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """Those that need no other arm, and those that are made from the baseline."""
    later = [training for training in trainings if training[0] in (DRIFT, *RESTORED)]
    return [training for training in trainings if training not in later], later


def _train(bench: Bench, arms: Sequence[Arm], out: Path, report: Report) -> dict[Arm, Trajectory]:
    folders = {arm: arm_folder(out / CHECKPOINTS, *arm) for arm in arms}
    places = train_arms(bench, folders, out, report)
    return {
        arm: Trajectory.from_folder(place, arm=arm[0], seed=arm[1], base=_base_of(bench, arm[0]))
        for arm, place in places.items()
    }


def _base_of(bench: Bench, arm: str) -> str | None:
    """The base of an arm's adapters, which name it as it was when they were trained: the run may lie elsewhere now."""
    start = getattr(bench.lineage, start_of(arm))
    return None if start is None or start.adapter else str(start)


def _lineage(bench: Bench, trajectories: Trajectories) -> Lineage:
    places: Iterable[tuple[str, int]] = sorted(trajectories, key=lambda place: (arm_order(place[0]), place[1]))
    return bench.lineage.with_trajectories(tuple(trajectories[place] for place in places))


@contextmanager
def _writing(lineage: Lineage, out: Path, config: Mapping[str, Any]) -> Iterator[Run]:
    """The run of a lineage, begun."""
    with Run.writing(out) as run:
        run.begin(lineage, Settings(nulls=False), config)
        yield run


def _restore_baselines(bench: Bench, arms: Sequence[Arm], baselines: Trajectories, out: Path) -> Trajectories:
    restored = {}
    for arm, seed in arms:
        folder = arm_folder(out / CHECKPOINTS, arm, seed)
        _restore(bench, arm, baselines[BASELINE, seed], folder)
        restored[arm, seed] = Trajectory.from_folder(folder, arm=arm, seed=seed)
    return restored


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
    before = written_from(current_names(manifest.config_given), out)
    unnamed = {**_LATER, **{name: value for name, value in config["arms"].items() if name in HASHES}}
    if {"arms": {**unnamed, **before.get("arms", {})}} != config:
        raise UsageError(f"{out} holds another run", next_step="Give --out a new folder.")


def _refuse_other_weights(out: Path, lineage: Lineage) -> None:
    """Refuse a run whose arms have been trained and measured from other weights than now lie in the same places."""
    measured = Run(out).manifest.checkpoints if (out / "run.json").is_file() else {}
    for member in lineage.members():
        digest = measured.get(member.id, {}).get("weights_sha256")
        ablated = member.id == WITNESS and lineage.witness is not None and lineage.witness.is_estimate
        if digest and not ablated and weights_sha256(member.ref) != digest:
            raise UsageError(
                f"{member.ref} holds other weights than those that {out} was made from",
                got=f"another {member.id} model",
                next_step="Give --out a new folder.",
            )
