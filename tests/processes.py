"""Processes whose libraries are loaded already: they start at once, have their own output, and can be killed.

One server process a session loads the libraries; every process is a fork of it, so that nothing of the test's own
process, and nothing of an earlier one, is in it.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

from probes.engine import processes as engine

LOADED = (
    *("torch", "transformers.trainer", "transformers.models.llama.modeling_llama", "transformer_lens", "peft"),
    *("pandas", "pyarrow.parquet", "sklearn.linear_model", "rich.progress", "probes.cli"),
    *(f"probes.tasks.{task}" for task in ("arms", "chat_demo", "demo", "evaluate", "fit", "measure")),
)
_PATIENCE = 300  # seconds
# A process has one such server, which the program's own workers are forks of too: whoever starts it loads all of this.
engine._LIBRARIES = LOADED


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LOADED])
    return context


def _begin(place: str, folder: str, environment: Mapping[str, str], target: Callable[..., Any], words: Any) -> None:
    for name, descriptor in (("output", 1), ("errors", 2)):
        os.dup2(os.open(f"{place}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    gc.freeze()  # the libraries: a trainer looks through all that is not
    target(*words)


def _start(place: str, target: Callable[..., Any], *words: Any, **options: Any) -> ForkServerProcess:
    folder, environment = str(options.get("folder") or Path.cwd()), {**os.environ, **options.get("environment", {})}
    process = _context().Process(target=_begin, args=(place, folder, environment, target, words))
    process.start()
    return process


def run(target: Callable[..., Any], *words: Any, **options: Any) -> CompletedProcess[str]:
    """Run `target(*words)` to its end, in `folder` and with more `environment` where given; what it printed as text."""
    with TemporaryDirectory() as place:
        process = _start(place, target, *words, **options)
        process.join(_PATIENCE)
        process.kill()
        process.join()
        output, errors = ((Path(place) / name).read_text(encoding="utf-8") for name in ("output", "errors"))
        return CompletedProcess([*words], process.exitcode, output, errors)


def kill(target: Callable[..., Any], *words: Any, when: Callable[[], bool]) -> int:
    """Run `target(*words)` and kill it as soon as `when()`; returns its exit code, −9 unless it ended before."""
    with TemporaryDirectory() as place:
        process = _start(place, target, *words)
        ends = time.monotonic() + _PATIENCE
        while not when() and process.is_alive() and time.monotonic() < ends:
            time.sleep(0.005)
        process.kill()
        process.join()
        return process.exitcode


def gravity_probe(*words: object) -> None:
    """The command, as a target."""
    sys.argv = ["gravity-probe", *map(str, words)]
    from probes.cli import main

    main()


def module(name: str, *words: object) -> None:
    """A module that is run by its name, as a target."""
    sys.argv = [name, *map(str, words)]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
