"""Stage `weight_drift.parquet`: how far each tensor of every fine-tuned checkpoint went from the aligned model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from probes.errors import CheckpointError
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.weight_space import aligned_norms, drift_norms
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import complete_jobs
from probes.stages.weights import describe_tensor

COLUMNS = ("checkpoint", "arm", "seed", "step", "tensor", "kind", "layer", "frobenius", "relative", "reason")


@stage("weight_drift", version=1, needs=("activations",))
def write_weight_drift(run: Run, model: ModelHost, report: Report) -> None:
    """Write a row a tensor that moved: ‖θ_T − θ_S‖ (Frobenius; of an adapter, of what it adds), and over ‖θ_S‖.

    It needs no witness. A checkpoint whose adapter cannot be merged into the weights has one row, with the reason.
    `gravity-probe compare` gives spectral norms, and the share that lies in the span of witness − aligned.
    """
    import pandas as pd

    jobs = {f"Weight drift of {member.id}": partial(_measure, member) for member in run.tuned}
    rows = dict(complete_jobs(run, model, jobs, report))
    frame = pd.DataFrame([row for name in jobs for row in rows[name]], columns=list(COLUMNS))
    numbers = dict.fromkeys(("frobenius", "relative"), "float64")
    run.write_table("weight_drift", frame.astype({**numbers, "layer": "int64", "reason": "string"}))


def _measure(member: Member, _: Run, model: ModelHost, report: Report) -> list[dict[str, Any]]:
    report(Progress("measuring weight drift", 0, 1, member.id))
    return list(_rows(model, member))


def _rows(model: ModelHost, member: Member) -> Iterator[dict[str, Any]]:
    try:
        norms = drift_norms(model, member.ref)
    except CheckpointError as error:
        yield {**member.labels, "tensor": "", "kind": "", "layer": -1, "reason": error.what}
        return
    moved = {name: norm for name, norm in norms.items() if norm > 0}
    sizes = aligned_norms(model, moved.keys())
    for name, norm in moved.items():
        size = sizes.get(name)
        about = {"frobenius": norm, "relative": norm / size if size else None, "reason": None}
        yield {**member.labels, "tensor": name, **describe_tensor(name), **about}
