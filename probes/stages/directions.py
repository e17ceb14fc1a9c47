"""Stage `directions/`: the reversion and its twin, which every run has; and how any direction of a run is found.

The others are fitted by `probes.stages.tracks`, or brought in from elsewhere.
"""

from __future__ import annotations

import numpy as np

from probes.directions import METHODS
from probes.directions.vectors import FORMAT_VERSION, Owner, Vectors
from probes.errors import RunFolderError
from probes.lineage import Lineage, Member
from probes.store import ALIGNED, RunFolder, direction_file, fingerprint

_VERSION = 1
OF_EVERY_RUN = ("reversion", "reversion_did")
_CONCEPTS = {name: "reversion towards the witness" for name in OF_EVERY_RUN}


def read_direction(run: RunFolder, name: str, checkpoint: str = ALIGNED) -> Vectors:
    """A direction of a run.

    Raises:
        RunFolderError: it is not there (those that are, are named), or is damaged.
    """
    path = run.direction_path(name, checkpoint)
    if not path.is_file():
        reason = _reason(run, name, checkpoint)
        raise RunFolderError(
            f"{run.path} has no direction {name!r} at {checkpoint}",
            got=reason,
            expected=", ".join(directions_of(run, checkpoint)) or "none is fitted there",
            next_step=None if reason else f"Fit them: gravity-probe directions {run.path} fit.",
        )
    return Vectors.read(path)


def _reason(run: RunFolder, name: str, checkpoint: str) -> str | None:
    """Why a direction that was looked for is not defined at a checkpoint; None where it was not looked for."""
    if not run.has_table("direction_tracks"):
        return None
    wanted = [("direction", "==", name), ("checkpoint", "==", checkpoint)]
    found = run.read_table("direction_tracks", columns=["reason"], filters=wanted)["reason"].dropna()
    return str(found.iloc[0]) if len(found) else None


def place_of(run: RunFolder, vectors: Vectors) -> int:
    """The layer that a direction is meant for: its selection's, else its only one, else the run's headline layer."""
    if vectors.declared_layer is not None:
        return vectors.declared_layer
    return vectors.layers[0] if len(vectors.layers) == 1 else int(run.manifest.config["headline_layer"])


def directions_of(run: RunFolder, checkpoint: str = ALIGNED) -> list[str]:
    """Names of the directions that are kept for a checkpoint: fitted, and brought from elsewhere."""
    folder = run.direction_path("any", checkpoint).parent
    found = {path.stem for path in folder.glob("*.safetensors")}
    ordered = {direction_file(name): name for name in METHODS}
    return [name for stem, name in ordered.items() if stem in found] + sorted(found - set(ordered))


def owner_of(run: RunFolder) -> Owner:
    """The model that a run's directions belong to: any checkpoint of its lineage, which shares one basis."""
    model, checkpoints = run.manifest.model, run.manifest.checkpoints
    return Owner(
        int(model["d_model"]),
        int(model["n_layers"]),
        frozenset(filter(None, (str(each.get("weights_sha256", "")) for each in checkpoints.values()))),
        str(checkpoints.get(ALIGNED, {}).get("place", "the run's model")),
    )


def write_directions(run: RunFolder, lineage: Lineage, harmful: np.ndarray, keys: dict[str, str]) -> None:
    """Write `directions/reversion` and its difference-in-differences twin: unit vectors [layer, d_model] and norms.

    v_rev(l) = mean over harmful prompts of (witness − aligned) at layer l, aligned towards witness (arXiv 2606.28525);
    the twin takes the same difference of (harmful − harmless) means, which cancels a shift common to all prompts.
    """
    made_from = fingerprint([_VERSION, keys["aligned"], keys["witness"], run.manifest.stages.get("prompts")])
    if run.holds("directions", made_from):
        return
    with run.stage("directions", made_from):
        aligned, witness = run.activations("aligned"), run.activations("witness")
        raw: dict[str, list[np.ndarray]] = {name: [] for name in OF_EVERY_RUN}
        for layer in range(aligned.n_layers):
            gap = witness.layer(layer).astype(np.float64) - aligned.layer(layer)
            raw["reversion"].append(gap[harmful].mean(axis=0))
            raw["reversion_did"].append(gap[harmful].mean(axis=0) - gap[~harmful].mean(axis=0))
        members = {member.id: member for member in lineage.members()}
        for name, rows in raw.items():
            vectors = Vectors.of_raw(
                name, tuple(range(len(rows))), np.stack(rows), described(run, lineage, name, members[ALIGNED], harmful)
            )
            vectors.write(run.direction_path(name))


def described(run: RunFolder, lineage: Lineage, name: str, member: Member, harmful: np.ndarray) -> dict[str, str]:
    """The description that every vector file carries; all strings, as safetensors wants."""
    checkpoints, model = run.manifest.checkpoints, run.manifest.model
    contrast, control = METHODS[name].contrast, METHODS[name].control
    one_class = contrast in ("models", "drift")
    return {
        "format_version": FORMAT_VERSION,
        "method": name,
        "concept": "none: a control" if control else _CONCEPTS.get(name, "harmful against harmless requests"),
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
