"""Fine-tuning: what the watch saw, and arms side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from probes.terminal.table import ARM_STYLE, DASH, number, plain_table, share

_WAY_COLUMNS = ("step", "return", "Δ", "harm", "over", "KL", "‖ΔW‖")
THIRDS = tuple(f"{kept}_{third}" for kept in ("keep", "drop") for third in ("first", "middle", "last"))
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


def has_changes(outcome: Mapping[str, Any]) -> bool:
    """Whether a run says where its arms changed the model."""
    return any(row["probe_harmful"]["mean"] is not None for row in outcome["arms"])


def changes_table(outcome: Mapping[str, Any]) -> Table:
    """Where each arm changed the model, mean ± standard deviation over runs or seeds; thirds where they were read."""
    table = plain_table(f"Where the model changed, layer {outcome['layer']}, mean ± sd over {outcome['unit']}s")
    table.add_column("arm", overflow="fold")
    for name in _change_columns(outcome):
        table.add_column(name, justify="right", no_wrap=True)
    for row in outcome["arms"]:
        table.add_row(Text(row["arm"], ARM_STYLE.get(row["arm"], "")), *_change_cells(outcome, row))
    table.caption = Text(_change_caption(outcome), "dim")
    return table


def changes_markdown(outcome: Mapping[str, Any]) -> str:
    """The same table in Markdown."""
    columns = _change_columns(outcome)
    lines = [
        f"| arm | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
        *(f"| {row['arm']} | {' | '.join(_change_cells(outcome, row))} |" for row in outcome["arms"]),
    ]
    return "\n".join([*lines, "", _change_caption(outcome)])


def _has_thirds(outcome: Mapping[str, Any]) -> bool:
    return any(row[f"{THIRDS[0]}_refusal"]["mean"] is not None for row in outcome["arms"])


def _change_columns(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    thirds = tuple(f"{sign}{number}" for sign in "+−" for number in (1, 2, 3)) if _has_thirds(outcome) else ()
    return ("guarded", "others", "probe", "refuse", "changed", *thirds)


def _change_cells(outcome: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    cells = [
        *(_mean_sd(row[name], _short) for name in ("motion_guarded", "motion_unguarded")),
        *(share(row[name]["mean"]) for name in ("probe_harmful", "refusal_harmful")),
        row["changed"] or DASH,
    ]
    if not _has_thirds(outcome):
        return cells
    return [*cells, *(_third(row[f"{third}_return"]["mean"], row[f"{third}_refusal"]["mean"]) for third in THIRDS)]


def _third(value: float | None, refusal: float | None) -> str:
    return DASH if refusal is None else f"{_short(value)} {100 * refusal:.0f}"


def _change_caption(outcome: Mapping[str, Any]) -> str:
    seen, refused = (share(outcome["aligned"].get(name)) for name in ("probe_harmful", "refusal_harmful"))
    thirds = (
        " +1 to +3: the first, middle or last third of the update alone; −1 to −3: all but it (return, refusals in %)."
        if _has_thirds(outcome)
        else ""
    )
    return (
        "guarded, others: ‖δ‖ / ‖v_rev‖, mean over the layers of a guard, and over all others; probe: harmful prompts "
        f"that the aligned model's probe still takes for harmful ({seen} before); refuse: requests refused ({refused} "
        f"before); changed: what a fall of refusals goes with.{thirds}"
    )


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
    behind = f" Left out, since the task's loss never fell: {', '.join(equal['behind'])}." if equal["behind"] else ""
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
