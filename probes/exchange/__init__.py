"""Directions in the formats of other tools: written, read back, and told apart.

`FORMATS[name]` writes and reads one. Each says which place block l has in its files, and nobody's code is ever run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from probes.directions.vectors import Vectors
from probes.errors import UsageError, did_you_mean
from probes.exchange.bare import BareVector
from probes.exchange.control_vector import ControlVector, GeneratedControlVector
from probes.exchange.format import Format
from probes.exchange.native import Native
from probes.exchange.plain import Csv, Json, Npz
from probes.exchange.torch_files import PersonaVectors, RefusalDirection, SteeringVectors
from probes.exchange.viewers import EmbeddingAtlas, Tensorboard
from probes.store import direction_file

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Native(),
        ControlVector(),
        Npz(),
        Csv(),
        Json(),
        RefusalDirection(),
        PersonaVectors(),
        SteeringVectors(),
        Tensorboard(),
        EmbeddingAtlas(),
        GeneratedControlVector(),
        BareVector(),
    )
}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        UsageError: there is none (the nearest is named).
    """
    if name not in FORMATS:
        raise UsageError(
            "There is no such format" + did_you_mean(name, FORMATS), got=repr(name), expected=", ".join(FORMATS)
        )
    return FORMATS[name]


def write_vectors(
    vectors: Vectors, name: str, out: Path, layer: int | None = None, *, raw: bool = False
) -> tuple[Path, list[str]]:
    """Write a direction in a format.

    Args:
        vectors: the direction.
        name: the format's.
        out: the file or folder to be, or a folder that is there, which then gets a file of the direction's name.
        layer: only this one; a format of a single layer takes the selected one where none is given.
        raw: whole vectors, of the length that was measured, in place of unit vectors.

    Returns:
        What was written, and what the format could not take, in sentences.

    Raises:
        UsageError: no such format, something is there already, the place cannot be written to, or the direction does
            not fit the format.
    """
    form = format_named(name)
    if form.read_only:
        written = [form.name for form in FORMATS.values() if not form.read_only]
        raise UsageError(f"{name} is read only", expected=", ".join(written))
    if raw:
        form = form.whole()
    if form.one_layer and layer is None and len(vectors.layers) > 1:
        layer = vectors.declared_layer
        if layer is None:
            raise UsageError(f"The format {name} holds one layer", expected="--layer L")
    chosen = vectors if layer is None else vectors.only(layer)
    place = _place(form, chosen, out)
    if place.exists():
        raise UsageError(f"{place} is already there", next_step="Give --out a new name.")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return place, form.write(chosen, place)
    except OSError as error:
        raise UsageError(f"{place} cannot be written", got=error.strerror or str(error)) from error


def read_vectors(path: Path, name: str, form: str | None = None, layer: int | None = None) -> tuple[Vectors, Format]:
    """Read a direction that this tool or another one wrote.

    Args:
        path: the file or folder.
        name: what it is to be called.
        form: the format's name; None tells it by its content.
        layer: only this one; where a bare vector lies (None: what its file's name says).

    Raises:
        UsageError: it is not there, in no known format, damaged, or wants to run code.
    """
    if not path.exists():
        raise UsageError(f"{path} is not there")
    # A bare vector may be in a file of any other kind, so it is looked for first.
    known = (FORMATS[BareVector.name], *FORMATS.values())
    recognised = (
        format_named(form) if form else next((candidate for candidate in known if candidate.recognises(path)), None)
    )
    if recognised is None:
        raise UsageError(f"{path} is in no known format", expected=", ".join(FORMATS), next_step="Name it: --format.")
    is_bare = isinstance(recognised, BareVector)
    try:
        vectors = (BareVector(layer) if is_bare else recognised).read(path, name)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        # a record's own law (layers that rise, one vector a layer), or a file of another make than its name says
        raise UsageError(f"{path} cannot be read as a direction", got=str(error)) from error
    if not (np.isfinite(vectors.direction).all() and np.isfinite(vectors.norm).all()):
        raise UsageError(f"{path} cannot be read as a direction", got="numbers that are not finite")
    lengths = np.linalg.norm(vectors.direction, axis=-1)
    if vectors.direction.ndim != 2 or vectors.norm.ndim != 1 or (np.abs(lengths[lengths > 0] - 1) > 1e-3).any():
        raise UsageError(f"{path} cannot be read as a direction", got="rows that are no unit vectors")
    return vectors if layer is None or is_bare else vectors.only(layer), recognised


def _place(form: Format, vectors: Vectors, out: Path) -> Path:
    name = direction_file(vectors.name)
    if out.is_dir():
        return out / f"{name}{form.suffix}"
    return out if not form.suffix or out.suffix == form.suffix else out.with_name(out.name + form.suffix)


__all__ = ["FORMATS", "Format", "format_named", "read_vectors", "write_vectors"]
