"""A model's weights as vectors: how far one checkpoint lies from another, noise of that size, sums, and writing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models.adapter import product_norm
from probes.models.host import ModelHost
from probes.models.loading import no_progress_bar
from probes.models.noise import DriftNorms, add_noise

Factors = tuple[torch.Tensor, torch.Tensor | None]


def drift_norms(host: ModelHost, ref: CheckpointRef) -> DriftNorms:
    """‖θ_ref − θ_aligned‖ by parameter, and the ranks of an adapter's changes. Leaves the aligned model in.

    Raises:
        CheckpointError: `ref` cannot be loaded, or carries an adapter that is no plain LoRA.
    """
    norms: dict[str, float] = {}
    if (ref.model, ref.revision) != (host.aligned.model, host.aligned.revision):
        norms = _base_norms(host, ref)
    factors = _factors(host, host.aligned, -1.0)
    for name, parts in _factors(host, ref, 1.0).items():
        factors.setdefault(name, []).extend(parts)
    host.put(host.aligned)
    ranks = {}
    for name, parts in factors.items():
        norm, rank = _joint_norm(parts)
        if norm > 0 and name not in norms and rank is not None:
            ranks[name] = rank
        norms[name] = math.hypot(norms.get(name, 0.0), norm)
    return DriftNorms(norms, ranks)


@contextlib.contextmanager
def noised(host: ModelHost, norms: Mapping[str, float], seed: int) -> Iterator[None]:
    """The aligned model with Gaussian noise of these norms on its parameters, as a sham of a drift.

    On leaving, also by an exception, the aligned weights are back bit for bit: they are read from their
    files again, since keeping them would be a second model in memory.

    Args:
        norms: Frobenius norm by parameter name; from `drift_norms` it brings the adapter's ranks along.
        seed: the noise of each parameter is a function of this and the parameter's name.

    Raises:
        CheckpointError: a name is no parameter of the model, or the weights cannot be read again.
    """
    host.put(host.aligned)
    parameters = host.parameters()
    unknown = sorted(set(norms) - set(parameters))
    if unknown:
        raise CheckpointError("Noise for a parameter that the model does not have", got=unknown[0])
    host.forget()
    try:
        with torch.no_grad():
            add_noise(parameters, norms, seed)
        yield
    finally:
        host.forget()
        host.put(host.aligned)


def folded(host: ModelHost, ref: CheckpointRef) -> dict[str, torch.Tensor]:
    """Every weight of `ref` by name, on the CPU in float32, what its adapter adds included. Leaves its base in.

    Raises:
        CheckpointError: it cannot be loaded, or carries an adapter that is no plain LoRA.
    """
    factors = _factors(host, ref, 1.0)
    host.put(CheckpointRef(model=ref.model, revision=ref.revision))
    weights = {
        name: tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in host.parameters().items()
        if tensor.is_floating_point()
    }
    for name, parts in factors.items():
        for left, right in parts:
            weights[name] += (left if right is None else left @ right).to("cpu")
    return weights


def save(host: ModelHost, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the model in memory as a Hugging Face folder, with `weights` in place of its own, in its precision."""
    own = host.bare()
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
    with no_progress_bar():
        host.model.save_pretrained(folder)
    host.tokenizer.save_pretrained(folder)


def _base_norms(host: ModelHost, ref: CheckpointRef) -> dict[str, float]:
    files = host.files(ref)
    bare = CheckpointRef(model=host.aligned.model, revision=host.aligned.revision)
    host.put(bare)
    pairs = host.streamed(files)
    if pairs is not None:
        own = {tensor.data_ptr(): name for name, tensor in host.parameters().items()}
        return {own[held.data_ptr()]: _distance(held, tensor) for held, tensor in pairs}
    # Files that transformers must convert cannot be streamed against the module: a copy is kept meanwhile.
    kept = {name: tensor.to("cpu", copy=True) for name, tensor in host.parameters().items()}
    host.put(CheckpointRef(model=ref.model, revision=ref.revision))
    return {name: _distance(tensor, kept[name]) for name, tensor in host.parameters().items()}


def _factors(host: ModelHost, ref: CheckpointRef, sign: float) -> dict[str, list[Factors]]:
    """What the adapter of `ref` adds, with `sign`, as factors by parameter name."""
    if not ref.adapter:
        return {}
    host.put(ref)
    assert host.attached is not None
    return {change.name: [(sign * change.left, change.right)] for change in host.attached.changes()}


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    other = other.to(one.device, one.dtype)
    return float((one.float() - other.float()).norm())


def _joint_norm(parts: list[Factors]) -> tuple[float, int | None]:
    """Norm and rank of a sum of changes to one parameter; no rank where one of them is of full rank."""
    if all(right is not None for _, right in parts):
        left = torch.cat([left for left, _ in parts], dim=1)
        right = torch.cat([right for _, right in parts if right is not None])
        return product_norm(left, right), left.shape[1]
    changes = [left if right is None else left @ right for left, right in parts]
    return float(torch.stack(changes).sum(dim=0).norm()), None
