"""From what `--workers` says to an engine."""

from __future__ import annotations

import importlib
from types import ModuleType

from probes.engine.driver import Engine, InProcess
from probes.engine.worker import threads_of_user
from probes.errors import UsageError

Option = int | float | str
_LIBRARIES = {"slurm": "submitit", "ray": "ray"}


def open_engine(workers: int | str | None = None) -> Engine:
    """The engine that does tasks in so many processes, or on a cluster; use it as a context.

    Args:
        workers: None does tasks in this process, with torch's own number of threads. Otherwise each task has
            `OMP_NUM_THREADS` threads, or one. A number: in as many new processes, or in this one where it is 1.
            `slurm[:NAME=VALUE,...]`: as jobs, with the options of submitit (`probes.engine.slurm`).
            `ray[:ADDRESS][,NAME=VALUE...]`: as tasks of Ray (`probes.engine.ray`).

    Raises:
        UsageError: fewer than one, nothing of that name, a library is not installed, or an option is unknown.
    """
    if workers is None:
        return Engine(InProcess())
    name, _, text = str(workers).partition(":")
    threads = threads_of_user()
    if name == "slurm":
        on_slurm = _module(name).SlurmExecutor(_options(text))
        return Engine(on_slurm, threads=threads, batch=on_slurm.batch)
    if name == "ray":
        address, text = _address(text)
        on_ray = _module(name).RayExecutor(address, {"num_cpus": threads, **_options(text)})
        return Engine(on_ray, threads=threads, reports=on_ray.reports)
    count = _count(str(workers))
    if count == 1:
        return Engine(InProcess(), threads=threads)
    from probes.engine.processes import Processes

    pool = Processes(count)
    return Engine(pool, threads=threads, reports=pool.reports)


def _count(text: str) -> int:
    if not text.removeprefix("-").isdecimal():
        expected = "a number, slurm[:NAME=VALUE,...] or ray[:ADDRESS]"
        raise UsageError("There are no such workers", got=repr(text), expected=expected)
    if int(text) < 1:
        raise UsageError("There must be a worker", got=text, expected="1 or more")
    return int(text)


def _module(name: str) -> ModuleType:
    """The adapter of a library that need not be there."""
    try:
        return importlib.import_module(f"probes.engine.{name}")
    except ModuleNotFoundError as error:
        if error.name != _LIBRARIES[name]:
            raise
        raise UsageError(
            f"--workers {name} needs {_LIBRARIES[name]}, which is not installed",
            next_step=f"Install it with pip install 'gravity-probe[{name}]'.",
        ) from error


def _address(text: str) -> tuple[str | None, str]:
    """An address, where there is one, and the options behind it."""
    first, _, options = text.partition(",")
    return (None, text) if "=" in first else (first or None, options)


def _options(text: str) -> dict[str, Option]:
    """`NAME=VALUE,...` as a mapping, numbers as such."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    bare = [name for name, sign, value in pairs if not (name and sign and value)]
    if bare:
        raise UsageError("Options of --workers are NAME=VALUE, with commas between", got=repr(bare[0]))
    return {name: _value(value) for name, _, value in pairs}


def _value(text: str) -> Option:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
