"""Stages `direction_*.parquet` and `directions.json`: every method at every checkpoint and layer of a run.

Also the other directions' files: at the aligned model `directions/<name>.safetensors`, at every other checkpoint
`directions/<checkpoint>/<name>.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.directions import METHODS
from probes.directions.contrast import SIDES, Scene
from probes.directions.scores import auroc_interval
from probes.directions.tracking import Fit, Reading, cosines
from probes.directions.vectors import Vectors
from probes.lineage import Member
from probes.progress import Report, silent
from probes.run import Run
from probes.stages import stage
from probes.stages.directions import OF_EVERY_RUN, describe_direction, write_vectors
from probes.stages.method_fits import fitted_methods, read_method, scenes_of, write_methods
from probes.stages.readings import Readings
from probes.stages.readout import forget_readout
from probes.store import ALIGNED, DIRECTIONS, RENAMED

TRACKS = (
    "direction",
    "checkpoint",
    "arm",
    "seed",
    "step",
    "layer",
    "cosine",
    "angle",
    "norm",
    "d_prime",
    "auroc",
    "auroc_low",
    "auroc_high",
    "refit",
    "refit_low",
    "refit_high",
    "accuracy",
    "calibration",
    "reason",
)
_QUALITIES = ("d_prime", "accuracy", "calibration")


def write_fits(
    run: Run,
    winsorise: float | None = None,
    selected: Mapping[str, str] | None = None,
    report: Report = silent,
    methods: Sequence[str] = tuple(METHODS),
) -> None:
    """Fit methods at every checkpoint whose activations are kept, and write directions and tables.

    Each method is kept as it is done; the tables hold those that are asked for, and those that are kept.

    Args:
        run: measured, open for writing; readings that are there are used.
        winsorise: clip massive activations to so many typical spreads.
        selected: what a selection rule says of the refusal direction, for its metadata.
        report: told after each layer.
        methods: names from `METHODS`.
    """
    readings = Readings.of(run, [member.id for member in run.measured])
    names = fitted_methods(run, methods, readings, winsorise)
    write_methods(run, names, readings, winsorise, report)
    _write_tables(run, names, readings, winsorise, dict(selected or {}))


@stage("direction_tracks", version=7, needs=("measured", "prompts"), settings=("seed",))
def _write_tables(
    run: Run, methods: tuple[str, ...], readings: Readings, winsorise: float | None, selected: dict[str, str]
) -> None:
    import pandas as pd

    members, n_layers = run.measured, run.n_layers
    prompts = run.read_table("prompts", columns=["id", "label", "fold"])
    by_method = {name: read_method(run, name) for name in methods}
    fits: list[dict[str, Fit]] = []
    parts: dict[str, list[pd.DataFrame]] = {"tracks": [], "transfer": [], "cosines": [], "projections": []}
    for layer in range(n_layers):
        scenes = scenes_of(run, readings, layer, winsorise)
        fitted = {name: of_method[0][layer] for name, of_method in by_method.items()}
        read = {name: of_method[1][layer] for name, of_method in by_method.items()}
        fits.append(fitted)
        parts["tracks"].append(_tracks(members, layer, fitted, read))
        parts["transfer"].append(_transfer(members, layer, read))
        parts["cosines"].append(_cosines(members, layer, fitted))
        parts["projections"] += _projections(members, layer, scenes, fitted, prompts)
    for name, frames in parts.items():
        table = pd.concat(frames, ignore_index=True)
        run.write_table(f"direction_{name}", table, rows_per_group=max(1, len(table) // n_layers))
    clipped = {"winsorise": "" if winsorise is None else f"{winsorise:g}"}
    _write_files(run, fits, pd.concat(parts["tracks"]), clipped, selected)
    run.write_json(DIRECTIONS, _document(run, methods, winsorise, selected))
    forget_readout(run)  # which is of the vectors that were here before


def _tracks(members: Sequence[Member], layer: int, fits: Mapping[str, Fit], readings: Mapping[str, Reading]) -> Any:
    import pandas as pd

    origin = [member.id for member in members].index(ALIGNED)
    read, units = [readings[name] for name in fits], [fit.vectors[2] for fit in fits.values()]
    cosine = np.clip(np.concatenate([unit @ unit[origin] for unit in units]), -1.0, 1.0)
    columns: dict[str, Any] = {
        "direction": np.repeat(list(fits), len(members)),
        **{key: [member.labels[key] for member in members] * len(fits) for key in members[0].labels},
        "layer": layer,
        "cosine": cosine,
        "angle": np.degrees(np.arccos(cosine)),
        "norm": np.concatenate([fit.norm for fit in fits.values()]),
        **{name: np.concatenate([getattr(reading, name) for reading in read]) for name in _QUALITIES},
        "reason": [reason for fit in fits.values() for reason in fit.reasons],
    }
    classes = np.concatenate([reading.classes for reading in read])
    for column, values in (("auroc", [reading.auroc[origin] for reading in read]), ("refit", _diagonals(read))):
        columns[column] = np.concatenate(values)
        columns[f"{column}_low"], columns[f"{column}_high"] = auroc_interval(columns[column], *classes.T)
    return pd.DataFrame(columns, columns=list(TRACKS)).astype({"reason": "string"})


def _diagonals(readings: Sequence[Reading]) -> list[np.ndarray]:
    return [np.diag(read.auroc) for read in readings]


def _transfer(members: Sequence[Member], layer: int, readings: Mapping[str, Reading]) -> Any:
    import pandas as pd

    names = [member.id for member in members]
    return pd.DataFrame(
        {
            "direction": np.repeat(list(readings), len(names) ** 2),
            "layer": layer,
            "fitted_on": np.tile(np.repeat(names, len(names)), len(readings)),
            "read_on": np.tile(names, len(names) * len(readings)),
            "auroc": np.concatenate([read.auroc.ravel() for read in readings.values()]),
        }
    )


def _cosines(members: Sequence[Member], layer: int, fits: Mapping[str, Fit]) -> Any:
    import pandas as pd

    names = list(fits)
    return pd.DataFrame(
        {
            "checkpoint": np.repeat([member.id for member in members], len(names) ** 2),
            "layer": layer,
            "one": np.tile(np.repeat(names, len(names)), len(members)),
            "other": np.tile(names, len(names) * len(members)),
            "cosine": np.concatenate([cosines(fits, place).ravel() for place in range(len(members))]),
        }
    )


def _projections(
    members: Sequence[Member], layer: int, scenes: Mapping[str, Scene], fits: Mapping[str, Fit], prompts: Any
) -> list[Any]:
    """Every prompt's own activation along the aligned model's directions, in the activations' units; by checkpoint."""
    import pandas as pd

    origin = [member.id for member in members].index(ALIGNED)
    names = [name for name, fit in fits.items() if fit.reasons[origin] is None]
    if not names:
        return []
    axes = np.stack([fits[name].vectors[2, origin] for name in names])
    return [
        pd.DataFrame(
            {
                "direction": np.repeat(names, len(prompts)),
                **member.labels,
                "layer": layer,
                "prompt": np.tile(prompts["id"], len(names)),
                "label": np.tile(prompts["label"], len(names)),
                "projection": (axes @ scenes[member.id].own.astype(np.float64).T).astype(np.float32).ravel(),
            }
        )
        for member in members
    ]


def _write_files(
    run: Run,
    fits: Sequence[Mapping[str, Fit]],
    tracks: Any,
    clipped: Mapping[str, str],
    selected: Mapping[str, str],
) -> None:
    """One native file a direction and checkpoint; layers at which it is not defined are zeros."""
    metrics = {
        key: rows.set_index("layer")[["refit", "d_prime"]] for key, rows in tracks.groupby(["direction", "checkpoint"])
    }
    for place, member in enumerate(run.measured):
        for former in (*RENAMED, *(METHODS.keys() - fits[0].keys() - set(OF_EVERY_RUN))):
            run.direction_path(former, member.id).unlink(missing_ok=True)
        for name in fits[0]:
            unit = np.stack([fit[name].vectors[2, place] for fit in fits])
            norm = np.array([fit[name].norm[place] for fit in fits])
            if member.id == ALIGNED and name in OF_EVERY_RUN:
                continue  # `write_directions` has written those for every run, as published: never winsorised
            if not np.isfinite(norm).any():
                run.direction_path(name, member.id).unlink(missing_ok=True)  # an earlier fit may have left one
                continue
            about = {**describe_direction(run, name, member), **clipped}
            about["metrics_json"] = _metrics(metrics[name, member.id])
            if name == "refusal":
                about |= selected
            vectors = Vectors(
                name,
                tuple(range(len(fits))),
                np.nan_to_num(unit).astype(np.float32),
                np.nan_to_num(norm).astype(np.float32),
                about,
            )
            write_vectors(run, vectors, member.id)


def _metrics(rows: Any) -> str:
    table = {
        str(layer): {name: round(float(value), 6) for name, value in row.items() if np.isfinite(value)}
        for layer, row in rows.iterrows()
    }
    return json.dumps(table)


def _document(run: Run, methods: Sequence[str], winsorise: float | None, selected: Mapping[str, str]) -> dict[str, Any]:
    return {
        "layer": run.headline_layer,
        "checkpoints": [member.id for member in run.measured],
        "winsorise": winsorise,
        "selection": dict(selected),
        "directions": {
            name: {
                "says": method.says,
                "positive": SIDES[method.contrast][0],
                "negative": SIDES[method.contrast][1],
                "control": method.control,
            }
            for name, method in METHODS.items()
            if name in methods
        },
    }
