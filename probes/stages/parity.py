"""Stage `parity.parquet`: how far activations in 4 or 8 bits are from those of the model as it is stored.

The first prompts are read once more by the aligned model with its stored weights, where there is memory for it beside
the quantised one. The band of relative errors stands in the manifest, and in a sentence beside the results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from probes.activations import collect
from probes.models import ModelHost
from probes.models.machines import available_memory
from probes.run import Run
from probes.stages import stage
from probes.statistics import decimal
from probes.store import ALIGNED, activations_stage

_PROMPTS = 8
_FLOAT32 = 4  # bytes
_ROOM = 1.2  # memory that reading takes, in units of the weights


@stage("parity", version=1, needs=(activations_stage(ALIGNED),))
def write_parity(run: Run, model: ModelHost) -> None:
    """Write a row a layer: median and largest relative error over the prompts, ‖quantised − stored‖ / ‖stored‖."""
    import pandas as pd

    device, missing = _room_for_whole(run, model)
    rows = [] if missing else _rows(run, device)
    run.write_table("parity", pd.DataFrame(rows, columns=["layer", "median", "largest"]).astype({"layer": "int64"}))
    medians = [float(row["median"]) for row in rows]
    band = {"lowest": min(medians), "median": float(np.median(medians)), "highest": max(medians)} if rows else {}
    run.manifest.model["parity"] = {"prompts": len(run.rendered.token_ids[:_PROMPTS]), **band, "missing": missing}
    run.note("parity", _sentence(band, missing))


def _rows(run: Run, device: str) -> list[dict[str, Any]]:
    settings = run.settings
    whole = ModelHost(run.lineage.aligned, device=device, dtype=settings.dtype, allow_pickle=settings.allow_pickle)
    stored, _ = collect(whole, run.rendered.token_ids[:_PROMPTS], position=settings.position)
    rows = []
    for layer, values in enumerate(stored):
        errors = np.linalg.norm(run.activations(ALIGNED, layer)[: len(values)] - values, axis=1)
        relative = errors / np.linalg.norm(values, axis=1)
        rows.append({"layer": layer, "median": float(np.median(relative)), "largest": float(relative.max())})
    return rows


def _room_for_whole(run: Run, model: ModelHost) -> tuple[str, str | None]:
    """Where the stored model is read; and why it is not, where it fits nowhere."""
    files = model.files(run.lineage.aligned)
    in_float32 = _FLOAT32 * sum(int(np.prod(shape)) for shape in files.shapes().values())
    held = in_float32 if run.settings.dtype == "float32" else sum(path.stat().st_size for path in files.paths)
    if torch.cuda.is_available() and _ROOM * held < torch.cuda.mem_get_info()[0]:
        return "cuda", None
    needed, free = _ROOM * in_float32, available_memory()
    if free is not None and needed > free:
        return (
            "cpu",
            f"the stored model takes {decimal(needed / 1e9, 1)} GB here, and {decimal(free / 1e9, 1)} are free",
        )
    return "cpu", None


def _sentence(band: dict[str, float], missing: str | None) -> str:
    if missing:
        return f"How far the quantised model's activations are from the stored model's was not measured: {missing}."
    low, middle, high = (f"{decimal(100 * band[name], 1)} %" for name in ("lowest", "median", "highest"))
    return (
        f"The quantised aligned model's activations are {middle} of their size from those of the stored model (median "
        f"over layers of the median over {_PROMPTS} prompts; {low} to {high} by layer)."
    )
