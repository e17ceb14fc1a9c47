"""What a process that does tasks has to itself: their number of threads, one model, and where it reports steps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from probes.engine.board import Task
from probes.errors import GravityError
from probes.progress import Progress, Report

Model = TypeVar("Model")
Attempt = tuple[Any, GravityError | None]
_model: list[tuple[Any, Any]] = []  # the model that tasks of this process share, behind its key
_reports: Any = None  # where the steps of tasks are put; None where nobody listens


def listen_with(reports: Any) -> None:
    """From now on, put the steps of this process's tasks on this queue."""
    global _reports
    _reports = reports


def do_task(task: Task, threads: int | None, report: Report) -> Any:
    """Do a task with its number of threads."""
    with limit_threads(threads):
        return task.work(report)


def do_for_driver(task: Task, threads: int | None) -> Any:
    """Do a task of another process, and report its steps there."""

    def report(progress: Progress) -> None:
        if _reports is not None:
            _reports.put((task.name, progress))

    return do_task(task, threads, report)


def attempt(call: Callable[[], Any]) -> Attempt:
    """What a call returns, or why it refuses: what carries errors between machines leaves of them no more than text."""
    try:
        return call(), None
    except GravityError as error:
        return None, error


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


def threads_of_user() -> int:
    """`OMP_NUM_THREADS`, or one."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


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
