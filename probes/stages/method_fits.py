"""Stages `direction_fits/<method>`: one method at every checkpoint and layer, kept as soon as it is done.

The tables and files of all directions are made from these; another method later needs no method fitted again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

import numpy as np

from probes.directions import METHODS
from probes.directions.contrast import Scene
from probes.directions.tracking import Fit, Reading, fit_layer, read_layer
from probes.errors import RunFolderError
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import StageJob, complete_parts
from probes.stages.readings import READINGS, Readings
from probes.store import ALIGNED, direction_file
from probes.store.atomic import write_tensors
from probes.store.documents import parse_json

_SCORES = ("auroc", "d_prime", "accuracy", "calibration", "classes")


_NONE = Readings({}, {})
Fitted = tuple[list[Fit], list[Reading]]


def method_jobs(run: Run, methods: Sequence[str], winsorise: float | None) -> list[StageJob]:
    """What fits those methods, and is not there, that need only the run's own activations, at any time.

    Args:
        run: measured.
        methods: names from `METHODS`.
        winsorise: clip massive activations to so many typical spreads.
    """
    own = [name for name in methods if METHODS[name].contrast not in READINGS]
    return [
        StageJob(
            f"Fit of {name}", _stage_of(name), _made_from(run, name, _NONE, winsorise), partial(_fit, name, winsorise)
        )
        for name in own
        if not _holds(run, name, _NONE, winsorise)
    ]


def _fit(method: str, winsorise: float | None, run: Run, model: ModelHost, report: Report) -> None:
    del model  # activations that are kept are enough
    _keep(run, method, _fit_method(method, _NONE, winsorise, run, report))


def write_methods(
    run: Run, methods: Sequence[str], readings: Readings, winsorise: float | None, report: Report
) -> None:
    """Fit methods at every checkpoint whose activations are kept; each is kept as it is done.

    Args:
        run: measured, open for writing.
        methods: names from `METHODS`; those that are kept are not fitted again.
        readings: of other tokens.
        winsorise: clip massive activations to so many typical spreads.
        report: told after each layer.
    """
    parts = {
        name: partial(_fit_method, name, _reads(name, readings), winsorise)
        for name in methods
        if not _holds(run, name, readings, winsorise)
    }
    if parts:
        for name, fitted in complete_parts(run, parts, report):
            _write_method(run, name, _reads(name, readings), winsorise, fitted)
    for stage_name in map(_stage_of, parts):  # in the manifest they stand in their own order, whichever ended first
        run.manifest.stages[stage_name] = run.manifest.stages.pop(stage_name)


def _fit_method(method: str, readings: Readings, winsorise: float | None, run: Run, report: Report) -> Fitted:
    """One method at every layer and checkpoint."""
    fits, scores = [], []
    for layer in range(run.n_layers):
        report(Progress("fitting directions", layer, run.n_layers, f"{method}, layer {layer}"))
        scenes = scenes_of(run, readings, layer, winsorise)
        chosen = {method: METHODS[method]}
        fitted = fit_layer(scenes, chosen, seed=run.settings.seed, layer=layer, n_layers=run.n_layers)
        fits.append(fitted[method])
        scores.append(read_layer(scenes, fitted)[method])
    return fits, scores


@stage("direction_fits/{method}", version=1, needs=("measured", "prompts"), settings=("seed",))
def _write_method(run: Run, method: str, readings: Readings, winsorise: float | None, fitted: Fitted) -> None:
    """Keep a method's directions and scores."""
    del readings, winsorise  # what it was fitted on
    _keep(run, method, fitted)


def _keep(run: Run, method: str, fitted: Fitted) -> None:
    fits, scores = fitted
    arrays = {"direction": np.stack([fit.vectors[2] for fit in fits]), "norm": np.stack([fit.norm for fit in fits])}
    arrays |= {name: np.stack([getattr(reading, name) for reading in scores]) for name in _SCORES}
    path = run.path / _place(method)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, arrays, {"reasons": json.dumps([fit.reasons for fit in fits])})
    run.record(path)


def read_method(run: Run, method: str) -> Fitted:
    """What `write_methods` has kept, by layer; of the fits only the directions of all prompts.

    Raises:
        RunFolderError: the file has changed.
    """
    from safetensors import safe_open

    path = run.path / _place(method)
    run.check(path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in ("direction", "norm", *_SCORES)}
        reasons = parse_json(file.metadata()["reasons"], str(path), error=RunFolderError)
    fits, scores = [], []
    for layer, vectors in enumerate(arrays["direction"]):
        fit = Fit.empty(*vectors.shape)
        fit.vectors[2], fit.norm[:], fit.reasons[:] = vectors, arrays["norm"][layer], reasons[layer]
        fits.append(fit)
        scores.append(Reading(**{name: arrays[name][layer] for name in _SCORES}))
    return fits, scores


def fitted_methods(run: Run, requested: Sequence[str], readings: Readings, winsorise: float | None) -> tuple[str, ...]:
    """The methods that were asked for, and those that are kept of the same inputs."""
    return tuple(name for name in METHODS if name in requested or _holds(run, name, readings, winsorise))


def _holds(run: Run, method: str, readings: Readings, winsorise: float | None) -> bool:
    inputs = (_reads(method, readings), readings)  # to earlier versions every reading was an input of every method
    return any(run.holds(_stage_of(method), _made_from(run, method, read, winsorise)) for read in inputs)


def _made_from(run: Run, method: str, readings: Readings, winsorise: float | None) -> str:
    return _write_method.made_from(run, method, readings, winsorise, None)


def _reads(method: str, readings: Readings) -> Readings:
    """Of the readings, what a method looks at."""
    return readings if METHODS[method].contrast in READINGS else _NONE


def scenes_of(run: Run, readings: Readings, layer: int, winsorise: float | None) -> dict[str, Scene]:
    """What the methods read at one layer, by checkpoint."""
    values = {member.id: run.activations(member.id, layer) for member in run.measured}
    return {
        name: Scene(
            rows,
            values[ALIGNED],
            values.get("witness"),
            run.harmful,
            run.fold,
            readings.layer(name, layer),
            winsorise,
        )
        for name, rows in values.items()
    }


def _stage_of(method: str) -> str:
    return f"direction_fits/{method}"


def _place(method: str) -> str:
    return f"direction_fits/{direction_file(method)}.safetensors"
