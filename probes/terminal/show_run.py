"""A measured run: every trajectory by step, verdicts in words, two checkpoints side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from probes.lineage import MIRROR, NO_WITNESS, ROLES
from probes.tasks.summarise import Behaviour, Checkpoint, Probe, Summary, TrajectorySummary
from probes.terminal.table import ARM_STYLE, DASH, WIDTH, number, plain_table, share

# Poppi and Lukas, arXiv 2606.28525, first version: the rows that a run of ours stands beside.
_PUBLISHED = (
    ("alignment after the first update", "0.429 ± 0.052"),
    ("alignment at step 20", "0.647 ± 0.021"),
    ("alignment at step 100, baseline → block", "0.648 → −0.211"),
    ("harmfulness at step 100, baseline → block", "19.0 % → 8.5 %"),
)
_SAY_UNDEFINED = f" The distance is not defined: {NO_WITNESS}."
_PROBE_CAPTION = (
    "cosine to the aligned model's direction; AUROC of the aligned model's probe here, and of one refitted here, each "
    "on the fold it was not fitted on; norm: gap between the classes; displaced: length of the mean displacement; "
    "‖Δθ‖: weight drift. In a real run the probe did not track behaviour: AUROC 0.79 → 0.86 while refusals of harmful "
    "requests fell from 86 to 41 %."
)


def summary_table(summary: Summary, verdicts: Mapping[tuple[str, int], str], roles: Mapping[str, Behaviour]) -> Table:
    """Every trajectory by step at the headline layer, roles first for their behaviour."""
    layer = summary.headline_layer
    table = plain_table(f"{summary.lineage} · layer {layer} · displacement of harmful prompts from the aligned model")
    table.caption = _caption(summary, verdicts)
    table.add_column("arm", no_wrap=True)
    for name in ("step", "align", "xfit", "DiD", "return", "off", "refuse", "over", "task"):
        table.add_column(name, justify="right", no_wrap=True)
    for role, behaviour in roles.items():
        table.add_row(role, *[DASH] * 6, *_behaviour(behaviour))
    for trajectory in summary.trajectories:
        table.add_section()
        for position, checkpoint in enumerate(trajectory.checkpoints):
            table.add_row(_arm(trajectory) if position == 0 else "", *_cells(checkpoint, layer))
    return table


def probe_table(summary: Summary, roles: Mapping[str, Probe]) -> Table:
    """What needs no witness, by step at the headline layer: displacement, weight drift, and the refusal probe."""
    layer = summary.headline_layer
    table = plain_table(f"{summary.lineage} · layer {layer} · refusal probe (harmful − harmless means), displacement")
    table.caption = Text(_PROBE_CAPTION, "dim")
    table.add_column("arm", no_wrap=True)
    for name in ("step", "cosine", "AUROC", "refitted", "norm", "displaced", "‖Δθ‖"):
        table.add_column(name, justify="right", no_wrap=True)
    for role in (role for role in reversed(ROLES) if role in roles):
        table.add_row(role, DASH, *_probe_cells(roles[role]), DASH, DASH)
    for trajectory in summary.trajectories:
        table.add_section()
        for position, checkpoint in enumerate(trajectory.checkpoints):
            row = next((row for row in checkpoint.layers if row.layer == layer), None)
            cells = [*_probe_cells(row.probe if row else None), number(row.displacement_norm if row else None)]
            arm = _arm(trajectory) if position == 0 else ""
            table.add_row(arm, str(checkpoint.step), *cells, number(checkpoint.weight_drift))
    return table


def level_words(verdict: Mapping[str, object]) -> str:
    """A verdict's level and name; where it is not defined, that."""
    return str(verdict["name"]) if verdict["level"] is None else f"level {verdict['level']}, {verdict['name']}"


def published_table(summary: Summary) -> Table:
    """What the source reports, beside the same quantity of this run; ours is another model and another judge."""
    ours = _own_rows(summary)
    table = plain_table("Beside the published numbers (arXiv 2606.28525 v1: Llama and Qwen, 3B to 8B)")
    table.add_column("quantity")
    table.add_column("published", justify="right")
    table.add_column("this run", justify="right")
    for name, published in _PUBLISHED:
        table.add_row(name, published, ours.get(name, DASH))
    table.caption = Text("An implementation of the published description on another model, not a reproduction.", "dim")
    return table


def verdict_lines(verdicts: Sequence[Mapping[str, object]]) -> Table:
    """Each trajectory's verdict in words."""
    table = Table(box=box.SIMPLE_HEAD, width=WIDTH, pad_edge=False, show_header=False, show_lines=False)
    table.add_column("arm", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("text")
    for verdict in verdicts:
        arm = str(verdict["arm"])
        name = Text(f"{arm}, seed {verdict['seed']}", ARM_STYLE.get(arm, ""))
        table.add_row(name, DASH if verdict["level"] is None else f"level {verdict['level']}", str(verdict["text"]))
        table.add_section()
    return table


def comparison_tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    """Two checkpoints side by side: a table of layers, and one of weights grouped by kind of tensor."""
    layers = plain_table(f"{comparison['one']} → {comparison['other']}, by layer")
    names = ("layer", "distance /‖v_rev‖", "cosine", "CKA", "overlap", "random", "largest angle", "same basis")
    for name in names:
        layers.add_column(name, justify="right", no_wrap=True)
    for row in comparison["layers"]:
        angle = f"{math.degrees(max(row['angles'])):.0f}°" if row["angles"] else DASH
        shared = {True: "yes", False: "NO", None: DASH}[row["basis_shared"]]
        numbers = (row[name] for name in ("distance", "cosine", "cka", "overlap", "overlap_random"))
        layers.add_row(str(row["layer"]), *map(number, numbers), angle, shared)
    layers.caption = Text(
        "cosine: of the two displacements from the aligned model; overlap: of the 10 leading directions in which "
        "prompts differ, with its value for random ones; same basis: a rotation explains no more than half."
        + _SAY_UNDEFINED
        * all(row["distance"] is None for row in comparison["layers"]),
        "dim",
    )
    yield layers
    weights = plain_table("weights, by kind of tensor (root of summed squares; shares weighted by them)")
    for name in ("kind", "tensors", "‖Δ‖", "‖Δ‖/‖θ‖", "inside span(θ_H − θ_S)", "random"):
        weights.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    undefined = all(row["inside"] is None for row in comparison["weights"])
    why = comparison["weights_missing"] or ("inside: not defined without a witness's weights" if undefined else None)
    lines = [why, None if comparison["weights_missing"] else _symmetry_line(comparison)]
    weights.caption = Text("\n".join(filter(None, lines)), "dim")
    for kind, rows in _kinds(comparison["weights"]).items():
        weights.add_row(kind, str(len(rows)), *map(number, _pool(rows)))
    yield weights


def _symmetry_line(comparison: Mapping[str, Any]) -> str | None:
    """How much of the change of weights no activation can see."""
    symmetries = comparison["symmetries"]
    if symmetries is None:
        return str(comparison["symmetries_missing"])
    if symmetries["along"] is None:
        return None
    blocks = [part for part in symmetries["parts"] if part["part"].startswith("layers.")]
    return (
        "along the architecture's symmetries, where no activation sees it: "
        f"{_along(symmetries['along'], symmetries['random'])}; of the blocks alone "
        f"{_along(*(_share_of_parts(blocks, name) for name in ('along', 'random')))}"
    )


def _along(value: float, random: float) -> str:
    return f"{100 * value:.2g} % of ‖Δ‖² (random directions: {100 * random:.2g} %)"


def _share_of_parts(parts: Sequence[Mapping[str, Any]], name: str) -> float:
    """A share of several parts as one, weighted by the squares of their changes."""
    squares = [part["frobenius"] ** 2 for part in parts]
    shares = [square * (part[name] or 0) for square, part in zip(squares, parts, strict=True)]
    return sum(shares) / sum(squares) if sum(squares) else 0.0


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by the tensor's name without its layer number, e.g. `mlp.up_proj.weight`."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(re.sub(r"^.*\.\d+\.", "", row["tensor"]), []).append(row)
    return kinds


def _pool(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float | None, float | None, float]:
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


def _caption(summary: Summary, verdicts: Mapping[tuple[str, int], str]) -> Text:
    lines = [f"{arm}, seed {seed}: {name}" for (arm, seed), name in verdicts.items()]
    if summary.witness == NO_WITNESS:
        lines.append(f"align, xfit, DiD, return and off are not defined: {NO_WITNESS}.")
    elif summary.witness != "witness":
        lines.append(f"align, xfit, DiD, return and off are towards the {summary.witness}.")
    lines.append("align = cos(δ, v_rev), xfit cross-fitted; return = ⟨δ, v_rev⟩/‖v_rev‖², 1 is all the way back;")
    lines.append(
        "off: off-axis in ‖v_rev‖; refuse, over: refusals of harmful, of harmless requests; task: nats per token"
    )
    if any(trajectory.arm == MIRROR for trajectory in summary.trajectories):
        lines.append("mirror: the witness on the same data, measured from the witness towards the aligned model")
    return Text("\n".join(lines), "dim")


def _probe_cells(probe: Probe | None) -> list[str]:
    return [number(None if probe is None else getattr(probe, name)) for name in Probe.model_fields]


def _arm(trajectory: TrajectorySummary) -> Text:
    return Text(f"{trajectory.arm} s{trajectory.seed}", ARM_STYLE.get(trajectory.arm, ""))


def _cells(checkpoint: Checkpoint, layer: int) -> list[str]:
    row = next((numbers_of for numbers_of in checkpoint.layers if numbers_of.layer == layer), None)
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
    baseline = [trajectory for trajectory in summary.trajectories if trajectory.arm == "baseline"]
    block = [trajectory for trajectory in summary.trajectories if trajectory.arm == "block"]
    layer = summary.headline_layer
    return {
        first[0]: _spread([_alignment(trajectory, 1, layer) for trajectory in baseline]),
        twentieth[0]: _spread([_alignment(trajectory, 20, layer) for trajectory in baseline]),
        last[0]: f"{_spread([_alignment(trajectory, 100, layer) for trajectory in baseline])} → "
        f"{_spread([_alignment(trajectory, 100, layer) for trajectory in block])}",
        harm[0]: f"{_spread([_compliance(trajectory, 100) for trajectory in baseline], percent=True)} → "
        f"{_spread([_compliance(trajectory, 100) for trajectory in block], percent=True)}",
    }


def _at(trajectory: TrajectorySummary, step: int) -> Checkpoint | None:
    return next((checkpoint for checkpoint in trajectory.checkpoints if checkpoint.step == step), None)


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

    numbers = [value for value in values if value is not None]
    if not numbers:
        return DASH
    show = share if percent else number
    mean = show(statistics.fmean(numbers))
    return f"{mean} ± {show(statistics.stdev(numbers))}" if len(numbers) > 1 else mean
