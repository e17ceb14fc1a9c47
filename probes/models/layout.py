"""Which tensor of the module each tensor of a checkpoint's files is, learned from the aligned model's own files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from probes.models.weights import WeightFiles

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """Names of the module's tensors by the names in the files.

    Transformers converts some layouts as it loads (tensors are renamed, experts stacked, weights transposed). Only
    where every tensor of the module starts with the very numbers of one in the aligned model's files may the files
    of later checkpoints be copied in directly.
    """

    names: Mapping[str, str]

    @classmethod
    def learned(cls, files: WeightFiles, targets: Tensors) -> Layout | None:
        """What `files` show, from which the module with the tensors `targets` was loaded; None if not plain.

        Raises:
            CheckpointError: a file is damaged.
        """
        shapes = files.shapes()
        names = {}
        for name, head in files.heads():
            possible = [name] if name in targets else [target for target in targets if target not in shapes]
            same = [target for target in possible if _starts_with(targets[target], shapes[name], head)]
            same = [target for target in same if target.endswith(name)] or same
            if len(same) == 1:
                names[name] = same[0]
        layout = cls(names)
        return layout if layout.fits(shapes, targets) else None

    def fits(self, shapes: Mapping[str, tuple[int, ...]], targets: Tensors, vocabulary: Collection[str] = ()) -> bool:
        """Whether files with tensors of these names and shapes hold each tensor of the module exactly once.

        The tensors in `vocabulary` may have another number of rows.
        """
        mapped = [(target, shape) for name, shape in shapes.items() if (target := self.target(name, targets))]
        for target, shape in mapped:
            first = 1 if target in vocabulary and shape else 0
            if tuple(targets[target].shape)[first:] != shape[first:]:
                return False
        filled = [targets[target].data_ptr() for target, _ in mapped]
        return len(filled) == len(set(filled)) and set(filled) == {tensor.data_ptr() for tensor in targets.values()}

    def target(self, name: str, targets: Tensors) -> str | None:
        """The module's name of the files' tensor `name`; None for what the module has no use for."""
        return self.names.get(name) or (name if name in targets else None)


def _starts_with(tensor: torch.Tensor, shape: tuple[int, ...], head: torch.Tensor) -> bool:
    if tuple(tensor.shape) != shape:
        return False
    own = (tensor[:1] if tensor.ndim else tensor).cpu()
    return torch.equal(torch.nan_to_num(own), torch.nan_to_num(head.to(own.dtype)))
