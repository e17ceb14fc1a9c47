"""A model's weights as vectors: how far one checkpoint lies from another, noise of that size, sums, and writing."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models.adapter import Change, product_norm
from probes.models.host import ModelHost
from probes.models.loading import no_progress_bar
from probes.models.noise import DriftNorms, add_noise
from probes.models.older_readers import write_rope_for_older_readers
from probes.models.weights import is_packed


def drift_norms(host: ModelHost, ref: CheckpointRef) -> DriftNorms:
    """‖θ_ref − θ_aligned‖ by parameter, and the ranks of an adapter's changes. Leaves the aligned model in.

    Raises:
        CheckpointError: `ref` cannot be loaded, or carries an adapter that cannot be merged into the weights.
    """
    less = {change.name: change._replace(left=-change.left) for change in _changes(host, host.aligned)}
    if host.base_of(ref) != host.base_of(host.aligned):
        norms = DriftNorms(_base_norms(host, ref, [*less.values(), *_changes(host, ref)]))
    else:
        norms = DriftNorms({})
        for change in _changes(host, ref):
            _add_norm(norms, [change, *([less.pop(change.name)] if change.name in less else [])])
        for change in less.values():
            _add_norm(norms, [change])
    host.put(host.aligned)
    return norms


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


@contextlib.contextmanager
def with_weights(host: ModelHost, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The aligned model with weights of these names in place of its own, its adapter taken off.

    On leaving, also by an exception, the aligned weights are back bit for bit: they are read from their files again.

    Raises:
        CheckpointError: the weights cannot be read again.
    """
    host.put(host.aligned)
    try:
        own = host.bare()
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)
        yield
    finally:
        host.forget()
        host.put(host.aligned)


def norms_up_to(host: ModelHost, norms: DriftNorms, layer: int) -> DriftNorms:
    """Of a drift, what the stream behind block `layer` depends on; noise of it leaves that stream the same bytes.

    Left out are the blocks behind it, the final norm, and an unembedding that is no embedding too.
    """
    ends = [host.final_norm, host.model.get_output_embeddings()]
    behind = {inner for module in (*host.blocks[layer + 1 :], *filter(None, ends)) for inner in module.modules()}
    before = {
        tensor.data_ptr()
        for module in host.model.modules()
        if module not in behind
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }
    names = {name for name, tensor in host.parameters().items() if tensor.data_ptr() in before}
    ranks = {name: rank for name, rank in norms.ranks.items() if name in names}
    return DriftNorms({name: norm for name, norm in norms.items() if name in names}, ranks)


def merged_weights(host: ModelHost, ref: CheckpointRef) -> dict[str, torch.Tensor]:
    """Every weight of `ref` by name, on the CPU in float32, what its adapter adds included. Leaves its base in.

    Raises:
        CheckpointError: it cannot be loaded, or carries an adapter that cannot be merged into the weights.
    """
    changes = list(_changes(host, ref))
    host.put(_without_adapter(host, ref))
    weights = {
        name: tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in host.parameters().items()
        if tensor.is_floating_point()
    }
    for change in changes:
        weights[change.name] += change.full.to("cpu")
    return weights


def save(host: ModelHost, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the model in memory as a Hugging Face folder, with `weights` in place of its own, in its precision."""
    own = host.bare()
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
    with no_progress_bar():
        host.model.save_pretrained(folder)
    write_rope_for_older_readers(folder)
    host.tokenizer.save_pretrained(folder)


def _base_norms(host: ModelHost, ref: CheckpointRef, changes: Iterable[Change]) -> dict[str, float]:
    """Norms from the aligned base to that of `ref`, with what adapters change on top."""
    on_top: dict[str, list[Change]] = {}
    for change in changes:
        on_top.setdefault(change.name, []).append(change)
    files = host.files(ref)
    if not host.is_whole:
        return _norms_between_files(host, ref, on_top)
    host.put(_without_adapter(host, host.aligned))
    pairs = host.stream_tensors(files, files.shapes())
    if pairs is not None:
        names = {tensor.data_ptr(): name for name, tensor in host.parameters().items()}
        named = ((names[held.data_ptr()], held, tensor) for held, tensor in pairs)
        return {name: _distance(held, tensor, on_top.get(name, ())) for name, held, tensor in named}
    # Files that transformers must convert cannot be streamed against the module: a copy is held meanwhile.
    copies = {name: tensor.to("cpu", copy=True) for name, tensor in host.parameters().items()}
    host.put(_without_adapter(host, ref))
    now = {name: host.shared_rows(name, tensor) for name, tensor in host.parameters().items()}
    starts = {name: host.shared_rows(name, copies[name]).to(tensor.device) for name, tensor in now.items()}
    return {name: _distance(starts[name], now[name], on_top.get(name, ())) for name in now}


def _norms_between_files(
    host: ModelHost, ref: CheckpointRef, on_top: Mapping[str, Sequence[Change]]
) -> dict[str, float]:
    """As `_base_norms`, of what is in the files of both, where the module does not hold these numbers."""
    start, end = host.files(host.aligned), host.files(ref)
    shapes = end.shapes()
    if start.shapes() != shapes or on_top.keys() - shapes.keys():
        raise _incomparable_error(ref, "tensors of other names or shapes")
    norms = {}
    for name, tensor in end.tensors():
        before = start.read([name])[name]
        if is_packed(tensor) and not torch.equal(before, tensor):
            raise _incomparable_error(ref, "weights that are quantised in their files")
        norms[name] = _distance(before, tensor, on_top.get(name, ()))
    return norms


def _incomparable_error(ref: CheckpointRef, difference: str) -> CheckpointError:
    return CheckpointError(
        f"The weights of {ref} cannot be compared file by file with the aligned model's",
        got=difference,
        next_step="Measure unquantised weights, all of them on accelerators.",
    )


def aligned_norms(host: ModelHost, names: Collection[str]) -> dict[str, float]:
    """Frobenius norms of the aligned model's parameters of these names, where its files hold them as they are.

    Args:
        host: holds the aligned model.
        names: of parameters.
    """
    if host.is_whole:
        parameters = host.parameters()
        return {name: float(parameters[name].float().norm()) for name in names}
    tensors = host.files(host.aligned).read(names)
    return {name: float(tensor.float().norm()) for name, tensor in tensors.items() if not is_packed(tensor)}


def _without_adapter(host: ModelHost, ref: CheckpointRef) -> CheckpointRef:
    model, revision = host.base_of(ref)
    return CheckpointRef(model=model, revision=revision)


def _changes(host: ModelHost, ref: CheckpointRef) -> Iterator[Change]:
    """What the adapter of `ref` adds, by parameter; nothing where it has none."""
    if ref.adapter:
        host.put(ref)
        yield from host.take_off()


def _distance(start: torch.Tensor, end: torch.Tensor, changes: Iterable[Change]) -> float:
    difference = end.to(start.device, start.dtype).float() - start.float()
    for change in changes:
        difference = difference + change.full.to(difference)
    return float(difference.norm())


def _add_norm(norms: DriftNorms, changes: list[Change]) -> None:
    """Note norm and rank of a sum of changes to one parameter; no rank where one of them is of full rank."""
    name = changes[0].name
    if all(change.right is not None for change in changes):
        left = torch.cat([change.left for change in changes], dim=1)
        right = torch.cat([change.right for change in changes if change.right is not None])
        norms[name] = product_norm(left, right)
    else:
        norms[name] = float(torch.stack([change.full for change in changes]).sum(dim=0).norm())
    ranks = [change.rank for change in changes if change.rank is not None]
    if norms[name] > 0 and len(ranks) == len(changes):
        norms.ranks[name] = sum(ranks)
