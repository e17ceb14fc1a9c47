"""Stage `nulls.parquet`: every drift held against what it would be without reversion."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from probes import drift
from probes.errors import StatisticsError
from probes.lineage import Member
from probes.models import ModelHost
from probes.nulls import (
    LayerNulls,
    NullDraws,
    Resampling,
    max_over_layers,
    over_steps,
    sham_drift,
    sham_witness,
)
from probes.progress import Progress, Report, within
from probes.run import ByStep, Run
from probes.stages import stage
from probes.stages.drift import with_types
from probes.stages.shams import DRIFT, WITNESS, write_shams

if TYPE_CHECKING:
    import pandas as pd

TRAJECTORY = {"checkpoint": "", "step": -1}  # how rows about a whole trajectory are marked
_COLUMNS = (
    "checkpoint",
    "arm",
    "seed",
    "step",
    "layer",
    "null",
    "statistic",
    "observed",
    "p99",
    "p",
    "p_max",
    "draws",
    "reason",
)
_ByLayer = dict[str, dict[int, NullDraws]]  # null -> layer -> draws


@stage(
    "nulls",
    version=1,
    needs=("activations", "drift"),
    settings=("draws", "permutations", "shams", "splits", "seed"),
)
def write_nulls(run: Run, model: ModelHost, report: Report) -> None:
    """Write `nulls.parquet`: a row per checkpoint, layer and null, and a row per trajectory, layer and null.

    `p_max` is the p-value against the largest statistic over all layers, for the map; the headline layer, declared
    in advance, needs no correction.
    """
    import pandas as pd

    shams = write_shams(run, model, within(report, 0.0, 0.7))
    nulls = _every_null(run, shams, within(report, 0.7, 1.0))
    rows = [row for member in run.tuned for row in _checkpoint_rows(member, nulls[member.id])]
    by_layer = run.estimates()
    for trajectory in run.lineage.trajectories:
        members = [member for member in run.tuned if (member.arm, member.seed) == (trajectory.arm, trajectory.seed)]
        rows += _trajectory_rows(members, nulls, by_layer)
    run.write_table("nulls", with_types(pd.DataFrame(rows, columns=list(_COLUMNS))))


def _every_null(run: Run, shams: pd.DataFrame, report: Report) -> dict[str, _ByLayer]:
    """Every null of every checkpoint; what a layer's nulls share over checkpoints is done once a layer."""
    settings, harmful = run.settings, run.harmful
    aligned, witness = run.activation_file("aligned"), run.activation_file("witness")
    resampling = Resampling.of(harmful, draws=settings.draws, permutations=settings.permutations, seed=settings.seed)
    cosines = {key: frame["cosine"].to_numpy() for key, frame in shams.groupby(["null", "checkpoint", "layer"])}
    nulls: dict[str, _ByLayer] = {member.id: defaultdict(dict) for member in run.tuned}
    for layer in range(aligned.n_layers):
        start, back = aligned.layer(layer), witness.layer(layer)
        prepared = None
        for member in run.tuned:
            report(Progress("holding against nulls", layer, aligned.n_layers, member.id))
            tuned = run.activations(member.id, layer)
            try:
                drift.check(start, back, tuned, harmful)
            except StatisticsError:
                continue  # drift.parquet says why nothing is defined here
            prepared = prepared or LayerNulls(start, back, resampling, layer=layer, splits=settings.splits)
            of_layer = prepared.against(tuned)
            observed = of_layer["isotropic"].observed
            assert observed is not None
            of_layer[WITNESS] = sham_witness(observed, cosines[WITNESS, member.id, layer])
            of_layer[DRIFT] = sham_drift(observed, cosines[DRIFT, member.id, layer])
            for name, null in of_layer.items():
                nulls[member.id][name][layer] = null
    return nulls


def _checkpoint_rows(member: Member, nulls: _ByLayer) -> list[dict[str, Any]]:
    rows = []
    for by_layer in nulls.values():
        corrected = max_over_layers(list(by_layer.values()))
        for (layer, null), p_max in zip(by_layer.items(), corrected, strict=True):
            rows.append({**member.labels, "layer": layer, **_result(null), "p_max": p_max})
    return rows


def _trajectory_rows(members: list[Member], found: dict[str, _ByLayer], estimates: ByStep) -> list[dict[str, Any]]:
    """The same nulls for one trajectory as a whole: the mean over its measurable, log-spaced steps."""
    arm, seed = members[0].arm, members[0].seed
    joined: dict[tuple[str, int], list[NullDraws]] = defaultdict(list)
    for layer in sorted({layer for *_, layer in estimates}):
        _, steps = drift.trajectory(estimates.get((arm, seed, layer), {}))
        for member in members:
            for name, by_layer in found[member.id].items():
                if member.step in steps and layer in by_layer:
                    joined[name, layer].append(by_layer[layer])
    return [
        {**TRAJECTORY, "arm": arm, "seed": seed, "layer": layer, **_result(over_steps(nulls)), "p_max": None}
        for (_, layer), nulls in joined.items()
    ]


def _result(null: NullDraws) -> dict[str, Any]:
    result = null.result()
    return {
        "null": result.name,
        "statistic": result.statistic,
        "observed": result.observed,
        "p99": result.p99,
        "p": result.p,
        "draws": result.draws,
        "reason": result.reason,
    }
