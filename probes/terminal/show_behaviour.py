"""What models say: rates by checkpoint, paired differences, flips, and a checkpoint restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from probes.behaviour.evaluation import name_judges
from probes.statistics import CORRECTED
from probes.terminal.table import ARM_STYLE, DASH, number, plain_table, share

if TYPE_CHECKING:
    from probes.run import Run

_FLIPS_SHOWN = 3
_CONTRASTED = {"harmful_compliance": "harm", "over_refusal": "over-refusal", "task_loss": "task"}
_MEASURES = (
    "refuse, comply: of harmful requests; over: refusals of look-alikes; harmless: of other harmless requests; "
    "noise: incoherent; score: log odds of a refusal on harmful requests; task: nats per token"
)


def behaviour_tables(run: Run) -> Iterator[Table]:
    """An evaluated run: rates by checkpoint, what changed against the aligned model and the baseline, flips."""
    judges, rates = run.read_json("judges"), run.read_table("behaviour")
    table = _rates_table("Behaviour of every checkpoint", rates.to_dict("records"))
    notes = [f"judged by {name_judges(judges)}"]
    notes += [
        f"kappa of {agreement['one']} and {agreement['other']}: {number(agreement['kappa'])}{_because(agreement)}"
        for agreement in judges["kappa"]
    ]
    table.caption = Text("; ".join(notes) + ". " + _MEASURES, "dim")
    yield table
    corrected = rates[rates["measure"].str.startswith(CORRECTED)]
    if len(corrected):
        yield _corrected_table(corrected.to_dict("records"))
    yield _contrasts_table(run.read_table("contrasts").to_dict("records"))
    yield _flips_table(run.read_table("flips").to_dict("records"))


def _corrected_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rates corrected for the judge's known errors, with their intervals."""
    table = plain_table("The same rates corrected for the judge's known errors, 95 % interval")
    table.add_column("checkpoint", no_wrap=True)
    columns = {"refuse": "refusal_harmful", "comply": "harmful_compliance", "over": "over_refusal"}
    columns["harmless"] = "refusal_harmless"
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    cells = {(row["checkpoint"], row["measure"]): _interval(row) for row in rows}
    for checkpoint in dict.fromkeys(row["checkpoint"] for row in rows):
        shown = (cells.get((checkpoint, f"{CORRECTED}{measure}"), DASH) for measure in columns.values())
        table.add_row(checkpoint, *shown)
    table.caption = Text(
        "Rogan-Gladen, Lang-Reiczigel; the judge's errors as counted on 450 answers that people labelled (XSTest). "
        "not defined: the corrected rate would lie outside 0 to 100 %.",
        "dim",
    )
    return table


def _interval(row: Mapping[str, Any]) -> str:
    if row["value"] is None or row["value"] != row["value"]:
        return "not defined"
    return f"{share(row['value'])} ({100 * row['low']:.0f} to {100 * row['high']:.0f})"


def restoration_tables(restoration: Mapping[str, Any]) -> Iterator[Table]:
    """A restored checkpoint: what was removed, and behaviour before and after where it was judged."""
    table = plain_table(f"Restored ({restoration['form']}, strength {restoration['strength']:g}): {restoration['out']}")
    for name in ("‖drift‖ before", "‖drift‖ left", "tensors that had moved", "of them emptied"):
        table.add_column(name, justify="right")
    numbers = (restoration["drift"], restoration["left"])
    table.add_row(*map(number, numbers), str(restoration["tensors_moved"]), str(restoration["tensors_emptied"]))
    table.caption = Text(
        "emptied: alignment moved the tensor in every direction, so nothing of its drift is left", "dim"
    )
    yield table
    if restoration["behaviour"]:
        yield _rates_table("Before and after", restoration["behaviour"])
        yield _contrasts_table(restoration["contrasts"])


def _rates_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rates by checkpoint, one column a measure."""
    table = plain_table(title)
    table.add_column("checkpoint", no_wrap=True)
    names = ("refuse", "comply", "over", "harmless", "noise", "unjudged", "score", "task")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    by_checkpoint: dict[str, dict[str, float]] = {}
    for row in rows:
        by_checkpoint.setdefault(row["checkpoint"], {})[row["measure"]] = row["value"]
    for checkpoint, values in by_checkpoint.items():
        shares = [
            share(values.get(name))
            for name in (
                "refusal_harmful",
                "harmful_compliance",
                "over_refusal",
                "refusal_harmless",
                "incoherent",
                "unjudged",
            )
        ]
        table.add_row(
            checkpoint, *shares, *(number(values.get(name)) for name in ("refusal_score_harmful", "task_loss"))
        )
    return table


def _contrasts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The paired differences that most turn on, at the last step of each trajectory."""
    table = plain_table("Differences on the same prompts at the last step, 95 % interval (task: 90 %, TOST)")
    table.add_column("arm", no_wrap=True)
    for name in ("step", "against", "of", "difference", "interval", "p", "n"):
        table.add_column(name, justify="left" if name in ("against", "of") else "right", no_wrap=True)
    last = _last_steps(rows)
    for row in rows:
        if row["measure"] in _CONTRASTED and row["step"] == last[row["arm"], row["seed"]]:
            table.add_row(*_contrast(row))
    table.caption = Text(
        "harm: harmful requests complied with. p: McNemar exact; for the task, of a cost as large as the margin. "
        "all: over the runs. Every step and measure: contrasts.parquet.",
        "dim",
    )
    return table


def _contrast(row: Mapping[str, Any]) -> tuple[Text, ...]:
    arm = f"{row['arm']} s{row['seed']}" if row["seed"] >= 0 else f"{row['arm']} all"
    cells = (
        str(row["step"]),
        row["against"],
        _CONTRASTED[row["measure"]],
        number(row["difference"]),
        f"{number(row['low'])} to {number(row['high'])}",
        DASH if row["p"] is None or row["p"] != row["p"] else f"{row['p']:.2g}",
        str(row["n"]),
    )
    return Text(arm, ARM_STYLE.get(row["arm"], "")), *map(Text, cells)


def _flips_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The first harmful prompts that the aligned model refused and the last step of each trajectory answers."""
    last = _last_steps(rows)
    lost = [
        row
        for row in rows
        if row["flip"] == "lost" and row["label"] == "harmful" and row["step"] == last[row["arm"], row["seed"]]
    ]
    table = plain_table(f"Harmful requests refused before and answered at the last step: {len(lost)} in all")
    table.caption = Text("Every flip of every step: flips.parquet.", "dim")
    for name in ("checkpoint", "prompt", "answer now"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=None if name == "checkpoint" else 1)
    seen: dict[str, int] = {}
    for row in lost:
        seen[row["checkpoint"]] = seen.get(row["checkpoint"], 0) + 1
        if seen[row["checkpoint"]] <= _FLIPS_SHOWN:
            cells = (" ".join(str(row[name]).split()) for name in ("text", "after"))
            table.add_row(row["checkpoint"], *map(Text, cells))
    return table


def _last_steps(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], int]:
    """The last step of each trajectory by arm and seed."""
    last: dict[tuple[str, int], int] = {}
    for row in rows:
        last[row["arm"], row["seed"]] = max(row["step"], last.get((row["arm"], row["seed"]), 0))
    return last


def _because(row: Mapping[str, Any]) -> str:
    return f" ({row['reason']})" if row["reason"] else ""
