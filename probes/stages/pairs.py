"""Stage `pairs.parquet`: any two checkpoints side by side, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from probes.drift.comparison import Portrait, compare_layers
from probes.lineage import Member
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import compute_parts

AT_MOST = 64  # checkpoints of which all pairs are written; with more, those with a role
COLUMNS = (
    "one",
    "other",
    "layer",
    "distance",
    "cosine",
    "cka",
    "overlap",
    "overlap_random",
    "angle_least",
    "angle_most",
    "transfer",
    "transfer_back",
)


@stage("pairs", version=1, needs=("measured", "prompts"))
def write_pairs(run: Run, report: Report = silent) -> None:
    """Write how every two checkpoints differ at every layer.

    Columns: `distance` ‖μ_other − μ_one‖ over harmful prompts in units of ‖v_rev‖, if any; `cosine` of their
    displacements from the aligned model; `cka` (debiased linear); `overlap` of their ten leading directions with its
    random value, and the least and the largest principal angle, radians; `transfer`: AUROC of `one`'s probe (harmful −
    harmless mean) on `other`, fitted and scored on different folds, and `transfer_back` the other way round. A pair of
    a checkpoint with itself holds the probe's own AUROC. What is not defined is empty.
    """
    import pandas as pd

    n_layers, count = run.activation_file("aligned").n_layers, len(_pairs_of(run.measured))
    layers = {f"Pairs at layer {layer}": partial(_compare, layer) for layer in range(n_layers)}
    rows = [row for of_layer in compute_parts(run, layers, report) for row in of_layer]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[3:], "float64"))
    run.write_table("pairs", table, rows_per_group=max(1, count))


def _compare(layer: int, run: Run, report: Report) -> list[tuple[Any, ...]]:
    """The rows of one layer."""
    report(Progress("comparing checkpoints", 0, 1, f"layer {layer}"))
    values = {member.id: run.activations(member.id, layer) for member in run.measured}
    rows = _layer(values, _pairs_of(run.measured), run.harmful, run.fold)
    return [(*row[:2], layer, *row[2:]) for row in rows]


def _pairs_of(members: Sequence[Member]) -> list[tuple[str, str]]:
    pairs = [(start, end) for place, start in enumerate(members) for end in members[place:]]
    if len(members) > AT_MOST:
        pairs = [(start, end) for start, end in pairs if start.arm == start.id or start == end]
    return [(start.id, end.id) for start, end in pairs]


def _layer(
    values: dict[str, np.ndarray], pairs: list[tuple[str, str]], harmful: np.ndarray, fold: np.ndarray
) -> list[tuple[Any, ...]]:
    aligned = values["aligned"][harmful].mean(axis=0, dtype=np.float64)
    portraits = {name: Portrait.of(rows, harmful, aligned) for name, rows in values.items()}
    scores = transfer(np.stack(list(values.values())), harmful, fold)
    place = {name: index for index, name in enumerate(values)}
    reversion = float(np.linalg.norm(portraits["witness"].displacement)) if "witness" in portraits else 0.0
    return [
        (
            start,
            end,
            *_numbers(portraits[start], portraits[end], reversion),
            scores[place[start], place[end]],
            scores[place[end], place[start]],
        )
        for start, end in pairs
    ]


def _numbers(start: Portrait, end: Portrait, reversion: float) -> tuple[float | None, ...]:
    """The columns `distance` to `angle_most` of one pair."""
    compared = compare_layers(start, end, reversion)
    numbers = (compared.distance, compared.cosine, compared.cka)
    if compared.overlap is None:
        return (*numbers, None, None, None, None)
    angles = compared.overlap.angles
    return (*numbers, compared.overlap.value, compared.overlap.random, angles[-1], angles[0])


def transfer(
    values: Float[np.ndarray, "checkpoint prompt d_model"],
    harmful: Bool[np.ndarray, " prompt"],
    fold: Bool[np.ndarray, " prompt"],
) -> Float[np.ndarray, "checkpoint checkpoint"]:
    """AUROC of each checkpoint's probe on every checkpoint's activations, mean of both folds.

    The probe is the difference of the class means (harmful − harmless) of one fold; it is scored on the other.

    Returns:
        [i, j]: the probe of i on the activations of j; NaN where a fold lacks a class.
    """
    return np.mean([_fold_transfer(values, harmful, fitted) for fitted in (fold, ~fold)], axis=0)


def _fold_transfer(values: np.ndarray, harmful: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    count = len(values)
    classes = [fitted & harmful, fitted & ~harmful, ~fitted & harmful, ~fitted & ~harmful]
    if not all(prompts.any() for prompts in classes):
        return np.full((count, count), np.nan)
    probes = values[:, classes[0]].mean(axis=1, dtype=np.float64) - values[:, classes[1]].mean(axis=1, dtype=np.float64)
    positive = harmful[~fitted]
    above, below = int(positive.sum()), int((~positive).sum())
    aurocs = np.empty((count, count))
    for index in range(count):
        ranks = rankdata(values[index][~fitted] @ probes.T, axis=0)
        aurocs[:, index] = (ranks[positive].sum(axis=0) - above * (above + 1) / 2) / (above * below)
    return aurocs
