"""Tasks as tasks of Ray, which starts them where there is room and again where a worker was lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.queue import Queue

from probes.engine.board import EngineError
from probes.engine.worker import Attempt, attempt, listen_with
from probes.errors import GravityError, UsageError

_OPTIONS = ("num_cpus", "num_gpus", "memory_gb", "max_retries")
_RETRIES = 3  # of a task whose worker or node was lost; a refusal is not tried again


class RayExecutor(Executor):
    """Tasks on this machine, or on the cluster that an address names.

    Attributes:
        reports: the queue on which workers report steps.
    """

    def __init__(self, address: str | None, options: Mapping[str, Any]) -> None:
        """Start Ray on this machine, or join a cluster.

        Args:
            address: of the cluster; `auto` is the one that this machine belongs to; None starts one here.
            options: what each task takes up, `num_cpus`, `num_gpus` (1 where the cluster has any) and `memory_gb`; and
                `max_retries` after its worker was lost.

        Raises:
            UsageError: there is no cluster at that address, or an option is unknown.
        """
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise UsageError("--workers ray has no such option", got=unknown[0], expected=", ".join(_OPTIONS))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here tells nobody
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            next_step = "Start one with ray start --head, or leave out the address."
            raise UsageError("There is no Ray cluster", got=address, next_step=next_step) from error
        self.reports = Queue(actor_options={"num_cpus": 0})
        declared = {"num_gpus": int(ray.cluster_resources().get("GPU", 0) > 0), "max_retries": _RETRIES, **options}
        if "memory_gb" in declared:
            declared["memory"] = declared.pop("memory_gb") * 1e9
        self._do = ray.remote(_do).options(**declared)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Give it to Ray."""
        future: Future[Any] = Future()
        reference = self._do.remote(self.reports, os.getcwd(), partial(fn, *args, **kwargs))
        log = f"ray logs task --id {reference.task_id().hex()}"
        reference.future().add_done_callback(partial(_settle, future, log))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - none goes on
        """Leave the cluster, which ends our tasks; one that was started here ends."""
        ray.shutdown()


def _do(reports: Queue, folder: str, call: Callable[[], Any]) -> Attempt:
    os.chdir(folder)  # workers begin where Ray was started, and a lineage may name folders from here
    listen_with(reports)
    return attempt(call)


def _settle(future: Future[Any], log: str, ended: Future[Attempt]) -> None:
    error = ended.exception()
    if error is None:
        result, refusal = ended.result()
        error = refusal
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(_failure(error, log))


def _failure(error: BaseException, log: str) -> BaseException:
    """A refusal, what nobody foresaw, or a lost worker, with where its log is."""
    if isinstance(error, GravityError):
        return error.with_log(log)
    if isinstance(error, RayTaskError):
        error.cause.add_note(f"the log that `{log}` shows")
        return error.cause
    if isinstance(error, RayError):
        next_step = "The same command goes on where it stopped."
        return EngineError("Its worker was lost", got=type(error).__name__, next_step=next_step).with_log(log)
    return error
