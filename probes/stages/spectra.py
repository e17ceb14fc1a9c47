"""Stage `spectra.parquet`: how the prompts' activations, and their displacements, are spread at every layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from probes.drift.comparison import gram
from probes.drift.geometry import spectrum
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import compute_parts

_COMPONENTS = 24  # of each spectrum that are kept; the participation ratio is of all
COLUMNS = ("checkpoint", "arm", "seed", "step", "layer", "of", "component", "variance", "share", "participation_ratio")


@stage("spectra", version=1, needs=("measured",))
def write_spectra(run: Run, report: Report = silent) -> None:
    """Write the leading variances of each checkpoint's activations, and of its displacements, prompt by prompt.

    `of` is `activations` (h, about its mean over prompts) or `displacements` (h_T − h_S of the same prompt, about
    its mean). `share` is that of the whole variance. Layers are blocks; the embedding is left out.
    """
    import pandas as pd

    n_layers = run.activation_file("aligned").n_layers
    layers = {f"Spectra of layer {layer}": partial(_measure, layer) for layer in range(n_layers)}
    rows = [row for of_layer in compute_parts(run, layers, report) for row in of_layer]
    run.write_table("spectra", pd.DataFrame(rows, columns=list(COLUMNS)), rows_per_group=len(rows) // n_layers or 1)


def _measure(layer: int, run: Run, report: Report) -> list[dict[str, Any]]:
    """The rows of one layer."""
    report(Progress("measuring spectra", 0, 1, f"layer {layer}"))
    reference, rows = run.activations("aligned", layer).astype(np.float64), list[dict[str, Any]]()
    for member in run.measured:
        values = run.activations(member.id, layer).astype(np.float64)
        clouds = {"activations": values, "displacements": values - reference}
        if member.id == "aligned":
            del clouds["displacements"]
        for of, cloud in clouds.items():
            rows += [{**member.labels, "layer": layer, "of": of, **part} for part in _parts(cloud)]
    return rows


def _parts(cloud: np.ndarray) -> list[dict[str, float | int]]:
    axes = spectrum(gram(cloud), cloud)
    total = float(axes.variances.sum())
    if total == 0:
        return []
    return [
        {
            "component": place,
            "variance": float(variance),
            "share": float(variance) / total,
            "participation_ratio": axes.participation_ratio,
        }
        for place, variance in enumerate(axes.variances[:_COMPONENTS], start=1)
    ]
