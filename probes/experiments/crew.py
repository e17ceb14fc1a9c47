"""Processes that train arms of the organism side by side: once the aligned model is there, no arm needs another."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any

from probes.directions.measured import MeasuredInMemory
from probes.experiments.experiment import Experiment, arm_folder
from probes.experiments.organism_bench import OrganismBench
from probes.organism.history import write_lineage
from probes.progress import Progress, Report, silent

Arm = tuple[str, int]
_reports: Any = None  # in a worker: where its steps are reported


class Crew:
    """Trains the arms of a history that are still to do, in fresh processes, or here if that is one or fewer.

    It may be opened before the history is there: its processes load torch meanwhile. On leaving, no process remains,
    nor where this one is killed; after an exception, arms that have not begun do not begin.
    """

    def __init__(self, history: Path, experiment: Experiment, processes: int = 2) -> None:
        """Look which arms are still to do; they lie in the history's `arms/<arm>-s<seed>`, or in `arms-screened`."""
        self._history, self._experiment = history, experiment
        self._folders = {training: _folder(history, experiment, training) for training in experiment.trainings}
        self._to_do = [training for training, folder in self._folders.items() if not folder.is_dir()]
        self._pool: ProcessPoolExecutor | None = None
        if min(processes, len(self._to_do)) > 1:
            context = multiprocessing.get_context("spawn")
            self._queue = context.Queue()
            self._pool = ProcessPoolExecutor(
                min(processes, len(self._to_do)), mp_context=context, initializer=_begin, initargs=(self._queue,)
            )

    def __enter__(self) -> Crew:
        if self._pool is not None:
            for _ in self._to_do:
                self._pool.submit(_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._queue.close()

    def train(self, report: Report = silent) -> Path:
        """Train every arm that is still to do; returns the lineage file, which then names them all."""
        if self._to_do:
            shares = _Shares(len(self._folders), len(self._folders) - len(self._to_do), report)
            bench = OrganismBench(self._history, self._experiment)
            measured = bench.measure_roles()
            if self._experiment.screened:  # once, before several processes need it
                for seed in range(self._experiment.seeds):
                    bench.screening(seed)
            if self._pool is None:
                for arm in self._to_do:
                    _train(self._history, self._experiment, arm, measured, partial(shares.pass_on, arm))
            else:
                self._train_side_by_side(self._pool, measured, shares)
        return write_lineage(self._history, [(*training, folder) for training, folder in self._folders.items()])

    def _train_side_by_side(self, pool: ProcessPoolExecutor, measured: MeasuredInMemory, shares: _Shares) -> None:
        futures = [pool.submit(_train_in_worker, self._history, self._experiment, arm, measured) for arm in self._to_do]
        self._listen(futures, shares)
        for future in futures:
            future.result()

    def _listen(self, futures: Sequence[Future[None]], shares: _Shares) -> None:
        """Pass reports on until all arms have ended and none is left."""
        while True:
            ended = all(future.done() for future in futures)
            try:
                shares.pass_on(*self._queue.get(timeout=0.05 if ended else 0.2))
            except queue.Empty:
                if ended:
                    return


class _Shares:
    """Turns the steps of arms that train at the same time into one share of the whole."""

    def __init__(self, arms: int, done: int, report: Report) -> None:
        self._arms, self._done, self._report = arms, done, report
        self._shares: dict[Arm, float] = {}

    def pass_on(self, arm: Arm, progress: Progress) -> None:
        self._shares[arm] = progress.step / progress.steps
        fraction = min(1.0, (self._done + sum(self._shares.values())) / self._arms)
        self._report(Progress(progress.phase, progress.step, progress.steps, progress.note, fraction))


def _begin(reports: Any) -> None:
    global _reports
    _reports = reports
    # Ctrl-C reaches the whole process group; a worker then ends without a word of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker once its parent is gone: killed, it leaves nobody at work, and nobody who waits for work."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    connection.wait([parent.sentinel])
    os._exit(1)


def _ready() -> None:
    """A task without work: its process has loaded everything once it has run."""


def _train(history: Path, experiment: Experiment, arm: Arm, measured: MeasuredInMemory, report: Report) -> None:
    OrganismBench(history, experiment).train(*arm, measured, _folder(history, experiment, arm), report)


def _folder(history: Path, experiment: Experiment, arm: Arm) -> Path:
    """Where the checkpoints of an arm lie: screened data make other models of the same name."""
    return arm_folder(history / ("arms-screened" if experiment.screened else "arms"), *arm)


def _train_in_worker(history: Path, experiment: Experiment, arm: Arm, measured: MeasuredInMemory) -> None:
    _train(history, experiment, arm, measured, lambda progress: _reports.put((arm, progress)))
