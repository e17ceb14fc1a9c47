"""Stage `pairs.parquet`: any two checkpoints side by side, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from probes.drift.comparison import cka_of_grams, gram
from probes.drift.geometry import spectrum
from probes.errors import StatisticsError
from probes.lineage import Member
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages import stage

SUBSPACE = 10  # leading directions of per-prompt variation whose angles are compared
AT_MOST = 64  # checkpoints of which all pairs are kept; with more, those with a role
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


@dataclass(frozen=True)
class _Portrait:
    """What of a checkpoint at one layer is held against every other."""

    displacement: np.ndarray
    gram: np.ndarray
    axes: np.ndarray


@stage("pairs", version=1, needs=("measured", "prompts"))
def write_pairs(run: Run, report: Report = silent) -> None:
    """Write how every two checkpoints differ at every layer.

    Columns: `distance` ‖μ_other − μ_one‖ over harmful prompts in units of ‖v_rev‖; `cosine` of their displacements
    from the aligned model; `cka` (debiased linear); `overlap` of their ten leading directions with its random value,
    and the least and the largest principal angle, radians; `transfer`: AUROC of `one`'s probe (harmful − harmless
    mean) on `other`, fitted and scored on different folds, and `transfer_back` the other way round. A pair of a
    checkpoint with itself holds the probe's own AUROC. What is not defined is empty.
    """
    import pandas as pd

    members = list(run.measured)
    files = {member.id: run.activation_file(member.id) for member in members}
    n_layers, wanted = files["aligned"].n_layers, _wanted(members)
    rows: list[tuple] = []
    for layer in range(n_layers):
        report(Progress("comparing checkpoints", layer, n_layers))
        values = {name: file.layer(layer) for name, file in files.items()}
        rows += [(*pair[:2], layer, *pair[2:]) for pair in _layer(values, wanted, run.harmful, run.fold)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[3:], "float64"))
    run.write_table("pairs", table, rows_per_group=max(1, len(wanted)))


def _wanted(members: list[Member]) -> list[tuple[str, str]]:
    every = [(one, other) for place, one in enumerate(members) for other in members[place:]]
    if len(members) > AT_MOST:
        every = [(one, other) for one, other in every if one.arm == one.id or one == other]
    return [(one.id, other.id) for one, other in every]


def _layer(
    values: dict[str, np.ndarray], wanted: list[tuple[str, str]], harmful: np.ndarray, fold: np.ndarray
) -> list[tuple[Any, ...]]:
    origin = values["aligned"][harmful].mean(axis=0, dtype=np.float64)
    portraits = {name: _portrait(rows, origin, harmful) for name, rows in values.items()}
    scores = transfer(np.stack(list(values.values())), harmful, fold)
    place = {name: index for index, name in enumerate(values)}
    reversion = float(np.linalg.norm(portraits["witness"].displacement))
    width = len(origin)
    return [
        (
            one,
            other,
            *_pair(portraits[one], portraits[other], reversion, width),
            scores[place[one], place[other]],
            scores[place[other], place[one]],
        )
        for one, other in wanted
    ]


def _portrait(rows: np.ndarray, origin: np.ndarray, harmful: np.ndarray) -> _Portrait:
    inner = gram(rows)
    axes = spectrum(inner, rows, SUBSPACE).axes
    return _Portrait(rows[harmful].mean(axis=0, dtype=np.float64) - origin, inner, axes)


def _pair(one: _Portrait, other: _Portrait, reversion: float, width: int) -> tuple[float | None, ...]:
    sizes = float(np.linalg.norm(one.displacement) * np.linalg.norm(other.displacement))
    gap = float(np.linalg.norm(other.displacement - one.displacement))
    try:
        cka = cka_of_grams(one.gram, other.gram) if len(one.gram) >= 4 else None
    except StatisticsError:
        cka = None
    few, many = sorted((len(one.axes), len(other.axes)))
    cosines = np.linalg.svd(one.axes @ other.axes.T, compute_uv=False).clip(0.0, 1.0) if few else None
    angles = (None, None) if cosines is None else (float(np.arccos(cosines[0])), float(np.arccos(cosines[-1])))
    return (
        gap / reversion if reversion else None,
        float(one.displacement @ other.displacement) / sizes if sizes else None,
        cka,
        None if cosines is None else float((cosines**2).mean()),
        many / width if few else None,
        *angles,
    )


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
    found = [_one_way(values, harmful, fold), _one_way(values, harmful, ~fold)]
    return np.mean(found, axis=0)


def _one_way(values: np.ndarray, harmful: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    count = len(values)
    classes = [fitted & harmful, fitted & ~harmful, ~fitted & harmful, ~fitted & ~harmful]
    if not all(each.any() for each in classes):
        return np.full((count, count), np.nan)
    probes = values[:, classes[0]].mean(axis=1, dtype=np.float64) - values[:, classes[1]].mean(axis=1, dtype=np.float64)
    positive = harmful[~fitted]
    above, below = int(positive.sum()), int((~positive).sum())
    found = np.empty((count, count))
    for index in range(count):
        ranks = rankdata(values[index][~fitted] @ probes.T, axis=0)
        found[:, index] = (ranks[positive].sum(axis=0) - above * (above + 1) / 2) / (above * below)
    return found
