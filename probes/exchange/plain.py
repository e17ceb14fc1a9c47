"""For everybody else: NPZ, CSV and JSON, each with its description inside, each exact to the last bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from probes.directions.vectors import Vectors
from probes.exchange.format import DamagedDocumentError, Format, describe, digits, recover, refusal
from probes.exchange.numpy_files import read_arrays
from probes.store.documents import parse_json, read_json, read_text
from probes.store.rows import csv_cell

_FORMAT = "gravity-probe direction"
_SAYS = "layer l is block l (resid_post), counted from 0; unit vectors, their lengths in `norm`"


class Npz(Format):
    """NumPy's archive: direction, norm, layers, and about (JSON)."""

    name = "npz"
    says = _SAYS
    suffix = ".npz"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it."""
        with open(out, "wb") as file:
            np.savez(
                file,
                direction=vectors.direction,
                norm=vectors.norm,
                layers=np.array(vectors.layers),
                about=np.array(json.dumps(describe(vectors), sort_keys=True)),
            )
        return []

    def recognises(self, path: Path) -> bool:
        """By its name."""
        return path.suffix == self.suffix

    def read(self, path: Path, name: str) -> Vectors:
        """Read it; pickled objects are refused."""
        try:
            arrays = read_arrays(path)
            about = parse_json(str(arrays["about"]), f"about of {path}", error=DamagedDocumentError)
            layers = tuple(int(layer) for layer in arrays["layers"])
            return Vectors(name, layers, arrays["direction"], arrays["norm"], recover(about))
        except (ValueError, KeyError, TypeError) as error:
            raise refusal(path, error, "arrays direction, norm, layers and about") from error


class Csv(Format):
    """A comment with the description, then a row a layer: layer, norm, and one column a dimension."""

    name = "csv"
    says = _SAYS
    suffix = ".csv"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it; nine digits bring a float32 back exactly."""
        with open(out, "w", encoding="utf-8", newline="") as file:
            file.write(f"# {json.dumps({'format': _FORMAT, **describe(vectors)}, sort_keys=True)}\n")
            writer = csv.writer(file)
            writer.writerow(["layer", "norm", *range(vectors.width)])
            for layer, norm, row in zip(vectors.layers, vectors.norm, vectors.direction, strict=True):
                writer.writerow(map(csv_cell, [layer, digits(norm), *map(digits, row)]))
        return []

    def recognises(self, path: Path) -> bool:
        """By its name."""
        return path.suffix == self.suffix

    def read(self, path: Path, name: str) -> Vectors:
        """Read it; without the comment too."""
        try:
            lines = read_text(path, error=DamagedDocumentError).splitlines()
            first = lines[0][1:] if lines[0].startswith("#") else "{}"
            about = parse_json(first, f"{path}, line 1,", error=DamagedDocumentError)
            head, *rows = csv.reader(lines[lines[0].startswith("#") :])
            if head[:2] != ["layer", "norm"] or any(len(row) != len(head) for row in rows):
                raise ValueError(f"columns {head[:3]}")
            layers = tuple(int(row[0]) for row in rows)
            norm = np.array([row[1] for row in rows], dtype=np.float32)
            direction = np.array([row[2:] for row in rows], dtype=np.float32)
            about.pop("format", None)
            return Vectors(name, layers, direction, norm, recover(about))
        except (ValueError, IndexError, OverflowError, csv.Error) as error:
            raise refusal(path, error, "columns layer, norm, 0, 1, …") from error


class Json(Format):
    """One object: format, about, and a list of layers."""

    name = "json"
    says = _SAYS
    suffix = ".json"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it."""
        rows = [
            {"layer": layer, "norm": float(norm), "direction": [float(value) for value in row]}
            for layer, norm, row in zip(vectors.layers, vectors.norm, vectors.direction, strict=True)
        ]
        out.write_text(json.dumps({"format": _FORMAT, "about": describe(vectors), "layers": rows}), encoding="utf-8")
        return []

    def recognises(self, path: Path) -> bool:
        """By its name."""
        return path.suffix == self.suffix

    def read(self, path: Path, name: str) -> Vectors:
        """Read it."""
        try:
            document = read_json(path, error=DamagedDocumentError)
            rows = document["layers"]
            return Vectors(
                name,
                tuple(int(row["layer"]) for row in rows),
                np.array([row["direction"] for row in rows], dtype=np.float32),
                np.array([row["norm"] for row in rows], dtype=np.float32),
                recover(document["about"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise refusal(path, error, f"an object with format {_FORMAT!r}, about and layers") from error
