"""Work on the checkpoints of a run, each piece of which an engine may do in another process.

The work is given the open run, a model into which any checkpoint can be put, and a report. In another process the run
is open for reading; what it writes is a stage that the driver, which holds the lock, puts into the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from probes.engine import Engine, Task, current_engine, hold_model
from probes.errors import CheckpointError
from probes.models import ModelHost
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Report
from probes.run import Run
from probes.stages.job_status import JobStatus
from probes.store import ALIGNED, MANIFEST, fingerprint

Work = Callable[[Run, ModelHost, Report], Any]
Part = Callable[[Run, Report], Any]


@dataclass(frozen=True)
class StageJob:
    """A stage of a run that needs no other of its kind.

    Attributes:
        name: what it is called where it fails.
        stage: its name in the manifest.
        made_from: the fingerprint of its inputs.
        work: writes its files.
    """

    name: str
    stage: str
    made_from: str
    work: Work


def complete_jobs(
    run: Run, model: CheckpointFolders, jobs: Mapping[str, Work], report: Report, *, expected: int = 0
) -> Iterator[tuple[str, Any]]:
    """Do every piece of work, by its name; hands out names and results as they come.

    Args:
        run: open for writing.
        model: the run's, which is opened for what is done in this process; others open their own on a device of the
            same name.
        jobs: what is to be done; what is done elsewhere must be picklable. Whoever takes results may add some.
        report: told where they are.
        expected: how many jobs there will be with those that are added.

    Raises:
        GravityError: as `Engine.complete`.
    """
    engine = current_engine(max(expected, len(jobs)))
    if not engine.in_process:
        run.save()  # others read the settings and the lineage there
    fetched = {key: folder for key, folder in model.folders.items() if Path(key[0]) != folder}
    site = _Site(run.path.resolve(), model.device_name, fetched)
    tasks = list[Task]()

    def take_in() -> None:
        for name, work in list(jobs.items())[len(tasks) :]:
            begun = partial(work, run, model.opened) if engine.in_process else partial(_work_elsewhere, site, work)
            tasks.append(Task(name, begun))

    take_in()
    for result in _complete(run, engine, tasks, report, expected):
        yield result
        take_in()


def compute_parts(run: Run, parts: Mapping[str, Part], report: Report) -> list[Any]:
    """What each part comes to, in their order: statistics of what the run holds, for which no model is opened.

    Workers of this machine take part. On a cluster the driver is alone with it: a job takes longer to begin.

    Args:
        run: open for writing.
        parts: what is to be computed, by a name; picklable, as is what it returns.
        report: told where they are.

    Raises:
        GravityError: as `Engine.complete`.
    """
    results = dict(complete_parts(run, parts, report))
    return [results[name] for name in parts]


def complete_parts(run: Run, parts: Mapping[str, Part], report: Report) -> Iterator[tuple[str, Any]]:
    """As `compute_parts`; hands out names and results as they come."""
    engine = current_engine(len(parts))
    if not engine.is_local:
        engine = engine.at_home()
    if engine.in_process:
        tasks = [Task(name, partial(part, run)) for name, part in parts.items()]
    else:
        run.save()
        tasks = [Task(name, partial(_compute_elsewhere, run.path.resolve(), part)) for name, part in parts.items()]
    yield from _complete(run, engine, tasks, report)


def _complete(
    run: Run, engine: Engine, tasks: Sequence[Task], report: Report, expected: int = 0
) -> Iterator[tuple[str, Any]]:
    status = JobStatus(run, report)
    yield from engine.complete(tasks, status.report, expected=expected)
    status.forget()


def _compute_elsewhere(path: Path, part: Part, report: Report) -> Any:
    return part(_open_run(path), report)


def complete_stages(
    run: Run, model: CheckpointFolders, jobs: Sequence[StageJob], report: Report, *, expected: int = 0
) -> Iterator[tuple[StageJob, Any]]:
    """Write stages and keep each as it ends, in the manifest in the order of the jobs; as `complete_jobs` else."""
    if not jobs:
        return
    by_name = dict[str, StageJob]()
    pieces = dict[str, Work]()

    def take_in() -> None:
        added = {job.name: job for job in jobs[len(by_name) :]}
        run.begin_stages(job.stage for job in added.values())
        by_name.update(added)
        pieces.update({name: partial(_write_stage, job) for name, job in added.items()})

    take_in()
    try:
        for name, (record, result) in complete_jobs(run, model, pieces, report, expected=expected):
            run.manifest.stages[by_name[name].stage] = record
            yield by_name[name], result
            take_in()
            run.save_in_time()  # with what the caller has put beside it
        for job in jobs:
            run.manifest.stages[job.stage] = run.manifest.stages.pop(job.stage)
    finally:
        run.save()


def write_all(run: Run, model: CheckpointFolders, jobs: Sequence[StageJob], report: Report) -> None:
    """As `complete_stages`, of work that returns nothing."""
    for _ in complete_stages(run, model, jobs, report):
        pass


def _write_stage(job: StageJob, run: Run, model: ModelHost, report: Report) -> tuple[Any, Any]:
    with run.stage_record(job.made_from) as record:
        result = job.work(run, model, report)
    return record, result


@dataclass(frozen=True)
class _Site:
    """Where the work is: the run folder, the device, and where the driver has found checkpoints that lie elsewhere.

    Without a device, the model is spread as the run's settings say.
    """

    run: Path
    device: str | None
    folders: Mapping[tuple[str, str | None], Path]


def _work_elsewhere(site: _Site, work: Work, report: Report) -> Any:
    """Do it in a worker, which keeps the model that it has opened for the same lineage."""
    run = _open_run(site.run)
    settings = run.settings.model_dump(include={"dtype", "device_map", "quantize", "allow_pickle", "allow_unrelated"})
    weights = run.manifest.checkpoints.get(ALIGNED, {}).get("weights_sha256")
    key = fingerprint([str(run.lineage.aligned), weights, site.device, settings])
    model = hold_model(key, lambda: run.model(site.device))
    moved = [key[0] for key, folder in model.folders.items() if site.folders.get(key, folder) != folder]
    if moved:
        raise CheckpointError(
            f"{moved[0]} has changed while it was measured", next_step="Name a revision: ID@REVISION."
        )
    model.folders.update(site.folders)
    run.equip(model)
    return work(run, model, report)


_runs: dict[tuple[Any, ...], Run] = {}  # the run that this worker has open, by its manifest as it was read


def _open_run(path: Path) -> Run:
    """The run, opened anew where its manifest has changed: a long one takes longer to read than a small checkpoint."""
    about = (path / MANIFEST).stat()
    key = (path, about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _runs:
        _runs.clear()
        _runs[key] = Run(path)
    return _runs[key]
