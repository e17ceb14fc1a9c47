"""Settings of the whole suite: one thread a process, no network, no telemetry."""

import functools
import gc
import os
import sys
import warnings
from collections.abc import Iterator

import pytest
import typer.testing

from tests.type_checks import check_shapes_where_there_are_any

# Before anything imports torch: two workers with two threads each on two cores run ten times slower.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("STREAMLIT_BROWSER_GATHER_USAGE_STATS", "false")
_MAIN = sys.modules["__main__"]
# Nothing that is imported before the first test is garbage, and looking for some takes seconds.
gc.disable()
# No test sees whether the disk has what the system holds (a killed process loses none of it), and waiting takes long.
REAL_FSYNC = os.fsync
os.fsync = lambda _: None
# Ahead of the first module that is checked.
check_shapes_where_there_are_any()
# The parser of all verbs is made anew at each call, in a tenth of a second; it is the same one.
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the real model, then the files with slow tests: one process would else wait for another at the end."""
    real, slow = ({item.path for item in items if item.get_closest_marker(name)} for name in ("real_model", "slow"))
    items.sort(key=lambda item: (item.path not in real, item.path not in slow))


@pytest.fixture(autouse=True, scope="module")
def libraries_set_aside() -> None:
    """Leave what is loaded by now out of the search for garbage, which Streamlit makes through all at each page."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Take back the threads that a test leaves torch with, and say so: bytes depend on them, and workers fight."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        warnings.warn(f"this test left torch with {torch.get_num_threads()} threads", stacklevel=1)
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """Take `__main__` back after a test."""
    yield
    take_main_back()


def take_main_back() -> None:
    """Undo what a page of Streamlit does: it leaves its own `__main__`, which spawned processes run and die of."""
    sys.modules["__main__"] = _MAIN
