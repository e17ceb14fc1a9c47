"""Processes that train arms side by side: arms are independent of each other once the aligned model is there."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from probes.organism.arms import reversion_vectors, train_arm
from probes.organism.recipe import Recipe

Told = Callable[[str, int, int, float], None]
_reports: Any = None  # in a worker: where its steps are reported


class Crew:
    """Trains the arms that are still to do, in `processes` fresh processes, or here if that is one or fewer.

    On leaving, no process remains; after an exception, arms that have not begun do not begin.
    """

    def __init__(self, history: Path, recipe: Recipe, runs: Sequence[tuple[str, int]], processes: int) -> None:
        self.runs = tuple(runs)
        self._history, self._recipe = history, recipe
        self._pool: ProcessPoolExecutor | None = None
        if min(processes, len(self.runs)) > 1:
            context = multiprocessing.get_context("spawn")
            self._queue = context.Queue()
            self._pool = ProcessPoolExecutor(
                min(processes, len(self.runs)), mp_context=context, initializer=_begin, initargs=(self._queue,)
            )

    def __enter__(self) -> Crew:
        if self._pool is not None:
            for _ in self.runs:
                self._pool.submit(_ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._queue.close()

    def work(self, told: Told) -> None:
        """Train every run; `told` is given (arm, seed, step, loss) for every step, here in this process."""
        if not self.runs:
            return
        vectors = reversion_vectors(self._history, self._recipe)
        if self._pool is None:
            for arm, seed in self.runs:
                train_arm(
                    self._history,
                    self._recipe,
                    arm,
                    seed,
                    vectors,
                    lambda step, loss, arm=arm, seed=seed: told(arm, seed, step, loss),  # type: ignore[misc]
                )
            return
        futures = [
            self._pool.submit(_train, self._history, self._recipe, arm, seed, vectors) for arm, seed in self.runs
        ]
        self._listen(futures, told)
        for future in futures:
            future.result()

    def _listen(self, futures: Sequence[Future[None]], told: Told) -> None:
        """Pass reports on until all runs have ended and none is left."""
        while True:
            ended = all(future.done() for future in futures)
            try:
                told(*self._queue.get(timeout=0.05 if ended else 0.2))
            except queue.Empty:
                if ended:
                    return


def _begin(reports: Any) -> None:
    global _reports
    _reports = reports
    # Ctrl-C reaches the whole process group; a worker then ends without a word of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ready() -> None:
    """A task without work: its process has loaded everything once it has run."""


def _train(history: Path, recipe: Recipe, arm: str, seed: int, vectors: Any) -> None:
    parent = multiprocessing.parent_process()

    def told(step: int, loss: float) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit(1)  # Killed; whoever goes on with this history must find nobody else at work.
        _reports.put((arm, seed, step, loss))

    train_arm(history, recipe, arm, seed, vectors, told)
