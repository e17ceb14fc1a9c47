"""What the terminal shows: one progress display, tables that fit 100 columns, the same words and order as the app."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.table import Table
from rich.text import Text

from probes.progress import Progress, Report
from probes.summary import Behaviour, Checkpoint, Summary, TrajectorySummary

if TYPE_CHECKING:
    from probes.store import RunFolder

ARM_STYLE = {"baseline": "#D55E00", "block": "#009E73", "push": "#CC79A7"}
_WIDTH = 100
_DASH = "–"
_FLIPS_SHOWN = 3
_CONTRASTED = {"harmful_compliance": "harm", "over_refusal": "over-refusal", "task_loss": "task"}
_MEASURES = (
    "refuse, comply: of harmful requests; over: refusals of look-alikes; harmless: of other harmless requests; "
    "noise: incoherent; score: log odds of a refusal on harmful requests; task: nats per token"
)
# Poppi and Lukas, arXiv 2606.28525, first version: the rows that a run of ours stands beside.
_PUBLISHED = (
    ("alignment after the first update", "0.429 ± 0.052"),
    ("alignment at step 20", "0.647 ± 0.021"),
    ("alignment at step 100, baseline → block", "0.648 → −0.211"),
    ("harmfulness at step 100, baseline → block", "19.0 % → 8.5 %"),
)


def console(*, stderr: bool = False) -> Console:
    """A console no wider than the tables are made for."""
    found = Console(stderr=stderr, highlight=False)
    return (
        Console(stderr=stderr, highlight=False, width=min(_WIDTH, found.width))
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, width=_WIDTH)
    )


@contextmanager
def progress_display(*, shown: bool = True) -> Iterator[Report]:
    """One line on the error stream for the whole job: phase, step, note, share done, time left."""
    bar = Bar(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24, complete_style="#0072B2", finished_style="#0072B2"),
        TaskProgressColumn(),
        TextColumn("[dim]{task.fields[where]:<22}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        disable=not shown,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=1.0, where="")

        def report(progress: Progress) -> None:
            share = progress.fraction
            if share is None:
                share = progress.step / progress.steps if progress.steps else 0.0
            where = progress.note or f"{progress.step}/{progress.steps}"
            bar.update(task, description=progress.phase[:24], completed=share, where=where[:22])

        yield report


def summary_table(summary: Summary, verdicts: Mapping[tuple[str, int], str], roles: Mapping[str, Behaviour]) -> Table:
    """Every trajectory by step at the headline layer, roles first for their behaviour."""
    layer = summary.headline_layer
    table = plain_table(f"{summary.lineage} · layer {layer} · displacement of harmful prompts from the aligned model")
    table.caption = _caption(verdicts)
    table.add_column("arm", no_wrap=True)
    for name in ("step", "align", "xfit", "DiD", "return", "off", "refuse", "over", "task"):
        table.add_column(name, justify="right", no_wrap=True)
    for role, behaviour in roles.items():
        table.add_row(role, *[_DASH] * 6, *_behaviour(behaviour))
    for trajectory in summary.trajectories:
        table.add_section()
        for position, checkpoint in enumerate(trajectory.checkpoints):
            table.add_row(_arm(trajectory) if position == 0 else "", *_cells(checkpoint, layer))
    return table


def published_table(summary: Summary) -> Table:
    """What the source reports, beside the same quantity of this run; ours is another model and another judge."""
    ours = _own_rows(summary)
    table = plain_table("Beside the published numbers (arXiv 2606.28525 v1: Llama and Qwen, 3B to 8B)")
    table.add_column("quantity")
    table.add_column("published", justify="right")
    table.add_column("this run", justify="right")
    for name, published in _PUBLISHED:
        table.add_row(name, published, ours.get(name, _DASH))
    table.caption = Text("An implementation of the published description on another model, not a reproduction.", "dim")
    return table


def verdict_lines(verdicts: Sequence[Mapping[str, object]]) -> Table:
    """Each trajectory's verdict in words."""
    table = Table(box=box.SIMPLE_HEAD, width=_WIDTH, pad_edge=False, show_header=False, show_lines=False)
    table.add_column("arm", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("text")
    for verdict in verdicts:
        arm = str(verdict["arm"])
        name = Text(f"{arm}, seed {verdict['seed']}", ARM_STYLE.get(arm, ""))
        table.add_row(name, f"level {verdict['level']}", str(verdict["text"]))
        table.add_section()
    return table


def comparison_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Two checkpoints side by side: a table of layers, and one of weights grouped by kind of tensor."""
    layers = plain_table(f"{found['one']} → {found['other']}, by layer")
    names = ("layer", "distance /‖v_rev‖", "cosine", "CKA", "overlap", "random", "largest angle", "same basis")
    for name in names:
        layers.add_column(name, justify="right", no_wrap=True)
    for row in found["layers"]:
        angle = f"{math.degrees(max(row['angles'])):.0f}°" if row["angles"] else _DASH
        shared = {True: "yes", False: "NO", None: _DASH}[row["basis_shared"]]
        numbers = (row[name] for name in ("distance", "cosine", "cka", "overlap", "overlap_random"))
        layers.add_row(str(row["layer"]), *map(number, numbers), angle, shared)
    layers.caption = Text(
        "cosine: of the two displacements from the aligned model; overlap: of the 10 leading directions in which "
        "prompts differ, with its value for random ones; same basis: a rotation explains no more than half.",
        "dim",
    )
    yield layers
    weights = plain_table("weights, by kind of tensor (root of summed squares; shares weighted by them)")
    for name in ("kind", "tensors", "‖Δ‖", "‖Δ‖/‖θ‖", "inside span(θ_H − θ_S)", "random"):
        weights.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    if found["weights_missing"]:
        weights.caption = Text(found["weights_missing"], "dim")
    for kind, rows in _kinds(found["weights"]).items():
        weights.add_row(kind, str(len(rows)), *map(number, _pooled(rows)))
    yield weights


def behaviour_tables(run: RunFolder) -> Iterator[Table]:
    """An evaluated run: rates by checkpoint, what changed against the aligned model and the baseline, flips."""
    judges, rates = run.read_json("judges"), run.read_table("behaviour")
    table = _rates_table("Behaviour of every checkpoint", rates.to_dict("records"))
    notes = [f"judged by {', '.join(judges['judges'])}"]
    notes += [
        f"kappa of {each['one']} and {each['other']}: {number(each['kappa'])}{_because(each)}"
        for each in judges["kappa"]
    ]
    table.caption = Text("; ".join(notes) + ". " + _MEASURES, "dim")
    yield table
    yield _contrasts_table(run.read_table("contrasts").to_dict("records"))
    yield _flips_table(run.read_table("flips").to_dict("records"))


def restoration_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """A restored checkpoint: what was removed, and behaviour before and after where it was judged."""
    table = plain_table(f"Restored ({found['form']}, strength {found['strength']:g}): {found['out']}")
    for name in ("‖drift‖ before", "‖drift‖ left", "tensors that had moved", "of them emptied"):
        table.add_column(name, justify="right")
    numbers = (found["drift"], found["left"])
    table.add_row(*map(number, numbers), str(found["tensors_moved"]), str(found["tensors_emptied"]))
    table.caption = Text(
        "emptied: alignment moved the tensor in every direction, so nothing of its drift is left", "dim"
    )
    yield table
    if found["behaviour"]:
        yield _rates_table("Before and after", found["behaviour"])
        yield _contrasts_table(found["contrasts"])


def readings_table(readings: Sequence[Mapping[str, Any]], out: str) -> Table:
    """What the watch saw while a model was trained."""
    table = plain_table(f"Fine-tuned into {out}")
    for name in ("step", "alignment", "return", "off-axis", "refusal score"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in readings:
        numbers = (row[name] for name in ("alignment", "return_fraction", "off_axis", "refusal_score"))
        table.add_row(str(row["step"]), *map(number, numbers))
    return table


def experiment_table(found: Mapping[str, Any]) -> Table:
    """Arms side by side at the last step, mean ± standard deviation over runs or seeds."""
    table = plain_table(f"Arms at the last step, layer {found['layer']}, mean ± sd over {found['unit']}s")
    table.add_column("arm", no_wrap=True)
    for name in ("n", *_ARM_COLUMNS):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found["arms"]:
        mark = " *" if row["finding"] else ""
        arm = Text(row["arm"] + mark, ARM_STYLE.get(row["arm"], ""))
        table.add_row(arm, str(row["trainings"]), *_arm_cells(row))
    table.caption = Text(_arm_caption(found), "dim")
    return table


def experiment_markdown(found: Mapping[str, Any]) -> str:
    """The same table in Markdown, with the interval of the harm's change against the baseline."""
    lines = [
        "| arm | n | " + " | ".join([*_ARM_COLUMNS, "harm − baseline"]) + " |",
        "|---|" + "---:|" * (len(_ARM_COLUMNS) + 2),
    ]
    for row in found["arms"]:
        mark = " *" if row["finding"] else ""
        change = _DASH if row["arm"] == "baseline" else _interval(row["harm_change"])
        cells = [f"{row['arm']}{mark}", str(row["trainings"]), *_arm_cells(row), change]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _arm_caption(found)])


_ARM_COLUMNS = ("align", "return", "harm", "over", "task", "cost", "spec.")


def _arm_cells(row: Mapping[str, Any]) -> list[str]:
    numbers = [_mean_sd(row[name], _short) for name in ("alignment", "return_fraction")]
    shares = [_mean_sd(row[name], share) for name in ("harmful_compliance", "over_refusal")]
    cost = row["task_cost"]["mean"]
    shown = _DASH if cost is None else f"{100 * cost:.1f} %".replace("-", "−")
    return [*numbers, *shares, number(row["task_loss"]["mean"]), shown, _short(row["specificity"])]


def _arm_caption(found: Mapping[str, Any]) -> str:
    before = share(found["aligned"].get("harmful_compliance"))
    return (
        f"n: trainings; harm: harmful requests complied with ({before} before); over: harmless ones refused; cost: "
        "share of the baseline's task gain given up; spec.: share of the full anchor's prevention. "
        "*: geometry held, behaviour lost"
    )


def _interval(change: Mapping[str, Any]) -> str:
    if change["mean"] is None:
        return _DASH
    low, middle, high = (f"{100 * change[name]:+.0f}".replace("-", "−") for name in ("low", "mean", "high"))
    return f"{middle} ({low} to {high})"


def _mean_sd(spread: Mapping[str, Any], show: Callable[[float | None], str]) -> str:
    mean = show(spread["mean"])
    return mean if spread["sd"] is None else f"{mean.removesuffix(' %')} ± {show(spread['sd'])}"


def _short(value: float | None) -> str:
    return _DASH if value is None or value != value else f"{value:.2f}".replace("-", "−")


def _rates_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rates by checkpoint, one column a measure."""
    table = plain_table(title)
    table.add_column("checkpoint", no_wrap=True)
    names = ("refuse", "comply", "over", "harmless", "noise", "unjudged", "score", "task")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["checkpoint"], {})[row["measure"]] = row["value"]
    for checkpoint, values in found.items():
        shares = [
            share(values.get(name))
            for name in (
                "refusal_harmful", "harmful_compliance", "over_refusal", "refusal_harmless", "incoherent", "unjudged",
            )
        ]  # fmt: skip
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
        _DASH if row["p"] is None or row["p"] != row["p"] else f"{row['p']:.2g}",
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


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by the tensor's name without its layer number, e.g. `mlp.up_proj.weight`."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(re.sub(r"^.*\.\d+\.", "", row["tensor"]), []).append(row)
    return kinds


def _pooled(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float | None, float | None, float]:
    """Norm, relative norm, share inside the span, and its random value, of several tensors as one."""
    squared = [row["frobenius"] ** 2 for row in rows]
    total = sum(squared)
    sizes = sum((row["frobenius"] / row["relative"]) ** 2 for row in rows if row["relative"])
    inside = [(square, row["inside"]) for square, row in zip(squared, rows, strict=True) if row["inside"] is not None]
    weight = sum(square for square, _ in inside)
    return (
        math.sqrt(total),
        math.sqrt(total / sizes) if sizes else None,
        sum(square * share for square, share in inside) / weight if weight else None,
        sum(row["random"] for row in rows) / len(rows),
    )


def plain_table(title: str) -> Table:
    """An empty table in the one look that all have."""
    table = Table(box=box.SIMPLE_HEAD, width=_WIDTH, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = Text(title, "bold")
    return table


def _caption(verdicts: Mapping[tuple[str, int], str]) -> Text:
    lines = [f"{arm}, seed {seed}: {name}" for (arm, seed), name in verdicts.items()]
    lines.append("align = cos(δ, v_rev), xfit cross-fitted; return = ⟨δ, v_rev⟩/‖v_rev‖², 1 is all the way back;")
    lines.append(
        "off: off-axis in ‖v_rev‖; refuse, over: refusals of harmful, of harmless requests; task: nats per token"
    )
    return Text("\n".join(lines), "dim")


def _arm(trajectory: TrajectorySummary) -> Text:
    return Text(f"{trajectory.arm} s{trajectory.seed}", ARM_STYLE.get(trajectory.arm, ""))


def _cells(checkpoint: Checkpoint, layer: int) -> list[str]:
    row = next((each for each in checkpoint.layers if each.layer == layer), None)
    numbers = (
        [row.alignment, row.alignment_crossfit, row.did_alignment, row.return_fraction, row.off_axis]
        if row
        else [None] * 5
    )
    return [str(checkpoint.step), *map(number, numbers), *_behaviour(checkpoint.behaviour)]


def _behaviour(behaviour: Behaviour) -> list[str]:
    return [
        share(behaviour.refusal_harmful),
        share(behaviour.refusal_harmless),
        number(behaviour.task_loss),
    ]


def _own_rows(summary: Summary) -> dict[str, str]:
    """This run's counterpart of each published row, over seeds: mean ± standard deviation where there are several."""
    first, twentieth, last, harm = _PUBLISHED
    baseline = [each for each in summary.trajectories if each.arm == "baseline"]
    block = [each for each in summary.trajectories if each.arm == "block"]
    layer = summary.headline_layer
    return {
        first[0]: _spread([_alignment(each, 1, layer) for each in baseline]),
        twentieth[0]: _spread([_alignment(each, 20, layer) for each in baseline]),
        last[0]: f"{_spread([_alignment(each, 100, layer) for each in baseline])} → "
        f"{_spread([_alignment(each, 100, layer) for each in block])}",
        harm[0]: f"{_spread([_compliance(each, 100) for each in baseline], percent=True)} → "
        f"{_spread([_compliance(each, 100) for each in block], percent=True)}",
    }


def _at(trajectory: TrajectorySummary, step: int) -> Checkpoint | None:
    return next((each for each in trajectory.checkpoints if each.step == step), None)


def _alignment(trajectory: TrajectorySummary, step: int, layer: int) -> float | None:
    checkpoint = _at(trajectory, step)
    rows = checkpoint.layers if checkpoint else ()
    return next((row.alignment for row in rows if row.layer == layer), None)


def _compliance(trajectory: TrajectorySummary, step: int) -> float | None:
    checkpoint = _at(trajectory, step)
    if checkpoint is None:
        return None
    complied, refused = checkpoint.behaviour.harmful_compliance, checkpoint.behaviour.refusal_harmful
    # Runs of earlier versions judged refusals only.
    return complied if complied is not None or refused is None else 1.0 - refused


def _spread(values: Sequence[float | None], *, percent: bool = False) -> str:
    import statistics

    found = [value for value in values if value is not None]
    if not found:
        return _DASH
    show = share if percent else number
    mean = show(statistics.fmean(found))
    return f"{mean} ± {show(statistics.stdev(found))}" if len(found) > 1 else mean


def number(value: float | None) -> str:
    """Three digits behind the point; a dash where there is no number."""
    return _DASH if value is None or value != value else f"{value:.3f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share as whole per cent; a dash where there is none."""
    return _DASH if value is None else f"{100 * value:.0f} %".replace("-", "−")
