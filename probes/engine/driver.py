"""Whoever drives tasks: hands them to an executor, and takes what comes of them."""

from __future__ import annotations

import contextlib
import importlib
import queue
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Any

from probes.engine.board import Board, EngineError, Task
from probes.engine.worker import do_for_driver, do_task, limit_threads, release_model
from probes.errors import GravityError
from probes.progress import Report, silent

_TICK = 0.2  # seconds between looks at what has ended
_engines: list[Engine] = []  # those that are open, the current one last


class InProcess(Executor):
    """Does a task at once, in this process. A refusal is kept for the task's future; all else is raised here."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except GravityError as error:
            future.set_exception(error)
        return future


class Engine:
    """Brings tasks to their end on an executor, with one progress for them all.

    Attributes:
        in_process: whether tasks are done in this process, and may share its objects.
        is_local: whether tasks begin at once, in this process or another one of this machine.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        threads: int | None = None,
        reports: Any = None,
        batch: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Take an executor.

        Args:
            executor: where tasks are done.
            threads: of each task; None leaves torch's own number.
            reports: a queue on which workers report their steps; None where they cannot.
            batch: open while tasks are handed over that belong together.
        """
        self._executor, self._threads, self._reports, self._batch = executor, threads, reports, batch
        self.in_process = isinstance(executor, InProcess)
        self.is_local = isinstance(executor, InProcess | ProcessPoolExecutor)

    def __enter__(self) -> Engine:
        _engines.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No process remains; after an exception, tasks that have not begun do not begin."""
        _engines.remove(self)
        self.close()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Make it the current engine while open, and leave its workers where they are afterwards."""
        _engines.append(self)
        try:
            yield
        finally:
            _engines.remove(self)

    def close(self) -> None:
        """Let no process remain."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def at_home(self) -> Engine:
        """An engine that does the same tasks in this process, with the same number of threads."""
        return Engine(InProcess(), threads=self._threads)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Compute with a task's number of threads while open, also outside of tasks."""
        return limit_threads(self._threads)

    def prepare(self, module: str, tasks: int) -> None:
        """Start the processes of this machine for so many tasks, and let them load a module meanwhile."""
        is_pool = isinstance(self._executor, ProcessPoolExecutor)
        for _ in range(tasks if is_pool and tasks > 1 else 0):
            self._executor.submit(importlib.import_module, module).add_done_callback(_forget)

    def complete(
        self, tasks: Sequence[Task], report: Report = silent, *, expected: int = 0
    ) -> Iterator[tuple[str, Any]]:
        """Do tasks, and hand out the name and the result of each as it ends, in whatever order they do.

        Args:
            tasks: each of another name. Whoever takes results may add what they make possible.
            report: told where they are, and at once of each that failed.
            expected: how many there will be with those that are added; 0 is those that there are.

        Raises:
            GravityError: once all others have ended, what the first of those that failed was refused for, with its
                name.
            EngineError: a worker was killed, or no jobs are taken.
        """
        board = Board(report, alone=self.in_process, hears_steps=self._reports is not None)
        waiting: dict[Future[Any], Task] = {}
        ended: deque[Future[Any]] = deque()
        failures: dict[str, BaseException] = {}
        begun = 0
        while begun < len(tasks) or waiting:
            with self._batch():
                for task in tasks[begun:]:
                    board.tasks = max(expected, len(tasks))
                    future = self._submit(task, board)
                    begun += 1
                    waiting[future] = task
                    future.add_done_callback(ended.append)
                    yield from _settle(ended, waiting, failures, board)
            if waiting:
                self._listen(board, waiting)
                yield from _settle(ended, waiting, failures, board)
        if self.in_process:
            release_model()
        _raise_first({task.name: failures[task.name] for task in tasks if task.name in failures})

    def _submit(self, task: Task, board: Board) -> Future[Any]:
        if self.in_process:
            return self._executor.submit(do_task, task, self._threads, partial(board.pass_on, task.name))
        try:
            return self._executor.submit(do_for_driver, task, self._threads)
        except BrokenExecutor as error:  # a worker was killed while there was nothing to do
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def _listen(self, board: Board, waiting: Collection[Future[Any]]) -> None:
        """Pass on what workers report until they are silent for a moment; where they cannot, wait for an end."""
        if self._reports is None:
            wait(waiting, _TICK, FIRST_COMPLETED)
            return
        with contextlib.suppress(queue.Empty):
            board.pass_on(*self._reports.get(timeout=_TICK))
            while True:
                board.pass_on(*self._reports.get_nowait())


def current_engine(tasks: int | None = None) -> Engine:
    """The engine that was opened last, or one in this process.

    Args:
        tasks: how many there are for it: a single one needs no worker to be started.
    """
    engine = _engines[-1] if _engines else Engine(InProcess())
    return engine.at_home() if tasks is not None and tasks < 2 else engine


def _settle(
    ended: deque[Future[Any]], waiting: dict[Future[Any], Task], failures: dict[str, BaseException], board: Board
) -> Iterator[tuple[str, Any]]:
    """Take what has ended out of `waiting`, and hand out what succeeded."""
    while ended:
        future = ended.popleft()
        task = waiting.pop(future)
        error = future.exception()
        if error is None:
            board.end(task.name)
            yield task.name, future.result()
        else:
            failures[task.name] = error
            board.end(task.name, "" if isinstance(error, BrokenExecutor) else f"{task.name} failed: {error}")


def _raise_first(failures: dict[str, BaseException]) -> None:
    """One sentence for all that failed."""
    if not failures:
        return
    killed = [name for name, error in failures.items() if isinstance(error, BrokenExecutor)]
    if killed:
        raise EngineError(
            "A worker process was killed",
            got=f"{len(killed)} tasks without an end, {killed[0]} among them",
            next_step="The same command goes on where it stopped; where memory was short, give fewer --workers.",
        )
    name, error = next(iter(failures.items()))
    if not isinstance(error, GravityError):
        error.add_note(name)
        raise error
    more = f" ({len(failures) - 1} other tasks failed too)" if len(failures) > 1 else ""
    raise error.about(f"{name}{more}") from error


def _forget(future: Future[Any]) -> None:
    """A worker that cannot load a module says so when it is given a task."""
    if not future.cancelled():
        future.exception()
