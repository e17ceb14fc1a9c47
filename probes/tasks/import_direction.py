"""A direction from elsewhere, brought into a run or made a file of ours, once it is known to fit the model."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from probes.directions import METHODS
from probes.directions.vectors import KEYS, Owner, Vectors
from probes.errors import UsageError
from probes.exchange import read_vectors
from probes.lineage import CheckpointRef
from probes.models.identity import checkpoint_sha256
from probes.models.loading import load_config
from probes.models.source import folder_of
from probes.run import Run
from probes.store import RENAMED, direction_file

_NAME = re.compile(r"^[A-Za-z][\w.:-]*$")


@dataclass(frozen=True)
class Imported:
    """What was brought in.

    Attributes:
        vectors: the direction, with what is known of it.
        path: where it lies now.
        convention: how the file's layers were read, in words.
    """

    vectors: Vectors
    path: Path
    convention: str


@dataclass(frozen=True)
class Target:
    """Where a direction goes, and the model that it must belong to.

    Attributes:
        run: the run that gets it, beside its own directions.
        model: the model that it belongs to, as a folder or hub id; None is the run's aligned model.
        out: where the file is to be, without a run; None is `<name>.safetensors` here.
    """

    run: Path | None = None
    model: str | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.run is None and self.model is None:
            raise UsageError("A direction belongs to a model", expected="--run RUN, or --model FOLDER or hub id")
        if self.run is not None and self.out is not None:
            raise UsageError("A run keeps a direction in its own folder", next_step="Give --run or --out, not both.")


def import_direction(
    file: Path, name: str, target: Target, *, form: str | None = None, layer: int | None = None
) -> Imported:
    """Read a direction, hold it against its model, and keep it as a native file.

    Args:
        file: in any known format.
        name: what it is called from now on.
        target: the run that gets it, or the model that it belongs to.
        form: the format; None tells it by the content.
        layer: only this one; where a bare vector lies (None: what its file's name says).

    Raises:
        UsageError: neither run nor model, a file besides a run, a name that is taken or is none, or the direction is
            of another model.
    """
    methods = (*METHODS, *RENAMED)
    reserved = {*methods, *map(direction_file, methods), "random", "none"}
    if not _NAME.match(name) or name in reserved:
        raise UsageError(
            "This cannot be a direction's name", got=repr(name), expected="a new one: letters, digits, -, _"
        )
    vectors, form_read = read_vectors(file, name, form, layer)
    opened = Run(target.run) if target.run is not None else None
    owner = _owner_of_model(target.model) if target.model is not None else opened.owner  # type: ignore[union-attr]
    owner.refuse_foreign(vectors)
    if opened is not None and target.model is not None:
        opened.owner.refuse_foreign(vectors)
    about = {key: "" for key in KEYS} | dict(vectors.about)
    about["n_layers"] = str(owner.n_layers or about["n_layers"])
    about["model_id"] = about["model_id"] or owner.name
    about["imported_from"], about["imported_as"] = file.name, form_read.name
    owned = dataclasses.replace(vectors, about=about)
    path = opened.direction_path(name) if opened is not None else (target.out or Path(f"{name}.safetensors"))
    if path.exists():
        raise UsageError(f"{path} is already there", next_step="Give --as a new name.")
    if opened is None:
        owned.write(path)
    else:
        with Run.writing(opened.path) as writing, writing.stage(f"directions/{name}", f"imported from {file.name}"):
            owned.write(path)
            writing.record(path)
    return Imported(owned, path, form_read.says)


def _owner_of_model(text: str) -> Owner:
    ref = CheckpointRef.parse(text)
    folder = folder_of(ref.model, ref.revision, allow_pickle=False)
    config = load_config(folder).get_text_config()
    weights = frozenset({checkpoint_sha256(folder)}) if ref.adapter is None else frozenset()
    return Owner(int(config.hidden_size), int(config.num_hidden_layers), weights, str(ref))
