"""GGUF control vectors, as repeng writes and llama.cpp loads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.exchange.format import DamagedDocumentError, Format, describe, recover, refusal
from probes.store.documents import parse_json

_ARCHITECTURE = "controlvector"
_ABOUT, _NORM, _LAYERS, _WHOLE = (f"gravity_probe.{key}" for key in ("about_json", "norm", "layers", "whole"))
_TENSOR = "direction."


class ControlVector(Format):
    """`direction.l` is added to block l by llama.cpp and repeng; there is no `direction.0`."""

    name = "gguf"
    says = "direction.l is block l, counted from 0, as repeng and llama.cpp's loader have it; unit vectors; no block 0"
    suffix = ".gguf"
    shift = 0

    def whole(self) -> Format:
        """The same with whole vectors."""
        return WholeControlVector()

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it; block 0 is left out, since llama.cpp's loader refuses `direction.0`."""
        from gguf import GGUFWriter

        places = [place for place, layer in enumerate(vectors.layers) if layer > 0 and vectors.norm[place] > 0]
        if not places:
            raise UsageError(
                "A GGUF control vector has no block 0: llama.cpp refuses direction.0",
                got=f"layers {list(vectors.layers)}",
                expected="a layer from 1 on",
            )
        rows = vectors.raw.astype(np.float32) if self.is_whole else vectors.direction
        writer = GGUFWriter(str(out), _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", vectors.about.get("model_type") or "unknown")
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(places))
        writer.add_string(_ABOUT, json.dumps(describe(vectors), sort_keys=True))
        writer.add_array(_NORM, [float(vectors.norm[place]) for place in places])
        writer.add_array(_LAYERS, [vectors.layers[place] for place in places])
        writer.add_bool(_WHOLE, self.is_whole)
        for place in places:
            writer.add_tensor(f"{_TENSOR}{vectors.layers[place]}", np.ascontiguousarray(rows[place]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        left = [layer for place, layer in enumerate(vectors.layers) if place not in places]
        why = "llama.cpp has no direction.0" if left == [0] else "not defined there, or block 0, which llama.cpp lacks"
        notes = [f"left out: block {', '.join(map(str, left))} ({why})"] if left else []
        return [*notes, self._dose(vectors, places)]

    def _dose(self, vectors: Vectors, places: Sequence[int]) -> str:
        """What a scale of 1 adds."""
        lengths = [(vectors.layers[place], float(vectors.norm[place])) for place in places]
        chosen = [pair for pair in lengths if pair[0] == vectors.declared_layer]
        if chosen or len(lengths) == 1:
            layer, length = (chosen or lengths)[0]
            measured = f"{length:.4g} at layer {layer}"
        else:
            measured = f"{min(length for _, length in lengths):.4g} to {max(length for _, length in lengths):.4g}"
        if self.is_whole:
            return f"whole vectors: a scale of 1 adds the measured length, {measured}"
        return f"unit vectors: a scale of 1 adds length 1; measured was {measured} (kept as {_NORM}; --raw writes it)"

    def recognises(self, path: Path) -> bool:
        """By its first four bytes."""
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"GGUF"

    def read(self, path: Path, name: str) -> Vectors:
        """Read it; the vectors of other tools may have any length, which becomes the norm."""
        from gguf import GGUFReader

        class WholeReader(GGUFReader):
            """Stops at the file's end, where the reader would go on to the number of values that the file names."""

            def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
                if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                    raise ValueError("it ends before what it describes")
                return super()._get(offset, dtype, count, override_order)

        try:
            reader = WholeReader(path)
            tensors = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}
            fields = {key: field.contents() for key, field in reader.fields.items()}
        except (ValueError, OSError, IndexError, KeyError, OverflowError, TypeError) as error:
            raise refusal(path, error, "a GGUF control vector") from error
        rows_by_layer = {
            int(key.removeprefix(_TENSOR)) - self.shift: value
            for key, value in tensors.items()
            if key.startswith(_TENSOR) and key.removeprefix(_TENSOR).isdecimal()
        }
        architecture = fields.get("general.architecture")
        if architecture != _ARCHITECTURE or not rows_by_layer or min(rows_by_layer) < 0:
            raise refusal(path, f"architecture {architecture}", "a GGUF control vector")
        layers = tuple(sorted(rows_by_layer))
        rows = np.stack([rows_by_layer[layer] for layer in layers])
        about = recover(parse_json(str(fields.get(_ABOUT, "{}")), f"{_ABOUT} of {path}", error=DamagedDocumentError))
        about.setdefault("model_type", str(fields.get(f"{_ARCHITECTURE}.model_hint", "")))
        if _NORM not in fields or fields.get(_WHOLE):
            return Vectors.of_raw(name, layers, rows, about)
        return Vectors(name, layers, rows, np.array(fields[_NORM], dtype=np.float32), about)


class WholeControlVector(ControlVector):
    """The same with vectors of their own length, so that a scale of 1 adds what was measured."""

    says = "direction.l is block l, counted from 0, as repeng and llama.cpp's loader have it; whole vectors; no block 0"
    is_whole = True

    def whole(self) -> Format:
        """Itself."""
        return self


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
