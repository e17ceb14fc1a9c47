"""Stage `directions/`: the reversion and its twin, which every run has.

The others are fitted by `probes.stages.tracks`, or brought in from elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from probes.directions import METHODS
from probes.directions.measured import activations_by_layer
from probes.directions.reversion import reversion_did_vectors, reversion_vectors
from probes.directions.vectors import FORMAT_VERSION, Vectors
from probes.lineage import Member
from probes.run import REVERSIONS, Run
from probes.stages import stage
from probes.store import ALIGNED, activations_stage

OF_EVERY_RUN = REVERSIONS
_CONCEPTS = {name: "reversion towards the witness" for name in OF_EVERY_RUN}


@stage("directions", version=1, needs=(activations_stage(ALIGNED), "witness", "prompts"))
def write_directions(run: Run) -> None:
    """Write `directions/reversion` and its difference-in-differences twin: unit vectors [layer, d_model] and norms.

    v_rev(l) = mean over harmful prompts of (witness − aligned) at layer l, aligned towards witness (arXiv 2606.28525);
    the twin takes the same difference of (harmful − harmless) means, which cancels a shift common to all prompts.
    Without a witness there is neither.
    """
    if not run.has_witness:
        return
    for make in (reversion_vectors, reversion_did_vectors):
        vectors = make(activations_by_layer(run, ALIGNED), activations_by_layer(run, "witness"), run.harmful)
        about = describe_direction(run, vectors.name, run.members[0])
        write_vectors(run, replace(vectors, about=about), ALIGNED)


def write_vectors(run: Run, vectors: Vectors, checkpoint: str) -> None:
    """Write a direction's native file for a checkpoint."""
    path = run.direction_path(vectors.name, checkpoint)
    vectors.write(path)
    run.record(path)


def describe_direction(run: Run, name: str, member: Member) -> dict[str, str]:
    """The description that every vector file carries; all strings, as safetensors wants."""
    contrast, control = METHODS[name].contrast, METHODS[name].control
    about = describe_model(run, member)
    if contrast in ("models", "drift"):  # two models on one class
        about["n_negative"] = about["n_positive"]
    if contrast == "responses":
        about["position"] = "mean over the answer"
    return about | {
        "method": name,
        "concept": "none: a control" if control else _CONCEPTS.get(name, "harmful against harmless requests"),
        "orientation": _orientation(contrast, member.id),
    }


def describe_model(run: Run, member: Member) -> dict[str, str]:
    """Of a vector file's description, what is of the model, the prompts and the place of reading."""
    checkpoints, model, harmful = run.manifest.checkpoints, run.manifest.model, run.harmful
    return {
        "format_version": FORMAT_VERSION,
        "method": "",
        "concept": "",
        "model_id": checkpoints[member.id]["place"],
        "model_revision": member.ref.revision or "",
        "weights_sha256": checkpoints[member.id]["weights_sha256"],
        **_describe_witness(run),
        "model_type": str(model.get("model_type", "")),
        "checkpoint": member.id,
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": str(model.get("n_layers", "")),
        "final_norm_included": "false",
        "position": str(run.settings.position),
        "n_positive": str(int(harmful.sum())),
        "n_negative": str(int((~harmful).sum())),
        "prompts_sha256": run.manifest.prompts["sha256"],
        "orientation": "",
        "created": run.manifest.created,
        "tool_version": run.manifest.tool_version,
        "metrics_json": "{}",
    }


def _describe_witness(run: Run) -> dict[str, str]:
    """Which witness a direction was made with; `witness_estimate` says that it is the aligned model, ablated."""
    witness, about = run.lineage.witness, run.manifest.checkpoints.get("witness")
    if witness is None or about is None:  # none, or not read yet
        return {"witness_id": "", "witness_kind": "none" if witness is None else witness.kind}
    estimate = {"witness_estimate": witness.label} if witness.is_estimate else {}
    return {
        "witness_id": about["place"],
        "witness_kind": witness.kind,
        "witness_weights_sha256": about["weights_sha256"],
        **estimate,
    }


def _orientation(contrast: str, checkpoint: str) -> str:
    """From which side to which the direction points."""
    if contrast in ("models", "displacements"):
        return f"{checkpoint} towards witness"
    return f"aligned towards {checkpoint}" if contrast == "drift" else "harmless towards harmful"
