"""Stage `maps/`: PCA and UMAP maps of the prompts at a layer, fitted once, with every checkpoint placed in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from probes.drift.geometry import NEIGHBOURS, Method, PromptMap
from probes.lineage import Member
from probes.progress import Progress, Report, silent
from probes.stages.present import present
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1
Fit = Literal["roles", "all"]
ALL_LAYERS = 8  # models with at most as many layers get a UMAP map of each; larger ones of the headline layer
COLUMNS = ("checkpoint", "arm", "seed", "step", "prompt", "label", "x", "y", "x3", "y3", "z3")


def map_name(method: str, fit: str, layer: int) -> str:
    """Where the map lies in the run folder: `<name>.parquet` the places, `<name>.json` what it is and how good."""
    return f"maps/{method}-{fit}-layer{layer}"


def write_maps(
    run: RunFolder,
    *,
    methods: Sequence[Method] = ("pca", "umap"),
    layers: Sequence[int] | None = None,
    fit: Fit = "roles",
    seed: int = 0,
    report: Report = silent,
) -> list[str]:
    """Write the maps that are not there yet.

    Args:
        run: a run with activations, open for writing.
        methods: which maps.
        layers: at which layers; None: PCA at every one, UMAP at every one of a small model, else at the headline layer.
        fit: `roles`: fitted on the aligned model and the witness; `all`: on every checkpoint. Either way every
            checkpoint is placed in the fitted map, one by one, so that another checkpoint moves none of the others.
        seed: of UMAP.
        report: told where the work is.

    Returns:
        The names of the maps asked for, made now or before.
    """
    members = present(run)
    n_layers = run.activations("aligned").n_layers
    places = [(method, layer) for method in methods for layer in _layers(run, method, layers, n_layers)]
    for done, (method, layer) in enumerate(places):
        report(Progress(f"drawing {method.upper()} maps", done, len(places), f"layer {layer}"))
        _write(run, members, method, fit, layer, seed)
    return [map_name(method, fit, layer) for method, layer in places]


def _layers(run: RunFolder, method: Method, asked: Sequence[int] | None, n_layers: int) -> Sequence[int]:
    if asked is not None:
        return asked
    if method == "pca" or n_layers <= ALL_LAYERS:
        return range(n_layers)
    return [int(run.manifest.config["headline_layer"])]


def _write(run: RunFolder, members: list[Member], method: Method, fit: Fit, layer: int, seed: int) -> None:
    name = map_name(method, fit, layer)
    keys = {member.id: run.manifest.checkpoints[member.id]["key"] for member in members}
    made_from = fingerprint([_VERSION, sorted(keys.items()), method, fit, layer, seed, NEIGHBOURS])
    if run.holds(name, made_from):
        return
    with run.stage(name, made_from):
        import pandas as pd

        asked = run.read_table("prompts", columns=["id", "label"])
        values = {member.id: run.activations(member.id).layer(layer) for member in members}
        fitted = list(values) if fit == "all" else ["aligned", "witness"]
        made = PromptMap.fit(method, np.concatenate([values[each] for each in fitted]), seed=seed)
        own = {
            each: {axes: np.split(found, len(fitted))[place] for axes, found in made.places.items()}
            for place, each in enumerate(fitted)
        }
        parts = [_frame(member, asked, own.get(member.id) or made.place(values[member.id])) for member in members]
        table = pd.concat(parts, ignore_index=True)
        run.write_table(name, table[list(COLUMNS)])
        run.write_json(name, _about(made, fit, layer, fitted, table))


def _frame(member: Member, asked: pd.DataFrame, places: dict[int, np.ndarray]) -> pd.DataFrame:
    import pandas as pd

    flat, deep = places[2], places[3]
    columns = {"prompt": asked["id"], "label": asked["label"], "x": flat[:, 0], "y": flat[:, 1]}
    return pd.DataFrame({**member.labels, **columns, "x3": deep[:, 0], "y3": deep[:, 1], "z3": deep[:, 2]})


def _about(made: PromptMap, fit: Fit, layer: int, fitted: list[str], table: pd.DataFrame) -> dict[str, object]:
    return {
        "method": made.method,
        "fit": fit,
        "layer": layer,
        "seed": made.seed,
        "fitted_on": fitted,
        "points": len(table),
        "trustworthiness": {str(axes): round(value, 4) for axes, value in made.trustworthiness.items()},
        "neighbours": made.neighbours,
        "explained": [round(share, 4) for share in made.explained],
    }
