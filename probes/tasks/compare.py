"""Two checkpoints of a run side by side: how each layer's representation and each weight differ between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.drift.comparison import (
    BasisCheck,
    LayerComparison,
    Portrait,
    basis_check,
    compare_layers,
    mean_displacement,
    weight_drift,
)
from probes.errors import CheckpointError, GravityError, StatisticsError, UsageError
from probes.lineage import CheckpointRef, is_ablated
from probes.run import Run
from probes.store import ActivationFile

if TYPE_CHECKING:
    import torch

    from probes.models.symmetry_split import PartSplit


def compare(run: Run, first: str, second: str, *, weights: bool = True) -> dict[str, Any]:
    """Compare checkpoint `first` with checkpoint `second` (names as in the run folder, e.g. `baseline-s0-000020`).

    Args:
        run: a measured run.
        first: the checkpoint that differences are taken from.
        second: the checkpoint that differences lead to.
        weights: also compare weights, tensor by tensor; the checkpoints must still be where they were.

    Returns:
        `{"one", "other", "layers": [{"layer", "distance", "cosine", "cka", "overlap", "overlap_random", "angles",
        "basis_raw", "basis_rotated", "basis_shared"}], "weights": [{"tensor", "frobenius", "spectral", "relative",
        "inside", "random"}], "weights_missing", "symmetries": {"along", "random", "parts": [{"part", "frobenius",
        "along", "random"}]}, "symmetries_missing"}`. `distance` is ‖μ_other − μ_one‖ over harmful prompts in units of
        ‖v_rev‖; `cosine` is that of their displacements from the aligned model; a number that is not defined is
        None, as `distance` and `inside` without a witness; `weights_missing` says why there are no weights, or is
        None. `along` is the share of ‖ΔW‖² that lies along the symmetries of the architecture, where no activation
        sees it, and `random` that of a change as large in every part in random directions; where they are not known,
        `symmetries` is None and `symmetries_missing` says why.

    Raises:
        UsageError: the run has no such checkpoint (the names it has are listed).
        RunFolderError: activations are missing or damaged.
    """
    names = list(run.manifest.checkpoints)
    for name in (first, second):
        if name not in names:
            raise UsageError(f"The run has no checkpoint {name!r}", expected=", ".join(names))
    roles = ("aligned", "witness") if run.has_witness else ("aligned",)
    files = {name: run.activation_file(name) for name in (*roles, first, second)}
    layers = [_layer(files, first, second, run.harmful, layer) for layer in range(files[first].n_layers)]
    rows, missing = _weights(run, first, second) if weights else ([], "not asked for")
    symmetries, unknown = (None, missing) if missing else _symmetries(run, first, second, rows)
    return {
        **{"one": first, "other": second, "layers": layers, "weights": rows, "weights_missing": missing},
        **{"symmetries": symmetries, "symmetries_missing": unknown},
    }


def _layer(
    files: dict[str, ActivationFile], first: str, second: str, harmful: np.ndarray, layer: int
) -> dict[str, Any]:
    rows = {name: file.layer(layer) for name, file in files.items()}
    aligned = rows["aligned"][harmful].mean(axis=0, dtype=np.float64)
    start, end = (Portrait.of(rows[name], harmful, aligned) for name in (first, second))
    way_back = float(np.linalg.norm(mean_displacement(rows["witness"], harmful, aligned))) if "witness" in rows else 0.0
    compared = compare_layers(start, end, way_back)
    try:
        basis = basis_check(rows[first].astype(np.float64), rows[second].astype(np.float64))
    except StatisticsError:
        basis = None  # a layer that does not vary over prompts
    return {"layer": layer, **_numbers(compared), **_basis_numbers(basis)}


def _numbers(compared: LayerComparison) -> dict[str, Any]:
    overlap = compared.overlap
    return {
        "distance": compared.distance,
        "cosine": compared.cosine,
        "cka": compared.cka,
        "overlap": overlap.value if overlap else None,
        "overlap_random": overlap.random if overlap else None,
        "angles": list(overlap.angles) if overlap else [],
    }


def _basis_numbers(basis: BasisCheck | None) -> dict[str, Any]:
    return {
        "basis_raw": basis.raw if basis else None,
        "basis_rotated": basis.rotated if basis else None,
        "basis_shared": basis.shared if basis else None,
    }


def _weights(run: Run, first: str, second: str) -> tuple[list[dict[str, Any]], str | None]:
    """Drift from `first` to `second` by tensor, or why it cannot be had."""
    refs = {member.id: member.ref for member in run.members}
    if any(is_ablated(refs[name]) for name in (first, second)):
        return [], "an ablated witness has no weights of its own: it is the aligned model under an ablation"
    spanned = "witness" in refs and not is_ablated(refs["witness"])
    names = [first, second, "aligned", *(["witness"] if spanned else [])]
    chosen = [refs[name] for name in names]
    if any(ref.adapter for ref in chosen):
        return [], "weights of adapters are not compared: their drift is the adapter itself"
    try:
        _check_weights(run, {name: refs[name] for name in names})
        rows = []
        for name, (start, end, *roles) in _side_by_side(chosen):
            # The span of the alignment is that of witness − aligned, moved to where this drift starts.
            away = roles[1] - roles[0] if spanned else None
            drift = weight_drift(start, end, None if away is None else start + away)
            rows.append({"tensor": name, **asdict(drift)})
    except GravityError as error:
        return [], str(error)
    return rows, None


def _check_weights(run: Run, refs: Mapping[str, CheckpointRef]) -> None:
    """Refuse weights that are no longer those that were measured: their drift would be kept as if they were."""
    from probes.models.identity import check_measured, weights_sha256

    for name, ref in refs.items():
        check_measured(weights_sha256, ref, run.manifest.checkpoints[name].get("weights_sha256"))


def _symmetries(
    run: Run, first: str, second: str, weights: list[dict[str, Any]]
) -> tuple[dict[str, Any] | None, str | None]:
    """The share of ‖ΔW‖² along the architecture's symmetries, or why it cannot be had."""
    from probes.models.loading import load_config
    from probes.models.source import folder_of
    from probes.models.symmetry_split import split_files
    from probes.models.weights import WeightFiles

    refs = {member.id: member.ref for member in run.members}
    folders = [folder_of(refs[name].model, refs[name].revision, allow_pickle=False) for name in (first, second)]
    try:
        files = [WeightFiles.of_model(folder, allow_pickle=False) for folder in folders]
        parts = list(split_files(load_config(folders[0]), *files))
    except CheckpointError as error:
        return None, str(error)
    total = sum(row["frobenius"] ** 2 for row in weights)
    return {
        "along": sum(part.along for part in parts) / total if total else None,
        "random": sum(part.total * part.dimension / part.numbers for part in parts) / total if total else None,
        "parts": [_part_numbers(part) for part in parts],
    }, None


def _part_numbers(part: PartSplit) -> dict[str, Any]:
    return {
        "part": part.part,
        "frobenius": math.sqrt(part.total),
        "along": part.along / part.total if part.total else None,
        "random": part.dimension / part.numbers,
    }


def _side_by_side(refs: list[CheckpointRef]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """The same tensor of every checkpoint, one tensor at a time.

    Raises:
        UsageError: the checkpoints do not hold the same tensors in the same order, or are quantised in their files.
    """
    from probes.models.source import folder_of
    from probes.models.weights import WeightFiles, is_packed

    files = [
        WeightFiles.of_model(folder_of(ref.model, ref.revision, allow_pickle=False), allow_pickle=False) for ref in refs
    ]
    for parts in zip(*(weights.tensors() for weights in files), strict=True):
        names = {name for name, _ in parts}
        if len(names) > 1:
            raise UsageError("The checkpoints' files hold different tensors", got=" and ".join(sorted(names)))
        tensors = [tensor for _, tensor in parts]
        if is_packed(tensors[0]) and not all(tensor.equal(tensors[0]) for tensor in tensors):
            raise UsageError("The checkpoints' files hold quantised weights, which are not compared", got=names.pop())
        yield parts[0][0], [_array(tensor) for tensor in tensors]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
