"""For viewers of embeddings: TensorBoard's projector, and Embedding Atlas. A point is a layer's vector."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from probes.directions.vectors import Vectors
from probes.exchange.format import DamagedDocumentError, Format, beside, describe, digits, recover, refusal
from probes.store.documents import parse_json, read_json, read_text
from probes.store.rows import csv_cell

_TENSORS, _METADATA = "tensors.tsv", "metadata.tsv"
_ABOUT = b"gravity_probe"


class Tensorboard(Format):
    """A folder with `tensors.tsv` (a unit vector a row) and `metadata.tsv` (its layer and length)."""

    name = "tensorboard"
    says = "row n is the n-th layer of metadata.tsv: block l (resid_post), counted from 0; unit vectors"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write the folder."""
        out.mkdir(parents=True)
        _write_tsv(out / _TENSORS, [map(digits, row) for row in vectors.direction])
        labels = [[vectors.name, layer, digits(norm)] for layer, norm in zip(vectors.layers, vectors.norm, strict=True)]
        _write_tsv(out / _METADATA, [["name", "layer", "norm"], *labels])
        beside(out / _TENSORS).write_text(json.dumps(describe(vectors), indent=1, sort_keys=True), encoding="utf-8")
        return []

    def recognises(self, path: Path) -> bool:
        """A folder with both files."""
        return (path / _TENSORS).is_file() and (path / _METADATA).is_file()

    def read(self, path: Path, name: str) -> Vectors:
        """Read a folder that this tool wrote."""
        try:
            rows = np.array([line.split("\t") for line in _lines(path / _TENSORS)], dtype=np.float32)
            head, *labels = [line.split("\t") for line in _lines(path / _METADATA)]
            layers = tuple(int(row[head.index("layer")]) for row in labels)
            norm = np.array([row[head.index("norm")] for row in labels], dtype=np.float32)
            file = beside(path / _TENSORS)
            about = read_json(file, error=DamagedDocumentError) if file.is_file() else {}
            return Vectors(name, layers, rows, norm, recover(about))
        except (OSError, ValueError, IndexError) as error:
            raise refusal(path, error, "tensors.tsv, and metadata.tsv with layer and norm") from error


class EmbeddingAtlas(Format):
    """Parquet: id, layer, norm, vector, and x and y, the vectors' first two principal components."""

    name = "embedding-atlas"
    says = "a row a layer: block l (resid_post), counted from 0; unit vectors in `vector`"
    suffix = ".parquet"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        places = _plane(vectors.direction)
        table = pa.table(
            {
                "id": [f"{vectors.name}, layer {layer}" for layer in vectors.layers],
                "layer": pa.array(vectors.layers, pa.int32()),
                "norm": pa.array(vectors.norm, pa.float32()),
                "vector": pa.array(list(vectors.direction), pa.list_(pa.float32())),
                "x": places[:, 0],
                "y": places[:, 1],
            },
            metadata={_ABOUT: json.dumps(describe(vectors), sort_keys=True).encode()},
        )
        pq.write_table(table, out)
        return []

    def recognises(self, path: Path) -> bool:
        """By its name."""
        return path.suffix == self.suffix

    def read(self, path: Path, name: str) -> Vectors:
        """Read one that this tool wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=["layer", "norm", "vector"])
            text = (table.schema.metadata or {}).get(_ABOUT, b"{}").decode()
            about = parse_json(text, f"description of {path}", error=DamagedDocumentError)
            return Vectors(
                name,
                tuple(table["layer"].to_pylist()),
                np.array(table["vector"].to_pylist(), dtype=np.float32),
                np.array(table["norm"].to_pylist(), dtype=np.float32),
                recover(about),
            )
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise refusal(path, error, "columns layer, norm and vector") from error


def _plane(rows: np.ndarray) -> np.ndarray:
    """First two principal components of the rows [layer, 2]; zeros where there are fewer."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    count = min(2, sizes.size)
    plane[:, :count] = left[:, :count] * sizes[:count]
    return plane


def _write_tsv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([map(csv_cell, row) for row in rows])


def _lines(path: Path) -> list[str]:
    return read_text(path, error=DamagedDocumentError).splitlines()
