"""Stage `maps/`: PCA and UMAP maps of the prompts at a layer, fitted once, with every checkpoint placed in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from probes.drift.geometry import Method, PromptMap
from probes.lineage import Member
from probes.progress import Progress, Report, silent
from probes.run import Run
from probes.stages import stage

if TYPE_CHECKING:
    import pandas as pd

Fit = Literal["roles", "all"]
ALL_LAYERS = 8  # models with at most as many layers get a UMAP map of each; larger ones of the headline layer
COLUMNS = ("checkpoint", "arm", "seed", "step", "prompt", "label", "x", "y", "x3", "y3", "z3")


def map_name(method: str, fit: str, layer: int) -> str:
    """Where the map lies in the run folder: `<name>.parquet` the places, `<name>.json` what it is and how good."""
    return f"maps/{method}-{fit}-layer{layer}"


@dataclass(frozen=True)
class MapOptions:
    """Which maps.

    Attributes:
        methods: `pca`, `umap`.
        layers: at which; None: PCA at every one, UMAP at every one of a small model, else at the headline layer.
        fit: `roles`: fitted on the aligned model and the witness, if any; `all`: on every checkpoint. Either way every
            checkpoint is placed in the fitted map, one by one, so that another checkpoint moves none of the others.
        seed: of UMAP.
    """

    methods: tuple[Method, ...] = ("pca", "umap")
    layers: tuple[int, ...] | None = None
    fit: Fit = "roles"
    seed: int = 0


def write_maps(run: Run, options: MapOptions, report: Report = silent) -> list[str]:
    """Write the maps that are not there yet; returns the names of all that were asked for."""
    places = [(method, layer) for method in options.methods for layer in _layers(run, method, options.layers)]
    for done, (method, layer) in enumerate(places):
        report(Progress(f"drawing {method.upper()} maps", done, len(places), f"layer {layer}"))
        write_map(run, method, options.fit, layer, options.seed)
    return [map_name(method, options.fit, layer) for method, layer in places]


def _layers(run: Run, method: Method, chosen: Sequence[int] | None) -> Sequence[int]:
    n_layers = run.activation_file("aligned").n_layers
    if chosen is not None:
        return chosen
    if method == "pca" or n_layers <= ALL_LAYERS:
        return range(n_layers)
    return [run.headline_layer]


@stage("maps/{method}-{fit}-layer{layer}", version=2, needs=("measured", "prompts"))
def write_map(run: Run, method: Method, fit: Fit, layer: int, seed: int) -> None:
    """Write one map and its description: fitted on some checkpoints, with every checkpoint placed in it."""
    import pandas as pd

    members, name = run.measured, map_name(method, fit, layer)
    prompts = run.read_table("prompts", columns=["id", "label"])
    values = {member.id: run.activations(member.id, layer) for member in members}
    fitted: list[str] = list(values) if fit == "all" else [name for name in ("aligned", "witness") if name in values]
    prompt_map = PromptMap.fit(method, np.concatenate([values[checkpoint] for checkpoint in fitted]), seed=seed)
    own = {
        checkpoint: {axes: np.split(rows, len(fitted))[place] for axes, rows in prompt_map.places.items()}
        for place, checkpoint in enumerate(fitted)
    }
    parts = [_frame(member, prompts, own.get(member.id) or prompt_map.place(values[member.id])) for member in members]
    table = pd.concat(parts, ignore_index=True)
    run.write_table(name, table[list(COLUMNS)])
    run.write_json(name, _about(prompt_map, fit, layer, fitted, table))


def _frame(member: Member, prompts: pd.DataFrame, places: dict[int, np.ndarray]) -> pd.DataFrame:
    import pandas as pd

    flat, deep = places[2], places[3]
    columns = {"prompt": prompts["id"], "label": prompts["label"], "x": flat[:, 0], "y": flat[:, 1]}
    return pd.DataFrame({**member.labels, **columns, "x3": deep[:, 0], "y3": deep[:, 1], "z3": deep[:, 2]})


def _about(prompt_map: PromptMap, fit: Fit, layer: int, fitted: list[str], table: pd.DataFrame) -> dict[str, object]:
    return {
        "method": prompt_map.method,
        "fit": fit,
        "layer": layer,
        "seed": prompt_map.seed,
        "fitted_on": fitted,
        "points": len(table),
        "trustworthiness": {str(axes): round(value, 4) for axes, value in prompt_map.trustworthiness.items()},
        "neighbours": prompt_map.neighbours,
        "explained": [round(share, 4) for share in prompt_map.explained],
    }
