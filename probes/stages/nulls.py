"""Stage `nulls.parquet`: every drift held against what it would be without reversion; `findings.json` beside it."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.directions.refusal import refusal_axis
from probes.directions.reversion import reversion_vectors, reversions_at_layer
from probes.errors import StatisticsError, UsageError
from probes.lineage import Member
from probes.models import ModelHost
from probes.nulls import SHAMS, LayerNulls, NullDraws, Resampling, Shams, max_over_layers, why_no_reference
from probes.progress import Progress, Report, within
from probes.run import Run
from probes.stages import stage
from probes.stages.drift import with_types
from probes.stages.jobs import Part, compute_parts
from probes.stages.shams import write_shams
from probes.statistics import NullResult, decimal
from probes.verdict.assess import hold_against_nulls
from probes.verdict.families import MIRROR

if TYPE_CHECKING:
    import pandas as pd

MOST_PROMPTS = 3_000  # of width 32, 1,000 take 0.5 GB and 2,000 take 0.9 GB beside the model
WEIGHT_SHAMS = "sham_drift_weights"
_COLUMNS = (
    *("checkpoint", "arm", "seed", "step", "layer", "null", "statistic", "observed", "limit", "p", "p_max"),
    *("draws", "power", "defined", "reason", "note"),
)
_Held = tuple[NullDraws, NullResult]
_ByLayer = dict[str, dict[int, _Held]]  # null -> layer -> draws, and their record


def refuse_too_many(prompts: int) -> None:
    """Refuse so many prompts that the nulls, whose draws are over pairs of prompts, would fill the memory.

    Raises:
        UsageError: there are more than `MOST_PROMPTS`.
    """
    if prompts > MOST_PROMPTS:
        raise UsageError(
            "There are too many prompts for the nulls",
            got=f"{prompts:,}",
            expected=f"at most {MOST_PROMPTS:,}",
            next_step=f"Take fewer (--limit {MOST_PROMPTS // 2} of each class), or measure without them (--no-nulls).",
        )


@stage(
    "nulls",
    version=4,
    needs=("activations", "drift"),
    settings=(
        *("draws", "permutations", "shams", "sham_arms", "splits", "seed", "alpha", "power_alignment"),
        "headline_layer",
    ),
)
def write_nulls(run: Run, model: ModelHost, report: Report) -> None:
    """Write `nulls.parquet`: a row per fine-tuned checkpoint, layer and null.

    `p_max` is the p-value against the largest statistic over all layers, for the map; the headline layer, declared
    in advance, needs no correction. There, at the last checkpoint of every trajectory, tests have their power, and the
    shams stand among them; `findings.json` holds what else the verdict asks of it. A mirror gets no level, and no null.
    """
    import pandas as pd

    write_shams(run, model, within(report, 0.0, 0.7))
    rows, findings = _hold(run, within(report, 0.7, 1.0))
    run.write_table("nulls", with_types(pd.DataFrame(rows, columns=list(_COLUMNS))))
    run.write_json("findings", findings)


def _hold(run: Run, report: Report) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of all checkpoints, and the findings of the last ones; what checkpoints share is done once a layer."""
    last = _last_members(run)
    parts: dict[str, Part] = {f"Findings of {member.id}": functools.partial(_judge, member) for member in last}
    parts |= {f"Nulls of layer {layer}": functools.partial(_hold_layer, layer) for layer in range(run.n_layers)}
    try:
        results = compute_parts(run, parts, report)
    finally:
        _draw_resampling.cache_clear()  # they fill memory, and the run may go on with other settings
    by_last, by_layer = results[: len(last)], results[len(last) :]
    judged = {member.id: tests for member, (tests, _) in zip(last, by_last, strict=True)}
    findings = {member.id: document for member, (_, document) in zip(last, by_last, strict=True) if document}
    rows = []
    for member in _members(run):
        nulls: _ByLayer = defaultdict(dict)
        for layer, by_member in enumerate(by_layer):
            for name, held in by_member.get(member.id, {}).items():
                nulls[name][layer] = held
        rows += _rows(run, member, nulls, judged.get(member.id))
    return rows, findings


def _members(run: Run) -> list[Member]:
    return [member for member in run.tuned if member.arm != MIRROR]


def _last_members(run: Run) -> list[Member]:
    """Each trajectory's last checkpoint."""
    names = {trajectory.checkpoint_id(trajectory.checkpoints[-1].step) for trajectory in run.lineage.trajectories}
    return [member for member in _members(run) if member.id in names]


def _judge(last: Member, run: Run, report: Report) -> tuple[list[NullResult], dict[str, Any]]:
    """Tests and findings of a trajectory's last checkpoint at the headline layer; none where it cannot be tested."""
    for member, tests, tuned in _open_tests(run, run.headline_layer, [last], report):
        return _findings(run, tests, member, tuned)
    return [], {}


def _hold_layer(layer: int, run: Run, report: Report) -> dict[str, dict[str, _Held]]:
    """Every null of one layer with its record, by checkpoint and by the null's name."""
    return {
        member.id: {name: (null, null.result()) for name, null in tests.against(tuned).items()}
        for member, tests, tuned in _open_tests(run, layer, _members(run), report)
    }


def _open_tests(
    run: Run, layer: int, members: Sequence[Member], report: Report
) -> Iterator[tuple[Member, LayerNulls, np.ndarray]]:
    """The checkpoints that can be tested at a layer, with its tests and their activations."""
    start, back = run.activations("aligned", layer), run.activations("witness", layer)
    reversions, tests = reversions_at_layer(start, back), None
    for member in members:
        report(Progress("holding against nulls", layer, run.n_layers, member.id))
        tuned = run.activations(member.id, layer)
        try:
            drift.check(start, reversions, tuned, run.harmful)
        except StatisticsError:
            continue  # drift.parquet says why nothing is defined here
        if tests is None:
            reversion = reversion_vectors([start], [back], run.harmful).raw[0].astype(np.float64)
            splits = run.settings.splits
            tests = LayerNulls(start, reversions, reversion, _draw_resampling(run), layer=layer, splits=splits)
        yield member, tests, tuned


@functools.lru_cache(maxsize=1)
def _draw_resampling(run: Run) -> Resampling:
    """What all layers of an open run share; a worker opens the run anew where its manifest has changed."""
    settings = run.settings
    return Resampling.of(
        run.harmful,
        groups=run.groups,
        pairs=run.pairs,
        draws=settings.draws,
        permutations=settings.permutations,
        alpha=settings.alpha,
        seed=settings.seed,
    )


def _findings(
    run: Run, tests: LayerNulls, member: Member, tuned: np.ndarray
) -> tuple[list[NullResult], dict[str, Any]]:
    """Tests with their power at the headline layer, and what else the verdict asks, as JSON."""
    settings, ablated = run.settings, run.lineage.need_witness("A test of the way back").is_estimate
    shams = run.read_table("shams", filters=[("checkpoint", "==", member.id), ("draw", "<", settings.shams)])
    absent = why_no_reference(shams["reached"].to_numpy(), shams["farthest"].to_numpy())
    drawn = _shams(shams) if len(shams) and absent is None else None
    aligned = run.activations("aligned", run.headline_layer)
    refusal = None if ablated else refusal_axis([aligned], run.harmful).raw[0].astype(np.float64)
    evidence = hold_against_nulls(
        tests, tuned, refusal, drawn, alignment=settings.power_alignment, alpha=settings.alpha
    )
    results = list(evidence.nulls)
    if absent is not None:
        results += [null.result() for null in absent]
    results = [result if result.name not in SHAMS else _with_note(result, shams) for result in results]
    if len(shams):
        observed = tests.observe(tests.grams(tuned).only_harmful())
        results.append(_weight_shams(observed, shams))
    document = {"power_together": evidence.power_together, "off_refusal_axis": asdict(evidence.off_refusal_axis)}
    return results, document


def _shams(rows: pd.DataFrame) -> Shams:
    moves = np.stack([np.stack(rows[name].to_list()) for name in ("first", "second")], axis=1).astype(np.float32)
    return Shams(moves, rows["drift"].to_numpy(dtype=float), rows["witness"].to_numpy(dtype=float))


def _with_note(result: NullResult, shams: pd.DataFrame) -> NullResult:
    scale, loss, before = (shams[name].median() for name in ("scale", "loss", "loss_before"))
    missed = int((~shams["reached"]).sum())
    note = (
        f"noise at {decimal(scale, 1)} times the fine-tuning's weight norm; loss on harmless prompts "
        f"{decimal(before)} to {decimal(loss)}" + (f"; {missed} draws not within 5 % of the distance" if missed else "")
    )
    return NullResult(**{**vars(result), "note": note})


def _weight_shams(observed: float, shams: pd.DataFrame) -> NullResult:
    """A line of the profile: noise of the fine-tuning's own weight norm, on the prompts of the search alone."""
    moved = float(shams["weight_moved"].median())
    less = f"{decimal(1 / moved, 1)} times less" if moved > 0 else "not at all"
    note = f"removes nothing; noise of the same weight norm, which moves the activations {less}"
    draws = shams["weight_drift"].to_numpy(dtype=float)
    return NullDraws(WEIGHT_SHAMS, "alignment_crossfit", observed, draws, note=note).result()


def _rows(run: Run, member: Member, nulls: _ByLayer, judged: list[NullResult] | None) -> list[dict[str, Any]]:
    """A checkpoint's rows; at the headline layer those of `judged`, which have their power, take the place."""
    better = {result.name: result for result in judged or ()}
    rows = []
    for by_layer in nulls.values():
        corrected = max_over_layers([null for null, _ in by_layer.values()])
        for (layer, (_, result)), p_max in zip(by_layer.items(), corrected, strict=True):
            if layer == run.headline_layer:
                result = better.pop(result.name, result)
            rows.append(_row(member, layer, result, p_max))
    return rows + [_row(member, run.headline_layer, result, None) for result in better.values()]


def _row(member: Member, layer: int, result: NullResult, p_max: float | None) -> dict[str, Any]:
    about = {name: value for name, value in vars(result).items() if name != "name"}
    return {**member.labels, "layer": layer, "null": result.name, **about, "p_max": p_max}


def read_results(rows: pd.DataFrame) -> list[NullResult]:
    """The results of one checkpoint at one layer, from rows of `nulls.parquet`."""
    plain = rows.astype(object).where(rows.notna(), None)
    names = ("statistic", "observed", "limit", "p", "draws", "reason", "defined", "power", "note")
    return [NullResult(row["null"], *(row[name] for name in names)) for row in plain.to_dict("records")]
