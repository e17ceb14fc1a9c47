"""Stage `drift.parquet`: where every checkpoint stands between aligned and witness, by layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from probes import drift
from probes.directions.reversion import reversions_at_layer
from probes.errors import StatisticsError
from probes.lineage import Member
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import compute_parts
from probes.statistics import Estimate
from probes.store.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

_OPPOSITE = {"aligned": "witness", "witness": "aligned"}  # where a displacement is held against the way to


@stage("drift", version=3, needs=("activations", "noise", "prompts"), settings=("splits", "bootstraps", "seed"))
def write_drift(run: Run, report: Report) -> None:
    """Write `drift.parquet`: a row per checkpoint, layer and statistic, with its interval or the reason it has none.

    `reference` is the role that the displacement is measured from. For the arm `mirror` that is the witness, and the
    direction leads from the witness to the aligned model: its return is ⟨μ_W' − μ_W, −v_rev⟩ / ‖v_rev‖².
    """
    import pandas as pd

    members = [member for member in run.members if member.id != "aligned"]
    by_member = compute_parts(run, {f"Drift of {member.id}": partial(_measure, member) for member in members}, report)
    rows = [row for of_layer in zip(*by_member, strict=True) for of_member in of_layer for row in of_member]
    run.write_table("drift", with_types(pd.DataFrame(rows)))


def _measure(member: Member, run: Run, report: Report) -> list[list[dict[str, Any]]]:
    """One checkpoint's rows of each layer, from the embedding on."""
    noise = run.read_table("noise").set_index("layer")["noise"]
    about = member.labels | {"reference": member.reference}
    rows = []
    for layer in range(-1, run.n_layers):
        report(Progress("measuring drift", layer + 1, run.n_layers + 1, member.id))
        roles = {"aligned": run.activations("aligned", layer), "witness": run.witness_activations(layer)}
        start, end = roles[member.reference], roles[_OPPOSITE[member.reference]]
        assert start is not None  # only a mirror starts at the witness, and without one there is none
        tuned = run.activations(member.id, layer)
        statistics = estimates(run, (start, end, tuned), float(noise[layer]), run.settings)
        rows.append(drift_rows(about, layer, statistics))
    return rows


def drift_rows(labels: Mapping[str, Any], layer: int, by_statistic: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    """Rows of the drift table for one checkpoint (`labels` as of `Member.labels`) at one layer."""
    return [
        {**labels, "layer": layer, "statistic": name, **_columns(estimate)} for name, estimate in by_statistic.items()
    ]


def estimates(
    run: Run, rows: tuple[np.ndarray, np.ndarray | None, np.ndarray], noise: float, settings: Settings
) -> dict[str, Estimate]:
    """All statistics of one checkpoint at one layer; where the layer carries no difference, each with that reason.

    Args:
        run: whose prompts were read.
        rows: activations of the aligned model, of the witness (None where there is none), and of the checkpoint.
        noise: of a repeated pass, as of `drift.measure`.
        settings: splits, bootstraps and seed.
    """
    aligned, witness, tuned = rows
    try:
        return drift.measure(
            aligned,
            None if witness is None else reversions_at_layer(aligned, witness),
            tuned,
            run.harmful,
            groups=run.groups,
            noise=noise,
            splits=settings.splits,
            bootstraps=settings.bootstraps,
            seed=settings.seed,
        )
    except StatisticsError as error:
        undefined = drift.undefined_statistics(error.what)
        return undefined if witness is not None else drift.without_witness(undefined)


def _columns(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "reason": estimate.reason}


def with_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64 and reasons as text, also where a column is empty, so that equal runs give equal bytes."""
    numbers = [name for name in ("value", "low", "high", "observed", "limit", "p", "p_max", "power") if name in frame]
    frame[numbers] = frame[numbers].astype("float64")
    frame["reason"] = frame["reason"].astype("string")
    return frame
