"""Stages `projections.parquet` and `maps/plane.parquet`: what the front end draws, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.drift.geometry import reversion_frame
from probes.errors import StatisticsError
from probes.lineage import ROLES
from probes.run import Run
from probes.stages import stage
from probes.store import ActivationFile

if TYPE_CHECKING:
    import pandas as pd


@stage("views", version=2, needs=("activations",))
def write_views(run: Run) -> None:
    """Write every prompt's and every checkpoint's place in the plane of its layer, along v_rev and across it.

    All are in units of the return fraction: 0 is the aligned model's mean over harmful prompts, 1 the witness's.
    A layer at which the witness stands where the aligned model stands has no rows, and a run without a witness none.
    """
    write_places(run, [member.labels for member in run.members])


def write_places(run: Run, checkpoints: Sequence[Mapping[str, str | int]]) -> None:
    """Write both tables for some checkpoints, inside a stage that is open.

    Args:
        run: holds their activations.
        checkpoints: the labels of each, checkpoint, arm, seed and step; roles among them.
    """
    import pandas as pd

    prompts = run.prompts
    files = {str(labels["checkpoint"]): run.activation_file(str(labels["checkpoint"])) for labels in checkpoints}
    projections: list[pd.DataFrame] = []
    plane: list[dict[str, Any]] = []
    for layer in range(files["aligned"].n_layers):
        means, places = _layer(files, prompts.harmful, layer)
        if means is None:
            continue
        for labels in checkpoints:
            name = str(labels["checkpoint"])
            plane.append({**labels, "layer": layer, **dict(zip(_AXES, means[name], strict=True))})
            projections.append(
                pd.DataFrame(
                    {
                        **labels,
                        "layer": layer,
                        "prompt": prompts.ids,
                        "label": [prompt.label for prompt in prompts.prompts],
                        "projection": places[name][:, 0].astype(np.float32),
                        "across": places[name][:, 1].astype(np.float32),
                    }
                )
            )
    run.write_table("maps/plane", pd.DataFrame(plane) if plane else _empty_table((*_LABELS, *_AXES)))
    table = pd.concat(projections, ignore_index=True) if projections else _empty_table(_PROMPT_COLUMNS)
    # One group of rows a layer: a page reads one.
    run.write_table("projections", table, rows_per_group=len(checkpoints) * len(prompts.prompts))


_LABELS = ("checkpoint", "arm", "seed", "step", "layer")
_AXES = ("along", "across", "third")
_TEXTS, _COUNTS = ("checkpoint", "arm", "prompt", "label"), ("seed", "step", "layer")
_PROMPT_COLUMNS = (*_LABELS, "prompt", "label", "projection", "across")


def _empty_table(columns: Sequence[str]) -> pd.DataFrame:
    """No rows, but columns of their own types, so that it can be filtered like any other."""
    import pandas as pd

    types = {name: "string" if name in _TEXTS else "int64" if name in _COUNTS else "float64" for name in columns}
    return pd.DataFrame(columns=list(columns)).astype(types)


def _layer(
    files: dict[str, ActivationFile], harmful: np.ndarray, layer: int
) -> tuple[dict[str, np.ndarray] | None, dict[str, np.ndarray]]:
    """Coordinates of every checkpoint's mean and of its prompts [prompt, 2] at one layer, in units of ‖v_rev‖."""
    if "witness" not in files:
        return None, {}
    rows = {name: file.layer(layer).astype(np.float64) for name, file in files.items()}
    origin = rows["aligned"][harmful].mean(axis=0)
    means = {name: values[harmful].mean(axis=0) - origin for name, values in rows.items()}
    reversion = means["witness"]
    moved = [mean for name, mean in means.items() if name not in ROLES]
    try:
        frame = reversion_frame(np.stack(moved or [reversion]), reversion)
    except StatisticsError:
        return None, {}
    norm = np.linalg.norm(reversion)
    places = {name: frame @ mean / norm for name, mean in means.items()}
    return places, {name: (values - origin) @ frame[:2].T / norm for name, values in rows.items()}
