"""Collects what the benchmarks measure and prints it as the table that the README shows."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROWS = pytest.StashKey[list[tuple[str, str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture(autouse=True)
def _only_when_asked_for(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("benchmark_disable") and not request.config.getoption("benchmark_enable"):
        pytest.skip("a benchmark; run it with: pytest tests/benchmarks --benchmark-enable")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Adds a row (what was measured, the result, the target) to the table printed at the end."""
    rows = request.config.stash[ROWS]
    return lambda quantity, result, target: rows.append((quantity, result, target))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line("| measured | result | target |")
    terminalreporter.write_line("|---|---:|---:|")
    for row in rows:
        terminalreporter.write_line(f"| {' | '.join(row)} |")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "transformer-lens"))
    terminalreporter.write_line(f"\n{_processor()}, Python {platform.python_version()}, {versions}.")


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} thread(s)"
