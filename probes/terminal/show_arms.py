"""Fine-tuning: what the watch saw, and arms side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from probes.terminal.table import ARM_STYLE, DASH, number, plain_table, share

_ARM_COLUMNS = ("align", "return", "harm", "over", "task", "cost", "spec.")


def readings_table(readings: Sequence[Mapping[str, Any]], out: str) -> Table:
    """What the watch saw while a model was trained."""
    table = plain_table(f"Fine-tuned into {out}")
    for name in ("step", "alignment", "return", "off-axis", "refusal score"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in readings:
        numbers = (row[name] for name in ("alignment", "return_fraction", "off_axis", "refusal_score"))
        table.add_row(str(row["step"]), *map(number, numbers))
    return table


def experiment_table(outcome: Mapping[str, Any]) -> Table:
    """Arms side by side at the last step, mean ± standard deviation over runs or seeds."""
    table = plain_table(f"Arms at the last step, layer {outcome['layer']}, mean ± sd over {outcome['unit']}s")
    table.add_column("arm", overflow="fold")  # the only cells that may take two lines
    for name in ("n", *_ARM_COLUMNS):
        table.add_column(name, justify="right", no_wrap=True)
    for row in outcome["arms"]:
        mark = " *" if row["finding"] else ""
        arm = Text(row["arm"] + mark, ARM_STYLE.get(row["arm"], ""))
        table.add_row(arm, str(row["trainings"]), *_arm_cells(row))
    table.caption = Text(_arm_caption(outcome), "dim")
    return table


def experiment_markdown(outcome: Mapping[str, Any]) -> str:
    """The same table in Markdown, with the interval of the harm's change against the baseline."""
    lines = [
        "| arm | n | " + " | ".join([*_ARM_COLUMNS, "harm − baseline"]) + " |",
        "|---|" + "---:|" * (len(_ARM_COLUMNS) + 2),
    ]
    for row in outcome["arms"]:
        mark = " *" if row["finding"] else ""
        change = DASH if row["arm"] == "baseline" else _interval(row["harm_change"])
        cells = [f"{row['arm']}{mark}", str(row["trainings"]), *_arm_cells(row), change]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _arm_caption(outcome)])


def _arm_cells(row: Mapping[str, Any]) -> list[str]:
    numbers = [_mean_sd(row[name], _short) for name in ("alignment", "return_fraction")]
    shares = [_mean_sd(row[name], share) for name in ("harmful_compliance", "over_refusal")]
    cost = row["task_cost"]["mean"]
    shown = DASH if cost is None else f"{100 * cost:.1f} %".replace("-", "−")
    return [*numbers, *shares, number(row["task_loss"]["mean"]), shown, _short(row["specificity"])]


def _arm_caption(outcome: Mapping[str, Any]) -> str:
    before = share(outcome["aligned"].get("harmful_compliance"))
    return (
        f"n: trainings; harm: harmful requests complied with ({before} before); over: harmless ones refused; cost: "
        "share of the baseline's task gain given up; spec.: share of the full anchor's prevention. "
        "*: geometry held, behaviour lost"
    )


def _interval(change: Mapping[str, Any]) -> str:
    if change["mean"] is None:
        return DASH
    low, middle, high = (f"{100 * change[name]:+.0f}".replace("-", "−") for name in ("low", "mean", "high"))
    return f"{middle} ({low} to {high})"


def _mean_sd(spread: Mapping[str, Any], show: Callable[[float | None], str]) -> str:
    mean = show(spread["mean"])
    return mean if spread["sd"] is None else f"{mean.removesuffix(' %')} ± {show(spread['sd'])}"


def _short(value: float | None) -> str:
    return DASH if value is None or value != value else f"{value:.2f}".replace("-", "−")
