"""Stage `probe.parquet`: the refusal probe's four numbers at every checkpoint and layer.

In a real run they did not track behaviour: the AUROC rose from 0.79 to 0.86 while refusals of harmful requests fell
from 86 to 41 % (SmolLM2-135M, twenty benign steps). So they say where the aligned model's direction went, and the
answers say whether the model still refuses.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.directions.refusal import read_refusal_probes
from probes.directions.scores import auroc_interval
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages import stage
from probes.store import ALIGNED

NUMBERS = ("cosine", "auroc", "refit", "norm")
COLUMNS = (
    *("checkpoint", "arm", "seed", "step", "layer", "cosine", "auroc", "auroc_low", "auroc_high"),
    *("refit", "refit_low", "refit_high", "norm"),
)


@stage("probe", version=1, needs=("measured", "prompts"))
def write_probe(run: Run, report: Report = silent) -> None:
    """Write the difference of class means (harmful − harmless) of every checkpoint as a probe, layer by layer.

    `cosine` to the aligned model's; `auroc`: the aligned model's probe on this checkpoint's activations, fitted on one
    fold and read on the other; `refit`: this checkpoint's own probe, likewise; `norm`: the gap of the class means. At
    the run's own token, and NaN where a class mean has no direction or a fold lacks a class.
    """
    import pandas as pd

    members, frames = run.measured, []
    for layer in range(run.n_layers):
        report(Progress("reading the refusal probe", layer, run.n_layers))
        values = {member.id: run.activations(member.id, layer) for member in members}
        numbers = read_refusal_probes(values, values[ALIGNED], run.harmful, run.fold)
        columns: dict[str, Any] = {key: [member.labels[key] for member in members] for key in members[0].labels}
        columns |= {"layer": layer, **numbers}
        for name in ("auroc", "refit"):
            low, high = auroc_interval(numbers[name], *_class_sizes(run))
            columns |= {f"{name}_low": low, f"{name}_high": high}
        frames.append(pd.DataFrame(columns)[list(COLUMNS)])
    run.write_table("probe", pd.concat(frames, ignore_index=True), rows_per_group=len(members))


def _class_sizes(run: Run) -> tuple[int, int]:
    """Prompts of either class in the smaller fold: both folds' scores hang on the same two probes."""
    harmful, harmless = (
        min(int(np.sum(of_class & side)) for side in (run.fold, ~run.fold)) for of_class in (run.harmful, ~run.harmful)
    )
    return harmful, harmless
