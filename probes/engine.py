"""Independent tasks on an Executor: in this process, or in processes of this machine that hold one model each.

A task takes references and returns a status; what it makes are files under their content key, so that one that is done
twice, or by two, leaves the same bytes. The number of threads belongs to the task and never to the number of workers.
A task that fails leaves the others at work. Whoever drives the tasks keeps the lock and the manifest.

How many workers there are changes no result, so it is no argument of what is computed: `with open_engine(2):`.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, TypeVar

from probes.errors import GravityError, UsageError
from probes.progress import Progress, Report, silent

Model = TypeVar("Model")
_LIBRARIES = ("torch", "transformers", "transformer_lens", "peft", "pandas", "sklearn")  # slow to load
_TICK = 0.2  # seconds between looks at what has ended
_reports: Any = None  # in a worker: where its steps are reported
_engines: list[Engine] = []  # those that are open, the current one last
_model: list[tuple[Any, Any]] = []  # the model that tasks of this process share, behind its key


class EngineError(GravityError):
    """Tasks that could not be brought to their end."""


@dataclass(frozen=True)
class Task:
    """One piece of work that needs no other of its kind.

    Attributes:
        name: what it is called where it fails.
        work: is given a report; to be done in another process it must be picklable, as must what it returns.
    """

    name: str
    work: Callable[[Report], Any]


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
    """

    def __init__(self, executor: Executor, *, threads: int | None = None, reports: Any = None) -> None:
        """Take an executor.

        Args:
            executor: where tasks are done.
            threads: of each task; None leaves torch's own number.
            reports: a queue on which workers report their steps; None where they cannot.
        """
        self._executor, self._threads, self._reports = executor, threads, reports
        self.in_process = isinstance(executor, InProcess)

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
        if self._reports is not None:
            self._reports.close()

    def at_home(self) -> Engine:
        """An engine that does the same tasks in this process, with the same number of threads."""
        return Engine(InProcess(), threads=self._threads)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Compute with a task's number of threads while open, also outside of tasks."""
        return limit_threads(self._threads)

    def prepare(self, module: str, tasks: int) -> None:
        """Start the workers for so many tasks, and let them load a module meanwhile."""
        for _ in range(0 if self.in_process or tasks < 2 else tasks):
            self._executor.submit(importlib.import_module, module).add_done_callback(_forget)

    def complete(self, tasks: Sequence[Task], report: Report = silent) -> Iterator[tuple[str, Any]]:
        """Do tasks, and hand out the name and the result of each as it ends, in whatever order they do.

        Args:
            tasks: each of another name.
            report: told where they are, and at once of each that failed.

        Raises:
            GravityError: once all others have ended, what the first of those that failed was refused for, with its
                name.
            EngineError: a worker was killed.
        """
        board = _Board(len(tasks), report, alone=self.in_process)
        waiting: dict[Future[Any], Task] = {}
        failures: dict[str, BaseException] = {}
        for task in tasks:
            waiting[self._submit(task, board)] = task
            yield from _settle(waiting, failures, board)
        while waiting:
            self._listen(board)
            yield from _settle(waiting, failures, board)
        if self.in_process:
            release_model()
        _raise_first({task.name: failures[task.name] for task in tasks if task.name in failures})

    def _submit(self, task: Task, board: _Board) -> Future[Any]:
        if self.in_process:
            return self._executor.submit(_work, task, self._threads, partial(board.pass_on, task.name))
        try:
            return self._executor.submit(_work_in_worker, task, self._threads)
        except BrokenExecutor as error:  # a worker was killed while there was nothing to do
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def _listen(self, board: _Board) -> None:
        """Pass on what workers report until they are silent for a moment."""
        if self._reports is None:
            threading.Event().wait(_TICK)
            return
        with contextlib.suppress(queue.Empty):
            board.pass_on(*self._reports.get(timeout=_TICK))
            while True:
                board.pass_on(*self._reports.get_nowait())


def open_engine(workers: int | None = None) -> Engine:
    """The engine of a number of workers; use it as a context.

    Args:
        workers: None does tasks in this process, with torch's own number of threads. With a number, each task has
            `OMP_NUM_THREADS` threads, or one: in as many new processes, or in this one where it is 1.

    Raises:
        UsageError: fewer than one.
    """
    if workers is None:
        return Engine(InProcess())
    if workers < 1:
        raise UsageError("There must be a worker", got=workers, expected="1 or more")
    threads = _threads_of_user()
    if workers == 1:
        return Engine(InProcess(), threads=threads)
    context = _context()
    reports = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(reports,))
    return Engine(pool, threads=threads, reports=reports)


def _context() -> BaseContext:
    """New processes that share no state with this one; on Linux forks of a server that has loaded the libraries once.

    Elsewhere system libraries do not survive a fork. None of what is loaded asks for a GPU.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([*_LIBRARIES])
    return context


def _threads_of_user() -> int:
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """So many threads of torch and of numpy's algebra while open, on which the last bits of sums depend."""
    if threads is None:
        yield
        return
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def hold_model(key: Any, load: Callable[[], Model]) -> Model:
    """The model that tasks of this process share: loaded once, and given up before another one is.

    Args:
        key: says which model it is.
        load: opens it.
    """
    if not (_model and _model[0][0] == key):
        release_model()
        _model.append((key, load()))
    return _model[0][1]


def release_model() -> None:
    """Give up the model that tasks of this process share."""
    _model.clear()


def current_engine(tasks: int | None = None) -> Engine:
    """The engine that was opened last, or one in this process.

    Args:
        tasks: how many there are for it: a single one needs no worker to be started.
    """
    engine = _engines[-1] if _engines else Engine(InProcess())
    return engine.at_home() if tasks is not None and tasks < 2 else engine


class _Board:
    """Turns the steps of tasks that are done at the same time into one progress."""

    def __init__(self, tasks: int, report: Report, *, alone: bool) -> None:
        self._tasks, self._report, self._alone = tasks, report, alone
        self._running: dict[str, float] = {}
        self._ended: set[str] = set()
        self._failed = 0
        self._last = Progress("", 0, tasks)

    def pass_on(self, name: str, progress: Progress) -> None:
        if name not in self._ended:
            self._running[name] = progress.share
        self._last = progress
        self._tell()

    def end(self, name: str, failure: str = "") -> None:
        self._running.pop(name, None)
        self._ended.add(name)
        self._failed += bool(failure)
        self._tell(failure)

    def _tell(self, failure: str = "") -> None:
        ended, last = len(self._ended), self._last
        fraction = min(1.0, (ended + sum(self._running.values())) / self._tasks)
        step, steps, note = last.step, last.steps, last.note
        if not self._alone:
            failed = f"{self._failed} failed, " if self._failed else ""
            step, steps, note = ended, self._tasks, f"{ended - self._failed} done, {failed}{len(self._running)} running"
        self._report(Progress(last.phase, step, steps, note, fraction, failure))


def _settle(
    waiting: dict[Future[Any], Task], failures: dict[str, BaseException], board: _Board
) -> Iterator[tuple[str, Any]]:
    """Take what has ended out of `waiting`, and hand out what succeeded."""
    for future in [future for future in waiting if future.done()]:
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


def _work(task: Task, threads: int | None, report: Report) -> Any:
    with limit_threads(threads):
        return task.work(report)


def _work_in_worker(task: Task, threads: int | None) -> Any:
    def report(progress: Progress) -> None:
        if _reports is not None:
            _reports.put((task.name, progress))

    return _work(task, threads, report)


def _forget(future: Future[Any]) -> None:
    """A worker that cannot load a module says so when it is given a task."""
    if not future.cancelled():
        future.exception()


def _begin(reports: Any) -> None:
    global _reports
    _reports = reports
    reports.cancel_join_thread()  # a driver that has failed reads no more of them
    # Ctrl-C reaches the whole process group; a worker then ends without a word of its own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker once its parent is gone: killed, it leaves nobody at work, and nobody who waits for work."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one
    connection.wait([parent.sentinel])
    os._exit(1)
