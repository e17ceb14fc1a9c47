"""A finished run in, the same run made small enough to ship out: what it leaves out stands in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from probes.errors import UsageError
from probes.run import Run
from probes.store import ACTIVATIONS, ALIGNED, DIRECTIONS, MANIFEST, FileRecord, new_folder, write_json
from probes.store.activation_file import opened
from probes.store.atomic import file_sha256, link_or_copy, write_tensors

_UNLISTED = ("evaluation.json", "report.html")  # written beside the stages, and worth shipping
_QUOTING = ("report.html",)  # of them, what quotes answers
_ROUNDED = ("direction_projections.parquet",)  # of the same prompts, on every direction
_ANSWER_COLUMNS = ("completion", "before", "after")  # of any table, where they hold text
LEFT_OUT = "[left out of the packed run]"


@dataclass(frozen=True)
class Packing:
    """What a packed run leaves out besides checkpoints and most activations.

    Attributes:
        half: round activations, and prompts' projections on directions, to half precision; the manifest then says so.
        answers: ship the text of answers; without it each stands as `LEFT_OUT` beside its label, reason and score.
    """

    half: bool = False
    answers: bool = True


def pack(path: Path | str, out: Path, keep: Sequence[str] | None = None, packing: Packing = Packing()) -> Run:
    """Copy a run without checkpoints, readings, and the activations and directions of most checkpoints.

    No file of the copy names a folder of this machine.

    Args:
        path: a finished run, whose files are all as they were written.
        out: a folder that is not there yet; it appears whole or not at all.
        keep: checkpoints whose activations and directions are shipped, beside activations of the roles and directions
            fitted at the aligned model; None is the roles and the last of each trajectory, of a packed run as far as
            it holds them.
        packing: what else is left out.

    Returns:
        The packed run, which can be read and not measured on.

    Raises:
        RunFolderError: a file of the run is missing or has changed.
        UsageError: `out` is there already, the run is not finished, or it has no such checkpoint.
    """
    run = Run(path)
    if run.manifest.status != "finished":
        raise UsageError(f"{run.path} is not finished", next_step="Start the command that made it again.")
    checkpoints = _checkpoints_to_keep(run, keep)
    outputs = {name: record for stage in run.manifest.stages.values() for name, record in stage.outputs.items()}
    earlier = {} if keep else run.manifest.omitted  # of a run that was packed before; what is asked for must be there
    fitted = checkpoints if keep is None else {ALIGNED, *keep}
    shipped = {
        name
        for name in outputs
        if _checkpoint_of(name) in (None, *(fitted if name.startswith(f"{DIRECTIONS}/") else checkpoints))
    } - set(earlier)
    places = _places(run)
    with new_folder(out) as folder:
        for name in sorted(shipped):
            run.check(run.path / name)
            _ship(run.path / name, folder / name, places, packing)
        for name in _UNLISTED:
            if (run.path / name).is_file() and (packing.answers or name not in _QUOTING):
                _copy(run.path / name, folder / name)
        manifest = run.manifest.model_copy(deep=True)
        manifest.omitted = {name: record for name, record in outputs.items() if name not in shipped}
        for stage in manifest.stages.values():
            stage.outputs = {
                name: _record(folder / name) if name in shipped else record for name, record in stage.outputs.items()
            }
        if packing.half:
            manifest.config = {**manifest.config, "store_dtype": "float16"}
        write_json(folder / MANIFEST, _without_places(manifest.model_dump(), places))
    return Run(out)


def omitted_bytes(omitted: dict[str, FileRecord]) -> int:
    """What the files that a packed run leaves out would take."""
    return sum(record.size for record in omitted.values())


def _places(run: Run) -> dict[str, str]:
    """What stands in a packed run for the run's folder and for models elsewhere: the longest path first."""
    references = [place for member in run.members for place in (member.ref.model, member.ref.adapter) if place]
    outside = sorted({place for place in references if Path(place).is_absolute()}, key=len, reverse=True)
    return {str(run.path.resolve()): ".", **{place: f"./{Path(place).name}" for place in outside}}


def _without_places(value: Any, places: Mapping[str, str]) -> Any:
    """A document in which no string names a folder of this machine."""
    if isinstance(value, dict):
        return {name: _without_places(entry, places) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(entry, places) for entry in value]
    if isinstance(value, str):
        for place, name in places.items():
            value = value.replace(place, name)
    return value


def _checkpoints_to_keep(run: Run, keep: Sequence[str] | None) -> set[str]:
    roles = {member.id for member in run.members if member.is_role}
    last = {trajectory.checkpoint_id(trajectory.checkpoints[-1].step) for trajectory in run.lineage.trajectories}
    unknown = sorted(set(keep or ()) - {member.id for member in run.members})
    if unknown:
        known = ", ".join(member.id for member in run.members[-6:])
        raise UsageError("The run has no such checkpoint", got=unknown[0], expected=known)
    return roles | (last if keep is None else set(keep))


def _checkpoint_of(name: str) -> str | None:
    """The checkpoint whose activations or directions a file holds; None for what belongs to the whole run."""
    parts = Path(name).parts
    if parts[0] == ACTIVATIONS:
        return Path(name).stem
    if parts[0] == "readings" and len(parts) == 3:
        return "readings"  # never shipped: they are made again with the model at hand
    if parts[0] == DIRECTIONS:
        return parts[1] if len(parts) == 3 else ALIGNED
    return None


def _ship(source: Path, target: Path, places: Mapping[str, str], packing: Packing) -> None:
    """Copy a file; one that names a place, is to be halved, or quotes answers that stay here is written anew."""
    if source.suffix == ".safetensors":
        _ship_tensors(source, target, places, half=packing.half and source.parent.name == ACTIVATIONS)
    elif source.suffix == ".parquet" and (packing.half or not packing.answers):
        _ship_table(source, target, packing)
    else:
        _copy(source, target)


def _ship_tensors(source: Path, target: Path, places: Mapping[str, str], *, half: bool) -> None:
    with opened(source) as file:
        about = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    placeless = _without_places(about, places)
    if half:
        tensors = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    if half or placeless != about:
        write_tensors(target, tensors, placeless)
    else:
        _copy(source, target)


def _ship_table(source: Path, target: Path, packing: Packing) -> None:
    """Write a table anew, smaller, in the same groups of rows: numbers rounded or answers left out as asked."""
    table = pq.read_table(source)
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if not packing.answers and name in _ANSWER_COLUMNS and pa.types.is_large_string(column.type):
            unsaid = pc.if_else(pc.is_valid(column), pa.scalar(LEFT_OUT, column.type), pa.scalar(None, column.type))
            table = table.set_column(place, name, unsaid)
        elif packing.half and source.name in _ROUNDED and pa.types.is_floating(column.type):
            rounded = column.to_numpy().astype(np.float16).astype(np.float32)
            table = table.set_column(place, name, pa.array(rounded, from_pandas=True))
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = pq.ParquetFile(source).metadata.row_group(0).num_rows if len(table) else None
    pq.write_table(table, target, compression="zstd", compression_level=15, row_group_size=rows)


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=file_sha256(path), size=path.stat().st_size)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(source, target)
