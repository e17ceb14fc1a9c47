"""One run on disk: its stages, tables, documents and arrays, under a lock while it is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from probes.errors import GravityError, RunFolderError
from probes.store.activation_file import ACTIVATIONS, REDO, UNFINISHED, ActivationFile, ActivationWriter
from probes.store.atomic import file_sha256, fingerprint, link_or_copy, replacing, write_json
from probes.store.direction_names import (
    by_current_names,
    direction_file,
    document_by_current_names,
    filters_as_kept,
    names_of,
)
from probes.store.documents import read_json
from probes.store.exclusive import writing_alone
from probes.store.manifest import MANIFEST, FileRecord, StageRecord, new_manifest, read_manifest
from probes.store.neighbours import measured_elsewhere
from probes.store.pace import Pace
from probes.store.remote import local_folder, mirror_of

if TYPE_CHECKING:
    import pandas as pd

ALIGNED = "aligned"  # the checkpoint that all others are held against
DIRECTIONS = "directions"  # the folder of their files, and the document that says what they are


class RunFolder:
    """One run on disk. Open it to read with `RunFolder(path)`, to write with `RunFolder.writing(path)`.

    What a stage writes is kept in the manifest with its hash. A file that a stage has written is checked against it
    the first time that it is read, so that nothing computes on what was cut off or changed since.
    """

    def __init__(self, path: Path | str, *, quick: bool = False) -> None:
        """Open a run for reading.

        Args:
            path: the folder, or the URL of one, which is then read in a local copy.
            quick: check files by their size alone, for a front end that reads again and again.

        Raises:
            RunFolderError: there is no manifest, it is damaged, or it was written by another format version.
        """
        self.path = local_folder(path)
        self.manifest = read_manifest(self.path)
        self.mirror = mirror_of(self.path)  # where it is the local copy of what a URL names
        self._quick = quick
        self._writing = False
        self._written: dict[str, FileRecord] | None = None  # by the stage that is under way
        self._pace = Pace()
        self._waits = False  # for its pace to allow the manifest's next writing

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path | str, *, name: str | None = None) -> Iterator[Self]:
        """Create the run, or open it to go on with it; no other process can write to it meanwhile.

        Raises:
            RunFolderError: another process writes to it, or the folder holds something that is no run.
        """
        path = local_folder(path, new=True)
        with writing_alone(path) as mirror:
            if not (path / MANIFEST).exists():
                write_json(path / MANIFEST, new_manifest(name or path.name).model_dump())
            run = cls(path)
            run._writing, run.mirror = True, mirror
            yield run

    # Stages --------------------------------------------------------------------------------------------------

    def holds(self, stage: str, made_from: str) -> bool:
        """Whether `stage` was made from inputs with this fingerprint, and all of its files are there and whole."""
        record = self.manifest.stages.get(stage)
        return record is not None and record.made_from == made_from and self.damage(stage) is None

    def damage(self, stage: str, *, quick: bool = False) -> str | None:
        """What is wrong with the first file of a finished stage that is not as it was written; None where all are.

        `quick` looks at sizes alone.
        """
        outputs = self.manifest.stages[stage].outputs
        faults = ((name, self._fault(name, entry, quick=quick)) for name, entry in outputs.items())
        return next((f"({name}) {fault}" for name, fault in faults if fault), None)

    @contextlib.contextmanager
    def stage(self, stage: str, made_from: str) -> Iterator[None]:
        """Mark `stage` as finished, with its time and its files, once the body has written everything."""
        self.begin_stage(stage)
        with self.stage_record(made_from) as record:
            yield
        self.keep_stage(stage, record)

    def begin_stage(self, stage: str) -> StageRecord | None:
        """Take `stage` back: what is there is about to be overwritten; killed meanwhile, it must not count."""
        return self.begin_stages([stage]).get(stage)

    def begin_stages(self, stages: Iterable[str]) -> dict[str, StageRecord]:
        """As `begin_stage`, of many, with the manifest written once; the records of those that were there."""
        known = self.manifest.stages
        records = {stage: known.pop(stage) for stage in stages if stage in known}
        if records:
            self.save()
        return records

    @contextlib.contextmanager
    def stage_record(self, made_from: str) -> Iterator[StageRecord]:
        """The record of a stage, which has its time and its files once the body has written everything.

        It leaves the manifest alone, so that a worker may write a stage that another process keeps.
        """
        started = time.monotonic()
        record = StageRecord(made_from=made_from)
        outer, self._written = self._written, record.outputs
        try:
            yield record
        finally:
            self._written = outer
        record.seconds = round(time.monotonic() - started, 3)

    def keep_stage(self, stage: str, record: StageRecord, *, one_of_many: bool = False) -> None:
        """Put a stage that is whole into the manifest; one of many is written as `save_in_time` does it."""
        self.manifest.stages[stage] = record
        (self.save_in_time if one_of_many else self.save)()

    def made_from(self, stage: str) -> str | None:
        """The fingerprint that a finished stage was made from; None where it is not finished."""
        record = self.manifest.stages.get(stage)
        return None if record is None else record.made_from

    def forget(self, stage: str) -> None:
        """Take a stage back: it no longer counts as finished, and its files are deleted."""
        record = self.begin_stage(stage)
        for name in record.outputs if record else ():
            (self.path / name).unlink(missing_ok=True)

    def save(self) -> None:
        """Write the manifest; the mirror of a URL then sends what has changed."""
        self._waits = False
        with self._pace.measure():
            write_json(self.path / MANIFEST, self.manifest.model_dump())
        if self.mirror is not None and self._writing:
            self.mirror.push_soon()

    def save_in_time(self) -> None:
        """Write the manifest if that takes a small share of the time, else as soon as it does (`save_what_waits`).

        Who calls this saves at the end of it all. What a killed process had not written yet is done again.
        """
        self._waits = True
        self.save_what_waits()

    def save_what_waits(self) -> None:
        """Write the manifest where `save_in_time` has put it off and it is due by now."""
        if self._waits and self._pace.is_due:
            self.save()

    def finish(self) -> None:
        """Say in the manifest that every stage that was asked for is there."""
        self.manifest.status = "finished"
        self.save()

    @property
    def fingerprint(self) -> str:
        """Changes when anything that a reader could see has changed: the key for caches of what was read."""
        return fingerprint([self.manifest.model_dump(include={"stages"}), self.manifest.status])

    def record(self, path: Path) -> None:
        """Keep the hash of a file that was just written, for the stage under way and for all that share the file."""
        name = path.relative_to(self.path).as_posix()
        sharing = [record.outputs for record in self.manifest.stages.values() if name in record.outputs]
        if self._written is None and not sharing:
            return
        entry = FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
        if self._written is not None:
            self._written[name] = entry
        for outputs in sharing:
            outputs[name] = entry
        if sharing and self._writing:
            self.save()

    def check(self, path: Path) -> None:
        """Refuse a file that is not what its stage has written.

        Raises:
            RunFolderError: it is missing, cut off or changed, or was left out of this packed run.
        """
        name = path.relative_to(self.path).as_posix()
        if self.mirror is not None:
            self.mirror.fetch(name)
        if name in self.manifest.omitted and not path.exists():
            raise RunFolderError(
                f"{name} is left out of this packed run",
                got=str(self.path),
                next_step="Make the whole run: the commands are in its report.",
            )
        fault = self._fault_of(name)
        if fault and not self._writing:
            self.reload()  # another process may have gone on with the run since it was opened here
            fault = self._fault_of(name)
        if fault:
            raise RunFolderError(f"{path} {fault}", next_step=UNFINISHED if "missing" in fault else REDO)

    def reload(self) -> None:
        """Read the manifest again."""
        self.manifest = read_manifest(self.path)

    def _fault_of(self, name: str) -> str | None:
        """What is wrong with a file, by the stage that wrote it; None where nothing is, or no stage did."""
        entries = (record.outputs[name] for record in self.manifest.stages.values() if name in record.outputs)
        entry = next(entries, None)
        return None if entry is None else self._fault(name, entry, quick=self._quick)

    def _fault(self, name: str, entry: FileRecord, *, quick: bool) -> str | None:
        path = self.path / name
        try:
            size = path.stat().st_size
        except OSError:
            elsewhere = self.mirror is not None and self.mirror.knows(name, entry.size)
            return None if elsewhere or self.manifest.omitted.get(name) == entry else "is missing"
        if size != entry.size:
            return f"has changed since it was written ({size:,} bytes for {entry.size:,})"
        if quick or file_sha256(path) == entry.sha256:
            return None
        return "has changed since it was written (another sha256)"

    # Tables and documents ------------------------------------------------------------------------------------

    def write_table(self, name: str, frame: pd.DataFrame, *, rows_per_group: int | None = None) -> None:
        """Write `<name>.parquet`, atomically; a reader's filter skips whole groups of rows."""
        path = self.path / f"{name}.parquet"
        with replacing(path) as beside:
            frame.to_parquet(beside, index=False, **({"row_group_size": rows_per_group} if rows_per_group else {}))
        self.record(path)

    def read_table(self, name: str, *, columns: Sequence[str] | None = None, filters: Any = None) -> pd.DataFrame:
        """Read `<name>.parquet`; `filters` as in pandas, so that only the wanted row groups are read.

        Raises:
            RunFolderError: the table is not there, is damaged, or is not what its stage has written.
        """
        import pandas as pd
        import pyarrow as pa

        path = self.path / f"{name}.parquet"
        self.check(path)
        try:
            chosen = list(columns) if columns else None
            return by_current_names(pd.read_parquet(path, columns=chosen, filters=filters_as_kept(filters)))
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} has no {name}.parquet", next_step=UNFINISHED) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read", got=str(error).splitlines()[0], next_step=REDO) from error

    def has_table(self, name: str) -> bool:
        """Whether `<name>.parquet` is there."""
        return (self.path / f"{name}.parquet").is_file()

    def write_json(self, name: str, value: Any) -> None:
        """Write `<name>.json`, atomically."""
        path = self.path / f"{name}.json"
        write_json(path, value)
        self.record(path)

    def has_json(self, name: str) -> bool:
        """Whether `<name>.json` is there."""
        return (self.path / f"{name}.json").is_file()

    def read_json(self, name: str) -> Any:
        """Read `<name>.json`.

        Raises:
            RunFolderError: it is not there, is damaged, or is not what its stage has written.
        """
        path = self.path / f"{name}.json"
        self.check(path)
        if not path.exists():
            raise RunFolderError(f"{self.path} has no {name}.json", next_step=UNFINISHED)
        try:
            document = read_json(path, kind="file of a run", error=RunFolderError, finite=False)
        except GravityError as fault:
            raise RunFolderError(fault.what, got=fault.got, expected=fault.expected, next_step=REDO) from fault
        return document_by_current_names(document) if name == DIRECTIONS else document

    # Arrays --------------------------------------------------------------------------------------------------

    def activations_path(self, checkpoint: str) -> Path:
        """Where the activations of `checkpoint` lie, whether or not they are there yet."""
        return self.path / ACTIVATIONS / f"{checkpoint}.safetensors"

    def has_activations(self, checkpoint: str) -> bool:
        """Whether the activations of `checkpoint` are there, here or behind the URL that this folder mirrors."""
        path = self.activations_path(checkpoint)
        return path.is_file() or (self.mirror is not None and self.mirror.knows(path.relative_to(self.path).as_posix()))

    def activation_file(self, checkpoint: str) -> ActivationFile:
        """Open the activations of one checkpoint; layers are read one at a time.

        Raises:
            RunFolderError: the file is not there, is damaged, or is not what was measured.
        """
        path = self.activations_path(checkpoint)
        self.check(path)
        return ActivationFile(path)

    @contextlib.contextmanager
    def writing_activations(
        self, path: Path, shape: tuple[int, int, int], dtype: str, about: Mapping[str, str]
    ) -> Iterator[ActivationWriter]:
        """A writer for [layer, prompt, d_model] and the embedding; the file appears whole, or not at all."""
        with ActivationWriter(path, shape, dtype=dtype, about=about) as writer:
            yield writer
        self.record(path)

    def direction_path(self, name: str, checkpoint: str = ALIGNED) -> Path:
        """Where a direction's file lies, whether or not it is there; under a former name where only that is there."""
        folder = self.path / DIRECTIONS if checkpoint == ALIGNED else self.path / DIRECTIONS / checkpoint
        paths = [folder / f"{direction_file(known)}.safetensors" for known in names_of(name)]
        return next((path for path in paths if path.exists()), paths[0])

    def adopt_activations(self, checkpoint: str, key: str) -> bool:
        """Take over activations that a neighbour under the same root has measured already.

        Args:
            checkpoint: the name the file gets here; called inside its stage.
            key: fingerprint of weights, prompts, positions and precision: what the neighbour's stage was made from.

        Returns:
            Whether a whole file with that key is now in place.
        """
        path = self.activations_path(checkpoint)
        for candidate, entry in measured_elsewhere(self.path, key):
            if candidate.is_file() and file_sha256(candidate) == entry.sha256:
                path.parent.mkdir(exist_ok=True)
                with replacing(path) as beside:
                    link_or_copy(candidate, beside)
                self.record(path)
                return True
        return False
