"""Tasks as jobs of SLURM, through submitit, which submits them and requeues what is preempted or runs out of time.

Tasks that are handed over together are one job array. Workers cannot report steps: they may begin tomorrow.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from probes.engine.board import EngineError
from probes.engine.worker import Attempt, attempt
from probes.errors import UsageError

_DEFAULTS = {"name": "gravity-probe", "timeout_min": 240}
_FOLDER = "gravity-probe-jobs"
_SECONDS = 2.0  # between looks at which jobs have ended; submitit asks SLURM itself less often
_Job = submitit.Job[list[Attempt]]


class SlurmExecutor(Executor):
    """Jobs of one task each, or of a few, on SLURM or in processes of this machine that stand in for it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Submit nothing yet.

        Args:
            options: those of submitit's `AutoExecutor`, by its names (`timeout_min`, `mem_gb`, `gpus_per_node`,
                `slurm_partition`, `slurm_array_parallelism`); `cluster`, which is `slurm` unless it is `local`;
                `folder` of the logs, on a disk that all nodes share; and `tasks_per_job`, which is 1.

        Raises:
            UsageError: there is no SLURM here, or submitit knows no such option.
        """
        own = {"cluster": "slurm", "folder": _FOLDER, "tasks_per_job": 1, **options}
        cluster, folder, self._tasks_per_job = (own.pop(name) for name in ("cluster", "folder", "tasks_per_job"))
        if not (isinstance(self._tasks_per_job, int) and self._tasks_per_job > 0):
            raise UsageError("A job has at least one task", got=f"tasks_per_job={self._tasks_per_job}")
        try:
            self._submitit = submitit.AutoExecutor(folder=Path(folder) / _stamp(), cluster=cluster)
            self._submitit.update_parameters(**{**_DEFAULTS, **own})
        except RuntimeError as error:
            next_step = "Run it on a machine that has sbatch, or try it out with --workers slurm:cluster=local."
            raise UsageError("There is no SLURM here", got="no srun", next_step=next_step) from error
        except (NameError, ValueError, AssertionError) as error:
            raise UsageError("submitit takes no such options of --workers", got=str(error).splitlines()[0]) from error
        self._waiting: list[tuple[Callable[[], Attempt], Future[Any]]] = []
        self._jobs: dict[_Job, list[Future[Any]]] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have it submitted at the end of the batch."""
        future: Future[Any] = Future()
        self._waiting.append((partial(attempt, partial(fn, *args, **kwargs)), future))
        return future

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """At its end, submit as one array what was handed over meanwhile.

        Raises:
            EngineError: SLURM does not take it.
        """
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        size = self._tasks_per_job
        groups = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        try:
            with submitit.helpers.clean_env():  # the driver may be a job itself
                jobs = self._submitit.submit_array([_in_turn([call for call, _ in group]) for group in groups])
        except (FailedJobError, FailedSubmissionError) as error:
            raise EngineError("SLURM takes no such jobs", got=str(error).strip().splitlines()[-1]) from error
        begun = {job: [future for _, future in group] for job, group in zip(jobs, groups, strict=True)}
        self._jobs |= begun
        threading.Thread(target=_watch, args=(begun,), daemon=True).start()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - none goes on
        """Cancel the jobs that have not ended: nobody waits for them."""
        for job, futures in self._jobs.items():
            if not all(future.done() for future in futures):
                job.cancel(check=False)


def _stamp() -> str:
    """A folder of this command's own: jobs on one machine are numbered by process, and numbers come again."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


def _in_turn(calls: Sequence[Callable[[], Attempt]]) -> submitit.helpers.FunctionSequence:
    """The calls one after the other; where the job is requeued, it goes on with the first that has not ended."""
    sequence = submitit.helpers.FunctionSequence()
    for call in calls:
        sequence.add(call)
    return sequence


def _watch(jobs: Mapping[_Job, list[Future[Any]]]) -> None:
    """Settle the futures of each job as it ends, and all of them in any case: the driver waits for them."""
    try:
        for job in submitit.helpers.as_completed(list(jobs), poll_frequency=_SECONDS):
            _settle(job, jobs[job])
    finally:
        for future in itertools.chain(*jobs.values()):
            if not future.done():
                future.set_exception(EngineError("Its job could not be watched any longer"))


def _settle(job: _Job, futures: list[Future[Any]]) -> None:
    error, log = job.exception(), str(job.paths.stderr)
    if isinstance(error, UncompletedJobError):
        for future in futures:
            future.set_exception(_failure(job, error).with_log(log))
        return
    for future, (result, refusal) in zip(futures, job.result(), strict=True):
        if refusal is None:
            future.set_result(result)
        else:
            future.set_exception(refusal.with_log(log))


def _failure(job: _Job, error: UncompletedJobError) -> EngineError:
    """Why a job has no result: what nobody foresaw, or that it was killed."""
    if isinstance(error, FailedJobError):
        return EngineError("Its job failed", got=((job.stderr() or "").strip().splitlines() or ["no word"])[-1])
    next_step = "The same command goes on where it stopped."
    return EngineError("Its job ended without a result", got=f"state {job.state}", next_step=next_step)
