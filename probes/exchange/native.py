"""Our own format: safetensors with `direction` [layer, d_model], `norm` [layer] and a description of strings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from probes.directions.vectors import Vectors
from probes.errors import RunFolderError
from probes.exchange.format import Format, describe, recover, refusal


class Native(Format):
    """The file of a run folder, as it is."""

    name = "safetensors"
    says = "row l is block l (resid_post), counted from 0; unit vectors, their lengths in `norm`"
    suffix = ".safetensors"

    def write(self, vectors: Vectors, out: Path) -> list[str]:
        """Write it."""
        dataclasses.replace(vectors, about=recover(describe(vectors))).write(out)
        return []

    def recognises(self, path: Path) -> bool:
        """By its name."""
        return path.suffix == self.suffix

    def read(self, path: Path, name: str) -> Vectors:
        """Read it."""
        try:
            return dataclasses.replace(Vectors.read(path), name=name)
        except RunFolderError as error:
            raise refusal(path, error.got or error.what, "tensors direction and norm") from error
