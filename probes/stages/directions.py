"""Stages `directions/` and `direction_*.parquet`: safety-relevant directions, at every checkpoint and layer.

`write_directions` leaves the reversion and its twin, which every run has. `write_fits` leaves all the others too, at
the aligned model (`directions/<name>.safetensors`) and at every other checkpoint (`directions/<checkpoint>/…`), and
the tables of how they turn, what they still read, and how they lie to each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.directions import METHODS
from probes.directions.contrast import SIDES, Scene
from probes.directions.scores import auroc_interval
from probes.directions.tracking import Fit, Reading, cosines, fit_layer, read_layer
from probes.directions.vectors import FORMAT_VERSION, Vectors
from probes.errors import RunFolderError
from probes.lineage import Lineage, Member
from probes.progress import Progress, Report, silent
from probes.stages.present import present
from probes.stages.readings import reading_path
from probes.store import RunFolder, fingerprint

_VERSION = 1
_FITS = 2
ALIGNED = "aligned"
DIRECTIONS = "directions"
KEPT = "directions"  # the document, directions.json
TRACKS = (
    "direction", "checkpoint", "arm", "seed", "step", "layer", "cosine", "angle", "norm", "d_prime", "auroc",
    "auroc_low", "auroc_high", "refit", "refit_low", "refit_high", "accuracy", "calibration", "reason",
)  # fmt: skip
_CONCEPTS = {"models": "reversion towards the witness", "displacements": "reversion towards the witness"}


def direction_path(run: RunFolder, name: str, checkpoint: str = ALIGNED) -> Path:
    """Where a direction's file lies, whether or not it is there."""
    folder = run.path / DIRECTIONS
    return (folder if checkpoint == ALIGNED else folder / checkpoint) / f"{_file_name(name)}.safetensors"


def read_direction(run: RunFolder, name: str, checkpoint: str = ALIGNED) -> Vectors:
    """A direction of a run.

    Raises:
        RunFolderError: it is not there (those that are, are named), or is damaged.
    """
    path = direction_path(run, name, checkpoint)
    if not path.is_file():
        known = directions_of(run, checkpoint)
        raise RunFolderError(
            f"{run.path} has no direction {name!r} at {checkpoint}",
            expected=", ".join(known) or "none is fitted there",
            next_step=f"Fit them: gravity-probe directions {run.path} fit.",
        )
    return Vectors.read(path)


def place_of(run: RunFolder, vectors: Vectors) -> int:
    """The layer that a direction is meant for: its selection's, else its only one, else the run's headline layer."""
    if vectors.declared_layer is not None:
        return vectors.declared_layer
    return vectors.layers[0] if len(vectors.layers) == 1 else int(run.manifest.config["headline_layer"])


def directions_of(run: RunFolder, checkpoint: str = ALIGNED) -> list[str]:
    """Names of the directions that are kept for a checkpoint: fitted, and brought from elsewhere."""
    folder = direction_path(run, "any", checkpoint).parent
    found = {path.stem for path in folder.glob("*.safetensors")}
    ordered = {_file_name(name): name for name in METHODS}
    return [name for stem, name in ordered.items() if stem in found] + sorted(found - set(ordered))


def write_directions(run: RunFolder, lineage: Lineage, harmful: np.ndarray, keys: dict[str, str]) -> None:
    """Write `directions/reversion` and its difference-in-differences twin: unit vectors [layer, d_model] and norms.

    v_rev(l) = mean over harmful prompts of (witness − aligned) at layer l, aligned towards witness (arXiv 2606.28525);
    the twin takes the same difference of (harmful − harmless) means, which cancels a shift common to all prompts.
    """
    made_from = fingerprint([_VERSION, keys["aligned"], keys["witness"]])
    if run.holds("directions", made_from):
        return
    with run.stage("directions", made_from):
        aligned, witness = run.activations("aligned"), run.activations("witness")
        raw: dict[str, list[np.ndarray]] = {"reversion": [], "reversion_did": []}
        for layer in range(aligned.n_layers):
            gap = witness.layer(layer).astype(np.float64) - aligned.layer(layer)
            raw["reversion"].append(gap[harmful].mean(axis=0))
            raw["reversion_did"].append(gap[harmful].mean(axis=0) - gap[~harmful].mean(axis=0))
        members = {member.id: member for member in lineage.members()}
        for name, rows in raw.items():
            vectors = Vectors.of_raw(
                name, tuple(range(len(rows))), np.stack(rows), _about(run, lineage, name, members[ALIGNED], harmful)
            )
            vectors.write(direction_path(run, name))


def write_fits(
    run: RunFolder,
    *,
    winsorise: float | None = None,
    selected: Mapping[str, str] | None = None,
    report: Report = silent,
) -> None:
    """Fit every method at every checkpoint whose activations are kept, and write directions and tables.

    Args:
        run: measured, open for writing; readings that are there are used.
        winsorise: clip massive activations to so many typical spreads.
        selected: what a selection rule says of the refusal direction, for its metadata.
        report: told after each layer.
    """
    members = present(run)
    made_from = _made_from(run, members, winsorise, selected)
    if run.holds("direction_tracks", made_from):
        return
    with run.stage("direction_tracks", made_from):
        import pandas as pd

        lineage = Lineage.opened(run.manifest.lineage, run.path)
        asked = run.read_table("prompts", columns=["id", "label", "fold"])
        harmful, fold = (asked["label"] == "harmful").to_numpy(), asked["fold"].to_numpy() == 1
        n_layers = run.activations(ALIGNED).n_layers
        fits: list[dict[str, Fit]] = []
        parts: dict[str, list[pd.DataFrame]] = {"tracks": [], "transfer": [], "cosines": [], "projections": []}
        for layer in range(n_layers):
            report(Progress("fitting directions", layer, n_layers, f"layer {layer}"))
            scenes = _scenes(run, members, layer, harmful, fold, winsorise)
            fitted = fit_layer(scenes, seed=int(run.manifest.config["seed"]))
            read = read_layer(scenes, fitted)
            fits.append(fitted)
            parts["tracks"].append(_tracks(members, layer, fitted, read))
            parts["transfer"].append(_transfer(members, layer, read))
            parts["cosines"].append(_cosines(members, layer, fitted))
            parts["projections"].append(_projections(members, layer, scenes, fitted, asked))
        for name, frames in parts.items():
            run.write_table(f"direction_{name}", pd.concat(frames, ignore_index=True), rows_per_group=len(frames[0]))
        _write_files(run, lineage, members, fits, pd.concat(parts["tracks"]), harmful, selected or {})
        run.write_json(KEPT, _document(run, members, winsorise, selected or {}))


def _made_from(
    run: RunFolder, members: Sequence[Member], winsorise: float | None, selected: Mapping[str, str] | None
) -> str:
    keys = sorted((member.id, run.manifest.checkpoints[member.id]["key"]) for member in members)
    readings = sorted(
        (path.parent.name, path.stem, path.stat().st_size) for path in (run.path / "readings").glob("*/*.safetensors")
    )
    asked = [run.manifest.stages.get("prompts"), run.manifest.config["seed"]]
    return fingerprint([_FITS, keys, asked, list(METHODS), winsorise, dict(selected or {}), readings])


def _scenes(
    run: RunFolder, members: Sequence[Member], layer: int, harmful: np.ndarray, fold: np.ndarray,
    winsorise: float | None,
) -> dict[str, Scene]:  # fmt: skip
    values = {member.id: run.activations(member.id).layer(layer) for member in members}
    readings = [folder.name for folder in (run.path / "readings").glob("*") if folder.is_dir()]
    return {
        name: Scene(
            rows, values[ALIGNED], values["witness"], harmful, fold,
            {reading: _reading(run, reading, name, layer) for reading in readings
             if reading_path(run, reading, name).is_file()},
            winsorise,
        )
        for name, rows in values.items()
    }  # fmt: skip


def _reading(run: RunFolder, name: str, checkpoint: str, layer: int) -> np.ndarray:
    from probes.store import ActivationFile

    return ActivationFile(reading_path(run, name, checkpoint)).layer(layer)


def _tracks(members: Sequence[Member], layer: int, fits: Mapping[str, Fit], readings: Mapping[str, Reading]) -> Any:
    import pandas as pd

    origin = [member.id for member in members].index(ALIGNED)
    frames = []
    for name, fit in fits.items():
        read = readings[name]
        cosine = np.clip(fit.vectors[2] @ fit.vectors[2, origin], -1.0, 1.0)
        columns: dict[str, Any] = {
            "direction": name,
            **{key: [member.labels[key] for member in members] for key in members[0].labels},
            "layer": layer,
            "cosine": cosine,
            "angle": np.degrees(np.arccos(cosine)),
            "norm": fit.norm,
            "d_prime": read.d_prime,
        }
        for column, value in (("auroc", read.auroc[origin]), ("refit", np.diag(read.auroc))):
            low, high = auroc_interval(value, *read.classes.T)
            columns |= {column: value, f"{column}_low": low, f"{column}_high": high}
        told = {"accuracy": read.accuracy, "calibration": read.calibration, "reason": list(fit.reasons)}
        frames.append(pd.DataFrame({**columns, **told}, columns=list(TRACKS)))
    return pd.concat(frames, ignore_index=True).astype({"reason": "string"})


def _transfer(members: Sequence[Member], layer: int, readings: Mapping[str, Reading]) -> Any:
    import pandas as pd

    names = [member.id for member in members]
    frames = [
        pd.DataFrame(
            {
                "direction": name, "layer": layer, "fitted_on": np.repeat(names, len(names)),
                "read_on": np.tile(names, len(names)), "auroc": read.auroc.ravel(),
            }
        )
        for name, read in readings.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _cosines(members: Sequence[Member], layer: int, fits: Mapping[str, Fit]) -> Any:
    import pandas as pd

    names = list(fits)
    frames = [
        pd.DataFrame(
            {
                "checkpoint": member.id, "layer": layer, "one": np.repeat(names, len(names)),
                "other": np.tile(names, len(names)), "cosine": cosines(fits, place).ravel(),
            }
        )
        for place, member in enumerate(members)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _projections(
    members: Sequence[Member], layer: int, scenes: Mapping[str, Scene], fits: Mapping[str, Fit], asked: Any
) -> Any:
    """Every prompt's own activation along the aligned model's directions, in the activations' units."""
    import pandas as pd

    origin = [member.id for member in members].index(ALIGNED)
    names = [name for name, fit in fits.items() if fit.reasons[origin] is None]
    axes = np.stack([fits[name].vectors[2, origin] for name in names])
    frames = []
    for member in members:
        places = scenes[member.id].own.astype(np.float64) @ axes.T
        frames += [
            pd.DataFrame(
                {
                    "direction": name, **member.labels, "layer": layer, "prompt": asked["id"],
                    "label": asked["label"], "projection": places[:, column].astype(np.float32),
                }
            )
            for column, name in enumerate(names)
        ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def _write_files(
    run: RunFolder, lineage: Lineage, members: Sequence[Member], fits: Sequence[Mapping[str, Fit]], tracks: Any,
    harmful: np.ndarray, selected: Mapping[str, str],
) -> None:  # fmt: skip
    """One native file a direction and checkpoint; layers at which it is not defined are zeros."""
    metrics = {
        key: rows.set_index("layer")[["refit", "d_prime"]] for key, rows in tracks.groupby(["direction", "checkpoint"])
    }
    for place, member in enumerate(members):
        for name in fits[0]:
            unit = np.stack([fit[name].vectors[2, place] for fit in fits])
            norm = np.array([fit[name].norm[place] for fit in fits])
            if not np.isfinite(norm).any():
                continue
            if member.id == ALIGNED and METHODS[name].contrast in _CONCEPTS:
                continue  # `write_directions` has written those, for every run
            about = _about(run, lineage, name, member, harmful)
            about["metrics_json"] = _metrics(metrics[name, member.id])
            if name == "refusal":
                about |= selected
            Vectors(
                name, tuple(range(len(fits))), np.nan_to_num(unit).astype(np.float32),
                np.nan_to_num(norm).astype(np.float32), about,
            ).write(direction_path(run, name, member.id))  # fmt: skip


def _metrics(rows: Any) -> str:
    table = {
        str(layer): {name: round(float(value), 6) for name, value in row.items() if np.isfinite(value)}
        for layer, row in rows.iterrows()
    }
    return json.dumps(table)


def _document(
    run: RunFolder, members: Sequence[Member], winsorise: float | None, selected: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "layer": run.manifest.config["headline_layer"],
        "checkpoints": [member.id for member in members],
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
        },
    }


def _about(run: RunFolder, lineage: Lineage, name: str, member: Member, harmful: np.ndarray) -> dict[str, str]:
    """The description that every vector file carries; all strings, as safetensors wants."""
    checkpoints, model = run.manifest.checkpoints, run.manifest.model
    contrast = METHODS[name].contrast
    one_class = contrast in ("models", "drift")
    return {
        "format_version": FORMAT_VERSION,
        "method": name,
        "concept": _CONCEPTS.get(contrast, "harmful against harmless requests"),
        "model_id": checkpoints[member.id]["place"],
        "model_revision": member.ref.revision or "",
        "weights_sha256": checkpoints[member.id]["weights_sha256"],
        "witness_id": checkpoints["witness"]["place"],
        "witness_kind": lineage.witness.kind,
        "witness_weights_sha256": checkpoints["witness"]["weights_sha256"],
        "model_type": str(model.get("model_type", "")),
        "checkpoint": member.id,
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": str(model.get("n_layers", "")),
        "final_norm_included": "false",
        "position": "mean over the answer" if contrast == "responses" else str(run.manifest.config.get("position", -1)),
        "n_positive": str(int(harmful.sum())),
        "n_negative": str(int(harmful.sum() if one_class else (~harmful).sum())),
        "prompts_sha256": run.manifest.prompts["sha256"],
        "orientation": _orientation(contrast, member.id),
        "created": run.manifest.created,
        "tool_version": run.manifest.tool_version,
        "metrics_json": "{}",
    }


def _orientation(contrast: str, checkpoint: str) -> str:
    """From which side to which the direction points."""
    if contrast in ("models", "displacements"):
        return f"{checkpoint} towards witness"
    return f"aligned towards {checkpoint}" if contrast == "drift" else "harmless towards harmful"


def _file_name(name: str) -> str:
    """A direction's name as that of a file: `control:drift` is `control-drift`."""
    safe = re.sub(r"[^\w.-]+", "-", name)
    if not safe.strip("-."):
        raise RunFolderError("A direction needs a name", got=repr(name), expected="letters, digits, - and _")
    return safe
