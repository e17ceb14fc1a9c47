"""A file of one bare vector, as many a script leaves it: no layer, no model, no description. Read only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.exchange.format import DamagedDocumentError, Format, refusal
from probes.exchange.numpy_files import read_arrays
from probes.exchange.torch_files import METADATA, load_tensors
from probes.store.documents import parse_json, read_text

_LAYER = re.compile(r"(?:^|[^a-z0-9])(?:layer|block)s?[ ._-]?(\d+)(?!\d)|(?:^|[^a-z0-9])l(\d+)(?!\d)", re.IGNORECASE)
_TORCH = (".pt", ".pth")
_TEXT = (".csv", ".tsv", ".txt")


class BareVector(Format):
    """One vector of any length, which becomes the norm; the layer is given, or stands in the file's name."""

    name = "vector"
    says = "one vector, behind the block that --layer or the file's name says, counted from 0 (resid_post)"
    read_only = True

    def __init__(self, layer: int | None = None) -> None:
        """At a layer; None takes that of the file's name."""
        self._layer = layer

    def recognises(self, path: Path) -> bool:
        """A binary file with one tensor of one axis, where no other format has that."""
        if not path.is_file() or path.suffix not in (*_TORCH, ".npy", ".npz", ".safetensors"):
            return False
        if (path.parent / METADATA).is_file():
            return False
        try:
            return _vector(path).ndim == 1
        except (UsageError, ValueError, OSError, EOFError, KeyError):
            return False

    def read(self, path: Path, name: str) -> Vectors:
        """Read it."""
        layer = _layer_of(path) if self._layer is None else self._layer
        try:
            vector = _vector(path)
        except (ValueError, OSError, EOFError, KeyError) as error:
            raise refusal(path, error, "one vector") from error
        if vector.ndim != 1 or vector.size < 2 or not vector.any():
            raise refusal(path, f"an array of shape {list(vector.shape)}", "one vector that is not all zeros")
        return Vectors.of_raw(name, (layer,), vector[None])


def _layer_of(path: Path) -> int:
    """The layer that a file's name says.

    Raises:
        UsageError: it says none, or several.
    """
    layers = {int(after or short) for after, short in _LAYER.findall(path.stem)}
    if len(layers) != 1:
        raise UsageError(
            f"{path} does not say at which layer its vector lies",
            got=f"the name {path.name}",
            expected="one layer: --layer L, or a name such as refusal-layer12.pt",
        )
    return layers.pop()


def _vector(path: Path) -> np.ndarray:
    """What the file holds, float64."""
    if path.suffix in _TORCH:
        return np.asarray(_only(load_tensors(path), path).double().numpy())
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return np.asarray(_only(load_file(path), path).double().numpy())
    if path.suffix in (".npy", ".npz"):
        return np.asarray(_only(read_arrays(path), path).astype(np.float64))
    text = read_text(path, error=DamagedDocumentError)
    if path.suffix == ".json":
        return np.array(parse_json(text, str(path), error=DamagedDocumentError), dtype=np.float64)
    if path.suffix in _TEXT:
        return np.array(re.split(r"[\s,;]+", text.strip()), dtype=np.float64)
    raise refusal(path, f"a file of kind {path.suffix or path.name}", "one vector")


def _only(content: Any, path: Path) -> Any:
    """The one thing in a container; a bare tensor is itself."""
    if hasattr(content, "detach"):
        return content.detach()
    values = list(content.values()) if isinstance(content, dict) else list(content)
    if len(values) != 1:
        raise refusal(path, f"{len(values)} arrays", "one vector")
    return values[0]
