"""Two checkpoints of a run side by side: how each layer's representation and each weight differ between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.drift.comparison import basis_check, linear_cka, overlap, weight_drift
from probes.errors import GravityError, StatisticsError, UsageError
from probes.lineage import CheckpointRef
from probes.run import Run
from probes.store import ActivationFile

if TYPE_CHECKING:
    import torch

SUBSPACE = 10  # leading directions of per-prompt variation whose angles are compared


def compare(run: Run, one: str, other: str, *, weights: bool = True) -> dict[str, Any]:
    """Compare checkpoint `one` with checkpoint `other` (names as in the run folder, e.g. `baseline-s0-000020`).

    Args:
        run: a measured run.
        one: the checkpoint that differences are taken from.
        other: the checkpoint that differences lead to.
        weights: also compare weights, tensor by tensor; the checkpoints must still be where they were.

    Returns:
        `{"one", "other", "layers": [{"layer", "distance", "cosine", "cka", "overlap", "overlap_random", "angles",
        "basis_raw", "basis_rotated", "basis_shared"}], "weights": [{"tensor", "frobenius", "spectral", "relative",
        "inside", "random"}], "weights_missing"}`. `distance` is ‖μ_other − μ_one‖ over harmful prompts in units of
        ‖v_rev‖; `cosine` is that of their displacements from the aligned model; a number that is not defined is
        None; `weights_missing` says why there are no weights, or is None.

    Raises:
        UsageError: the run has no such checkpoint (the names it has are listed).
        RunFolderError: activations are missing or damaged.
    """
    names = list(run.manifest.checkpoints)
    for name in (one, other):
        if name not in names:
            raise UsageError(f"The run has no checkpoint {name!r}", expected=", ".join(names))
    harmful = run.harmful
    files = {name: run.activation_file(name) for name in ("aligned", "witness", one, other)}
    layers = [_layer(files, one, other, harmful, layer) for layer in range(files[one].n_layers)]
    rows, missing = _weights(run, one, other) if weights else ([], "not asked for")
    return {"one": one, "other": other, "layers": layers, "weights": rows, "weights_missing": missing}


def _layer(files: dict[str, ActivationFile], one: str, other: str, harmful: np.ndarray, layer: int) -> dict[str, Any]:
    rows = {name: file.layer(layer).astype(np.float64) for name, file in files.items()}
    means = {name: values[harmful].mean(axis=0) for name, values in rows.items()}
    reversion = float(np.linalg.norm(means["witness"] - means["aligned"]))
    first, second = means[one] - means["aligned"], means[other] - means["aligned"]
    sizes = float(np.linalg.norm(first) * np.linalg.norm(second))
    found: dict[str, Any] = {
        "layer": layer,
        "distance": float(np.linalg.norm(second - first)) / reversion if reversion else None,
        "cosine": float(first @ second) / sizes if sizes else None,
        "cka": None,
        "overlap": None,
        "overlap_random": None,
        "angles": [],
        "basis_raw": None,
        "basis_rotated": None,
        "basis_shared": None,
    }
    try:
        found["cka"] = linear_cka(rows[one], rows[other])
        lies = overlap(_leading(rows[one]), _leading(rows[other]))
        basis = basis_check(rows[one], rows[other])
    except StatisticsError:
        return found  # a layer that does not vary over prompts: its numbers stay not defined
    found |= {"overlap": lies.value, "overlap_random": lies.random, "angles": list(lies.angles)}
    return found | {"basis_raw": basis.raw, "basis_rotated": basis.rotated, "basis_shared": basis.shared}


def _leading(rows: np.ndarray) -> np.ndarray:
    """The leading directions in which prompts differ, as rows."""
    centred = rows - rows.mean(axis=0)
    return np.linalg.svd(centred, full_matrices=False)[2][:SUBSPACE]


def _weights(run: Run, one: str, other: str) -> tuple[list[dict[str, Any]], str | None]:
    """Drift from `one` to `other` by tensor, or why it cannot be had."""
    refs = {member.id: member.ref for member in run.members}
    chosen = [refs[one], refs[other], refs["aligned"], refs["witness"]]
    if any(ref.adapter for ref in chosen):
        return [], "weights of adapters are not compared: their drift is the adapter itself"
    try:
        rows = []
        for name, (start, end, aligned, witness) in _side_by_side(chosen):
            # The span of the alignment is that of witness − aligned, moved to where this drift starts.
            drift = weight_drift(start, end, start + (witness - aligned))
            rows.append({"tensor": name, **asdict(drift)})
    except GravityError as error:
        return [], str(error)
    return rows, None


def _side_by_side(refs: list[CheckpointRef]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The same tensor of every checkpoint, one tensor at a time.

    Raises:
        UsageError: the checkpoints do not hold the same tensors in the same order.
    """
    from probes.models.source import folder_of
    from probes.models.weights import WeightFiles

    files = [
        WeightFiles.of_model(folder_of(ref.model, ref.revision, allow_pickle=False), allow_pickle=False) for ref in refs
    ]
    for parts in zip(*(each.tensors() for each in files), strict=True):
        names = {name for name, _ in parts}
        if len(names) > 1:
            raise UsageError("The checkpoints' files hold different tensors", got=" and ".join(sorted(names)))
        yield parts[0][0], [_array(tensor) for _, tensor in parts]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
