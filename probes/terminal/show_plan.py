"""A plan, and known lineages, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from probes.tasks.lineages import KnownLineage
from probes.tasks.plan import Place, Plan
from probes.terminal.table import DASH, plain_table


def plan_table(plan: Plan) -> Table:
    """Memory and time here and on a common GPU; download and disk in the caption."""
    table = plain_table(
        f"{plan.lineage} · {plan.parameters / 1e9:.2f} billion parameters, {plan.layers} layers × {plan.d_model} · "
        f"{plan.checkpoints} checkpoints, {plan.shams} shams"
    )
    table.add_column("machine")
    for name in ("precision", "memory", "of", "at a time", "host", "measure", "evaluate"):
        table.add_column(name, justify="right", no_wrap=True)
    for place in (plan.this_machine, plan.gpu):
        table.add_row(*_cells(place))
    room = "" if plan.free_bytes > plan.run_bytes + plan.download_bytes else " — not enough"
    table.caption = Text(
        f"To fetch: {_size(plan.download_bytes)}; run folder: {_size(plan.run_bytes)}; free here: "
        f"{_size(plan.free_bytes)}{room}. A recorded path: {_size(plan.path_step_bytes)} a step, of LoRA (rank 16) "
        f"{_size(plan.path_step_bytes_lora)}. {plan.prompts[0]} probe and {plan.prompts[1]} evaluation prompts. "
        "Estimates from the configuration alone, good to about a factor of two.",
        "dim",
    )
    return table


def lineage_table(known: Sequence[KnownLineage]) -> Table:
    """Public models with their base and their instruction-tuned partner."""
    table = plain_table(f"{len(known)} public models whose history is known")
    for name in ("model", "base", "SFT"):
        table.add_column(name, overflow="fold")
    for entry in known:
        table.add_row(entry.model, entry.base, entry.sft or DASH)
    table.caption = Text("Each was checked against a public card; the sources are in data/lineages/known.toml.", "dim")
    return table


def _cells(place: Place) -> list[str]:
    room = DASH if place.available_bytes is None else _size(place.available_bytes)
    memory = _size(place.memory_bytes) + ("" if place.fits is not False else " (too large)")
    times = [_time(place.measure_seconds), _time(place.evaluate_seconds)]
    return [place.name, place.precision, memory, room, str(place.workers), _size(place.host_bytes), *times]


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
