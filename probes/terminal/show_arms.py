"""Fine-tuning: what the watch saw, and arms side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from probes.experiments.experiment import BASELINE, split_way
from probes.terminal.table import ARM_STYLE, DASH, number, plain_table, share

_WAY_COLUMNS = ("step", "return", "Δ", "harm", "over", "KL", "‖ΔW‖")
_CHANGE_COLUMNS = ("guarded", "others", "probe", "refuse", "changed")
_THIRDS = tuple(f"{way}_{third}" for way in ("keep", "drop") for third in ("first", "middle", "last"))
_THIRD_COLUMNS = tuple(name.replace("_", " ") for name in _THIRDS)
_ARM_COLUMNS = ("align", "return", "harm", "over", "task", "cost", "spec.")


def readings_table(readings: Sequence[Mapping[str, Any]], out: str, caption: str = "") -> Table:
    """What the watch saw while a model was trained; the caption says what the guard and the adapters came to."""
    table = plain_table(f"Fine-tuned into {out}")
    for name in ("step", "alignment", "return", "off-axis", "refusal score"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in readings:
        numbers = (row[name] for name in ("alignment", "return_fraction", "off_axis", "refusal_score"))
        table.add_row(str(row["step"]), *map(number, numbers))
    table.caption = Text(caption, "dim") if caption else None
    return table


def describe_ranks(ranks: Mapping[str, int | float]) -> str:
    """The ranks of adapters in words."""
    least, mean, most = min(ranks.values()), sum(ranks.values()) / len(ranks), max(ranks.values())
    spread = f"{least:g} to {most:g}, mean {mean:.1f}" if least < most else f"{most:g}"
    return f"Ranks over {len(ranks)} modules: {spread}."


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


def change_tables(outcome: Mapping[str, Any]) -> list[Table]:
    """Where each arm changed the model, and what each third of its update does; none where a run does not say."""
    tables = []
    for part in _change_parts(outcome):
        table = plain_table(f"{part.title}, layer {outcome['layer']}, mean over {outcome['unit']}s")
        table.add_column("arm", overflow="fold")
        for name in part.columns:
            table.add_column(name, justify="right", no_wrap=True)
        for row in outcome["arms"]:
            table.add_row(Text(row["arm"], ARM_STYLE.get(row["arm"], "")), *part.cells(row))
        table.caption = Text(part.caption, "dim")
        tables.append(table)
    return tables


def change_markdown(outcome: Mapping[str, Any]) -> list[str]:
    """The same tables in Markdown."""
    return [
        "\n".join(
            [
                f"| arm | {' | '.join(part.columns)} |",
                "|---|" + "---:|" * len(part.columns),
                *(f"| {row['arm']} | {' | '.join(part.cells(row))} |" for row in outcome["arms"]),
                "",
                part.caption,
            ]
        )
        for part in _change_parts(outcome)
    ]


@dataclass(frozen=True)
class _Part:
    """A table of arms: its title, columns, the cells of an arm, and a caption."""

    title: str
    columns: tuple[str, ...]
    cells: Callable[[Mapping[str, Any]], list[str]]
    caption: str


def _change_parts(outcome: Mapping[str, Any]) -> list[_Part]:
    seen, refused = (share(outcome["aligned"].get(name)) for name in ("probe_harmful", "refusal_harmful"))
    caption = (
        "guarded, others: ‖δ‖ / ‖v_rev‖, mean over the layers of a guard (for arms without one, those of a block), and "
        f"over all others; probe: harmful prompts that the aligned model's probe still takes for harmful ({seen} "
        f"before); refuse: requests refused ({refused} before); changed: what the fall of refusals goes with."
    )
    parts = [_Part("Where the model changed", _CHANGE_COLUMNS, _change_cells, caption)]
    thirds = "The first, middle or last third of the update alone (keep), or all but it (drop): return, refusals."
    parts += [_Part("Thirds of the update", _THIRD_COLUMNS, _third_cells, thirds)]
    known = ("probe_harmful", f"{_THIRDS[0]}_refusal")
    return [
        part
        for part, name in zip(parts, known, strict=True)
        if any(row[name]["mean"] is not None for row in outcome["arms"])
    ]


def _change_cells(row: Mapping[str, Any]) -> list[str]:
    motions = (_mean_sd(row[name], _short) for name in ("motion_guarded", "motion_unguarded"))
    shares = (_mean_sd(row[name], share) for name in ("probe_harmful", "refusal_harmful"))
    return [*motions, *shares, row["changed"] or DASH]


def _third_cells(row: Mapping[str, Any]) -> list[str]:
    pairs = ((row[f"{third}_return"]["mean"], row[f"{third}_refusal"]["mean"]) for third in _THIRDS)
    return [DASH if refusal is None else f"{_short(value)}, {share(refusal)}" for value, refusal in pairs]


def ways_table(equal: Mapping[str, Any]) -> Table:
    """Ways of fine-tuning at equal task loss, mean ± standard deviation over seeds."""
    goals = equal["goals"].values()
    goal = f"{min(goals):.3f}" if max(goals) == min(goals) else f"{min(goals):.3f} to {max(goals):.3f}"
    table = plain_table(f"At equal task loss ({goal} nats), layer {equal['layer']}, mean ± sd over seeds")
    table.add_column("arm", overflow="fold")
    table.add_column("way", overflow="fold")
    for name in ("n", *_WAY_COLUMNS):
        table.add_column(name, justify="right", no_wrap=True)
    for row in equal["arms"]:
        table.add_row(Text(row["arm"], ARM_STYLE.get(row["arm"], "")), row["way"] or "first", *_way_cells(row))
    table.caption = Text(_way_caption(equal), "dim")
    return table


def ways_markdown(equal: Mapping[str, Any]) -> str:
    """The same table in Markdown."""
    lines = [
        "| arm | way | n | " + " | ".join(_WAY_COLUMNS) + " |",
        "|---|---|" + "---:|" * (len(_WAY_COLUMNS) + 1),
        *(f"| {row['arm']} | {row['way'] or 'first'} | {' | '.join(_way_cells(row))} |" for row in equal["arms"]),
    ]
    return "\n".join([*lines, "", _way_caption(equal)])


def _way_cells(row: Mapping[str, Any]) -> list[str]:
    steps = row["step"]["mean"]
    return [
        str(row["n"]),
        DASH if steps is None else f"{steps:.1f}",
        *(_mean_sd(row[name], _short) for name in ("return_fraction", "return_beside_first")),
        *(_mean_sd(row[name], share) for name in ("harmful_compliance", "over_refusal")),
        *(_mean_sd(row[name], number) for name in ("task_kl", "weight_drift")),
    ]


def _way_caption(equal: Mapping[str, Any]) -> str:
    behind = f" Left out, since the task's loss hardly fell: {', '.join(equal['behind'])}." if equal["behind"] else ""
    return (
        "Read where each path first falls to the loss that all have reached, linear between checkpoints (harm and over "
        "too). Δ: return less that of the first way, paired by seed; KL: aligned to tuned, nats per answer token of "
        f"the task.{behind}"
    )


def experiment_markdown(outcome: Mapping[str, Any]) -> str:
    """The same table in Markdown, with the interval of the harm's change against the baseline."""
    lines = [
        "| arm | n | " + " | ".join([*_ARM_COLUMNS, "harm − baseline"]) + " |",
        "|---|" + "---:|" * (len(_ARM_COLUMNS) + 2),
    ]
    for row in outcome["arms"]:
        mark = " *" if row["finding"] else ""
        change = DASH if split_way(row["arm"])[0] == BASELINE else _interval(row["harm_change"])
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
        "share of the task gain of the same way's baseline given up; spec.: share of the full anchor's prevention. "
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
