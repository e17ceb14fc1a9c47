"""GGUF control vectors, as repeng writes and llama.cpp loads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.exchange.format import Format, describe, recover, refusal

_ARCHITECTURE = "controlvector"
_ABOUT, _NORM = "gravity_probe.about_json", "gravity_probe.norm"
_TENSOR = "direction."


class ControlVector(Format):
    """`direction.l` is added to block l by llama.cpp and repeng; there is no `direction.0`."""

    name = "gguf"
    says = "direction.l is block l, counted from 0, as repeng and llama.cpp's loader have it; unit vectors; no block 0"
    suffix = ".gguf"
    shift = 0

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it; block 0 is left out, since llama.cpp's loader refuses `direction.0`."""
        from gguf import GGUFWriter

        kept = [place for place, layer in enumerate(vectors.layers) if layer > 0 and vectors.norm[place] > 0]
        if not kept:
            raise UsageError(
                "A GGUF control vector has no block 0: llama.cpp refuses direction.0",
                got=f"layers {list(vectors.layers)}",
                expected="a layer from 1 on",
            )
        writer = GGUFWriter(str(out), _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", vectors.about.get("model_type") or "unknown")
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(kept))
        writer.add_string(_ABOUT, json.dumps(describe(vectors), sort_keys=True))
        writer.add_array(_NORM, [float(vectors.norm[place]) for place in kept])
        for place in kept:
            writer.add_tensor(f"{_TENSOR}{vectors.layers[place]}", np.ascontiguousarray(vectors.direction[place]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        left = [layer for place, layer in enumerate(vectors.layers) if place not in kept]
        why = "llama.cpp has no direction.0" if left == [0] else "not defined there, or block 0, which llama.cpp lacks"
        return [f"left out: block {', '.join(map(str, left))} ({why})"] if left else []

    def recognises(self, path: Path) -> bool:
        """By its first four bytes."""
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"

    def read(self, path: Path, name: str) -> Vectors:
        """Read it; the vectors of other tools may have any length, which becomes the norm."""
        from gguf import GGUFReader

        try:
            reader = GGUFReader(path)
            tensors = {each.name: np.array(each.data, dtype=np.float32) for each in reader.tensors}
            fields = {key: field.contents() for key, field in reader.fields.items()}
        except (ValueError, OSError, IndexError, KeyError) as error:
            raise refusal(path, error, "a GGUF control vector") from error
        found = {
            int(key.removeprefix(_TENSOR)) - self.shift: value
            for key, value in tensors.items()
            if key.startswith(_TENSOR) and key.removeprefix(_TENSOR).isdigit()
        }
        if fields.get("general.architecture") != _ARCHITECTURE or not found or min(found) < 0:
            raise refusal(path, f"architecture {fields.get('general.architecture')}", "a GGUF control vector")
        layers = tuple(sorted(found))
        rows = np.stack([found[layer] for layer in layers])
        about = recover(json.loads(str(fields.get(_ABOUT, "{}"))))
        about.setdefault("model_type", str(fields.get(f"{_ARCHITECTURE}.model_hint", "")))
        if _NORM in fields:
            return Vectors(name, layers, rows, np.array(fields[_NORM], dtype=np.float32), about)
        return Vectors.of_raw(name, layers, rows, about)


class GeneratedControlVector(ControlVector):
    """What llama.cpp's cvector-generator writes: block l under `direction.(l + 1)`. Read only."""

    name = "gguf-cvector"
    says = "direction.(l + 1) is block l, as llama.cpp's cvector-generator writes it"
    shift = 1
    read_only = True  # llama.cpp's loader reads `direction.l` as block l, so what is written here would be one off

    def recognises(self, path: Path) -> bool:
        """Never by itself: the same bytes as `gguf`."""
        del path
        return False
