"""Stage `drift.parquet`: where every checkpoint stands between aligned and witness, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.errors import StatisticsError
from probes.lineage import Lineage
from probes.progress import Progress, Report
from probes.stages.settings import Settings
from probes.statistics import Estimate
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
ByStep = dict[tuple[str, int, int], dict[int, dict[str, Estimate]]]  # (arm, seed, layer) -> step -> statistic


def write_drift(
    run: RunFolder,
    lineage: Lineage,
    harmful: np.ndarray,
    keys: dict[str, str],
    settings: Settings,
    report: Report,
) -> None:
    """Write `drift.parquet`: a row per checkpoint, layer and statistic, with its interval or the reason it has none."""
    asked = settings.model_dump(include={"splits", "bootstraps", "seed"})
    made_from = fingerprint([_VERSION, sorted(keys.items()), asked])
    if run.holds("drift", made_from):
        return
    with run.stage("drift", made_from):
        import pandas as pd

        noise = run.read_table("noise").set_index("layer")["noise"]
        members = [member for member in lineage.members() if member.id != "aligned"]
        aligned, witness = run.activations("aligned"), run.activations("witness")
        rows: list[dict[str, Any]] = []
        for layer in range(-1, aligned.n_layers):
            reference, earlier = aligned.layer(layer), witness.layer(layer)
            for member in members:
                report(Progress("measuring drift", layer + 1, aligned.n_layers + 1, member.id))
                tuned = run.activations(member.id).layer(layer)
                found = estimates(reference, earlier, tuned, harmful, float(noise[layer]), settings)
                rows += drift_rows(member.labels, layer, found)
        run.write_table("drift", typed(pd.DataFrame(rows)))


def estimates_by_step(run: RunFolder, layer: int | None = None) -> ByStep:
    """The drift table as estimates by (arm, seed, layer), then step, then statistic; of blocks, or of one layer.

    Raises:
        RunFolderError: the run has no drift table.
    """
    wanted = [("layer", ">=", 0) if layer is None else ("layer", "==", layer)]
    columns = ["arm", "seed", "layer", "step", "statistic", "value", "low", "high", "reason"]
    found: ByStep = {}
    frame = run.read_table("drift", columns=columns, filters=wanted).astype(object)
    frame = frame.where(frame.notna(), None)
    for arm, seed, place, step, name, *numbers in frame.itertuples(index=False, name=None):
        found.setdefault((arm, seed, place), {}).setdefault(step, {})[name] = Estimate(*numbers)
    return found


def drift_rows(labels: Mapping[str, Any], layer: int, found: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Rows of the drift table for one checkpoint (`labels` as of `Member.labels`) at one layer."""
    return [{**labels, "layer": layer, "statistic": name, **_columns(each)} for name, each in found.items()]


def estimates(
    aligned: np.ndarray,
    witness: np.ndarray,
    tuned: np.ndarray,
    harmful: np.ndarray,
    noise: float,
    settings: Settings,
) -> dict[str, Estimate]:
    """All statistics of one checkpoint at one layer; where the layer carries no difference, each with that reason."""
    try:
        return drift.measure(
            aligned,
            witness,
            tuned,
            harmful,
            noise=noise,
            splits=settings.splits,
            bootstraps=settings.bootstraps,
            seed=settings.seed,
        )
    except StatisticsError as error:
        return drift.undefined(error.what)


def _columns(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "reason": estimate.reason}


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64 and reasons as text, also where a column is empty, so that equal runs give equal bytes."""
    numbers = [name for name in ("value", "low", "high", "observed", "p99", "p", "p_max") if name in frame]
    frame[numbers] = frame[numbers].astype("float64")
    frame["reason"] = frame["reason"].astype("string")
    return frame
