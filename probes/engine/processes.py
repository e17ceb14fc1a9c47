"""Tasks in new processes of this machine, which hold one model each."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from multiprocessing.context import BaseContext
from typing import Any

from probes.engine.worker import listen_with

# Slow to load, and needed by every worker. Of transformers, what the module of any decoder begins with.
_LIBRARIES = (
    *("torch", "transformers.models.llama.modeling_llama", "pandas", "pyarrow.parquet", "scipy.stats"),
    *("probes.models", "probes.run", "probes.behaviour.evaluation", "probes.behaviour.ask"),
)


class Processes(ProcessPoolExecutor):
    """A pool whose workers report steps, and end with their parent.

    Attributes:
        reports: the queue on which they do.
    """

    def __init__(self, workers: int) -> None:
        """Start none yet; but on Linux, what they fork from begins to load while this process does its own."""
        context = _context()
        if context.get_start_method() == "forkserver":
            from multiprocessing import forkserver  # there is none on Windows

            forkserver.ensure_running()
        self.reports: Any = context.Queue()
        super().__init__(workers, mp_context=context, initializer=_begin, initargs=(self.reports,))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let no process remain."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self.reports.close()


def _context() -> BaseContext:
    """New processes that share no state with this one; on Linux forks of a server that has loaded the libraries once.

    Elsewhere system libraries do not survive a fork. None of what is loaded asks for a GPU.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([*_LIBRARIES])
    return context


def _begin(reports: Any) -> None:
    gc.freeze()  # what was loaded ahead of the fork is no garbage, and a trainer looks through all that is not frozen
    listen_with(reports)
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
