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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip benchmarks that are not asked for before any of their fixtures is set up: those take minutes."""
    if not config.getoption("benchmark_disable") or config.getoption("benchmark_enable"):
        return
    skip = pytest.mark.skip(reason="a benchmark; run it with: pytest tests/benchmarks --benchmark-enable")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(skip)


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
