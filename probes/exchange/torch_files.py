"""The `.pt` files of refusal_direction, persona_vectors and steering-vectors; read with `weights_only` or not at all.

Vectors are written as unit × length in float64, which loses nothing, with a description beside them; with it, reading
them back is exact.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.exchange.format import DamagedDocumentError, Format, beside, describe, recover, refusal
from probes.store.documents import parse_json, read_json

_DIRECTION, METADATA = "direction.pt", "direction_metadata.json"


class RefusalDirection(Format):
    """A folder with `direction.pt` (one raw vector, float64) and `direction_metadata.json` {pos, layer}."""

    name = "refusal-direction"
    says = "layer l + 1: it reads what enters a block (resid_pre), which is what leaves block l; one raw vector"
    one_layer = True
    is_whole = True

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write the folder."""
        import torch

        count, layer = vectors.n_layers, vectors.layers[0] + 1
        if count is not None and layer >= count:
            raise UsageError(
                "refusal-direction has no place behind the last block: its layers are what enters a block",
                got=f"layer {vectors.layers[0]} of {count}",
                expected=f"--layer {count - 2} or less",
            )
        out.mkdir(parents=True)
        position = vectors.about.get("position", "")
        known = position.lstrip("-").isdigit()
        place = {"pos": int(position) if known else -1, "layer": layer}
        torch.save(torch.tensor(vectors.raw[0]), out / _DIRECTION)
        (out / METADATA).write_text(json.dumps(place), encoding="utf-8")
        _describe(out / _DIRECTION, vectors)
        return [] if known else [f"pos is given as -1: it was read at {position or 'an unknown place'}"]

    def recognises(self, path: Path) -> bool:
        """A folder with both files, or its `direction.pt`."""
        folder = path if path.is_dir() else path.parent
        return (path.is_dir() or path.name == _DIRECTION) and (folder / METADATA).is_file()

    def read(self, path: Path, name: str) -> Vectors:
        """Read the folder."""
        folder = path if path.is_dir() else path.parent
        try:
            place = read_json(folder / METADATA, error=DamagedDocumentError)
            layer, position = int(place["layer"]) - 1, int(place["pos"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise refusal(folder / METADATA, error, '{"pos", "layer"}') from error
        if layer < 0:
            raise UsageError(
                f"{folder} holds a direction of the embeddings (layer 0 there is what enters block 0)",
                expected="one that is read behind a block",
            )
        vector = _vector(load_tensors(folder / _DIRECTION), 1, folder / _DIRECTION)
        about = _description(folder / _DIRECTION)
        about.setdefault("position", str(position))
        return _exact(name, (layer,), vector[None], about)


class PersonaVectors(Format):
    """`<name>.pt`: one raw tensor [n_layers + 1, d_model] whose first row are the embeddings."""

    name = "persona-vectors"
    says = "row l + 1 is block l, row 0 the embeddings (zeros here); raw differences"
    suffix = ".pt"
    is_whole = True

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it; the layers that are not known are zeros."""
        import torch

        count = vectors.n_layers or vectors.layers[-1] + 1
        rows = np.zeros((count + 1, vectors.width))
        rows[[layer + 1 for layer in vectors.layers]] = vectors.raw
        torch.save(torch.tensor(rows), out)
        _describe(out, vectors)
        missing = count - len(vectors.layers)
        return [f"{missing} layers that are not known are zeros"] if missing else []

    def recognises(self, path: Path) -> bool:
        """A tensor with two axes."""
        return path.suffix == self.suffix and getattr(load_tensors(path), "ndim", 0) == 2

    def read(self, path: Path, name: str) -> Vectors:
        """Read it; without a description, rows of zeros are layers that are not known."""
        rows = _vector(load_tensors(path), 2, path)[1:]
        about = _description(path)
        known = _layers(about, path) if "layers" in about else np.flatnonzero(rows.any(axis=1)).tolist()
        if not known:
            raise refusal(path, "zeros", "one row a layer and one for the embeddings")
        about.setdefault("n_layers", str(len(rows)))
        return _exact(name, tuple(known), rows[known], about)


class SteeringVectors(Format):
    """`<name>.pt`: {"layer_activations": {layer: raw vector}, "layer_type": "decoder_block"}."""

    name = "steering-vectors"
    says = "layer_activations[l] is block l, counted from 0; raw vectors"
    suffix = ".pt"
    is_whole = True

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it."""
        import torch

        tensors = {
            layer: torch.tensor(row) for layer, row in zip(vectors.layers, vectors.raw, strict=True) if row.any()
        }
        torch.save({"layer_activations": tensors, "layer_type": "decoder_block"}, out)
        _describe(out, vectors)
        left = len(vectors.layers) - len(tensors)
        return [f"{left} layers at which it is not defined are left out"] if left else []

    def recognises(self, path: Path) -> bool:
        """A mapping with that key."""
        content = load_tensors(path) if path.suffix == self.suffix else None
        return isinstance(content, dict) and "layer_activations" in content

    def read(self, path: Path, name: str) -> Vectors:
        """Read it."""
        content = load_tensors(path)
        rows = content.get("layer_activations") if isinstance(content, dict) else None
        if not isinstance(rows, dict) or not rows or not all(isinstance(key, int) and key >= 0 for key in rows):
            raise refusal(path, type(content).__name__, "layer_activations by layer")
        layers = tuple(sorted(rows))
        wide = np.stack([_vector(rows[layer], 1, path) for layer in layers])
        return _exact(name, layers, wide, _description(path))


def load_tensors(path: Path) -> Any:
    """What a `.pt` file holds, if that is tensors and plain containers; it may have been saved on any device.

    Raises:
        UsageError: it is no such file, or wants to run code.
    """
    import torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise refusal(path, "no such file", "a file saved by torch") from error
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than tensors and is not opened",
            got="pickled objects, which can run any code",
            expected="a file that torch loads with weights_only=True",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise refusal(path, error, "a file saved by torch") from error


def _vector(tensor: Any, axes: int, path: Path) -> np.ndarray:
    if not hasattr(tensor, "detach") or tensor.ndim != axes:
        raise refusal(path, f"{type(tensor).__name__} with {getattr(tensor, 'ndim', 'no')} axes", f"{axes} axes")
    return tensor.detach().double().numpy()


def _describe(path: Path, vectors: Vectors) -> None:
    norms = {str(layer): float(norm) for layer, norm in zip(vectors.layers, vectors.norm, strict=True)}
    about = {**describe(vectors), "norms_json": json.dumps(norms), "file_sha256": _sha256(path)}
    beside(path).write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")


def _description(path: Path) -> dict[str, str]:
    """What stands beside a file that this tool wrote; empty for those of others, also where they took its place."""
    if not beside(path).is_file():
        return {}
    document = read_json(beside(path), error=DamagedDocumentError)
    if not isinstance(document, dict):
        raise refusal(beside(path), type(document).__name__, "a description")
    about = {key: str(value) for key, value in document.items()}
    return about if about.pop("file_sha256", None) == _sha256(path) else {}


def _layers(about: Mapping[str, str], path: Path) -> list[int]:
    layers = parse_json(about["layers"], f"layers of {beside(path)}", error=DamagedDocumentError)
    return [int(layer) for layer in layers]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _exact(name: str, layers: tuple[int, ...], raw: np.ndarray, about: dict[str, str]) -> Vectors:
    """Vectors of raw rows: with the lengths that were written, division gives back the very unit vectors."""
    norms = parse_json(about.pop("norms_json", "{}"), f"norms of {name}", error=DamagedDocumentError)
    if not {str(layer) for layer in layers} <= set(norms):
        return Vectors.of_raw(name, layers, raw, recover(about))
    norm = np.array([norms[str(layer)] for layer in layers], dtype=np.float32)
    unit = raw / np.where(norm > 0, norm, 1.0).astype(np.float64)[:, None]
    return Vectors(name, layers, unit.astype(np.float32), norm, recover(about))
