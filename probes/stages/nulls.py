"""Stage `nulls.parquet`: every drift held against what it would be without reversion."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.errors import StatisticsError
from probes.lineage import Lineage, Member
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
from probes.prompts import Rendered
from probes.stages.drift import ByStep, estimates_by_step, typed
from probes.stages.settings import Settings
from probes.stages.shams import DRIFT, WITNESS, write_shams
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
TRAJECTORY = {"checkpoint": "", "step": -1}  # how rows about a whole trajectory are marked


def write_nulls(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    harmful: np.ndarray,
    rendered: Rendered,
    keys: dict[str, str],
    settings: Settings,
    report: Report,
) -> None:
    """Write `nulls.parquet`: a row per checkpoint, layer and null, and a row per trajectory, layer and null.

    `p_max` is the p-value against the largest statistic over all layers, for the map; the headline layer, declared
    in advance, needs no correction.
    """
    asked = settings.model_dump(include={"draws", "permutations", "shams", "splits", "seed"})
    made_from = fingerprint([_VERSION, sorted(keys.items()), asked])
    if run.holds("nulls", made_from):
        return
    with run.stage("nulls", made_from):
        import pandas as pd

        members = [member for member in lineage.members() if member.id not in ("aligned", "witness", "pretrained")]
        shams = write_shams(run, lineage, host, harmful, rendered, keys, settings, within(report, 0.0, 0.7))
        found = _every_null(run, members, harmful, settings, shams, within(report, 0.7, 1.0))
        rows = [row for member in members for row in _checkpoint_rows(member, found[member.id])]
        by_layer = estimates_by_step(run)
        for each in lineage.trajectories:
            mine = [member for member in members if (member.arm, member.seed) == (each.arm, each.seed)]
            rows += _trajectory_rows(mine, found, by_layer)
        run.write_table("nulls", typed(pd.DataFrame(rows, columns=_COLUMNS)))


_COLUMNS = [
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
]
_ByLayer = dict[str, dict[int, NullDraws]]  # null -> layer -> draws


def _every_null(
    run: RunFolder,
    members: list[Member],
    harmful: np.ndarray,
    settings: Settings,
    shams: pd.DataFrame,
    report: Report,
) -> dict[str, _ByLayer]:
    """Every null of every checkpoint; what a layer's nulls share over checkpoints is done once a layer."""
    aligned, witness = run.activations("aligned"), run.activations("witness")
    resampling = Resampling.of(harmful, draws=settings.draws, permutations=settings.permutations, seed=settings.seed)
    cosines = {key: frame["cosine"].to_numpy() for key, frame in shams.groupby(["null", "checkpoint", "layer"])}
    found: dict[str, _ByLayer] = {member.id: defaultdict(dict) for member in members}
    for layer in range(aligned.n_layers):
        start, back = aligned.layer(layer), witness.layer(layer)
        prepared = None
        for member in members:
            report(Progress("holding against nulls", layer, aligned.n_layers, member.id))
            tuned = run.activations(member.id).layer(layer)
            try:
                drift.check(start, back, tuned, harmful)
            except StatisticsError:
                continue  # drift.parquet says why nothing is defined here
            prepared = prepared or LayerNulls(start, back, resampling, layer=layer, splits=settings.splits)
            nulls = prepared.against(tuned)
            observed = nulls["isotropic"].observed
            assert observed is not None
            nulls[WITNESS] = sham_witness(observed, cosines[WITNESS, member.id, layer])
            nulls[DRIFT] = sham_drift(observed, cosines[DRIFT, member.id, layer])
            for name, null in nulls.items():
                found[member.id][name][layer] = null
    return found


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
