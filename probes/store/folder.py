"""One run on disk: its stages, tables, documents and arrays, under a lock while it is written."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from probes.errors import RunFolderError
from probes.store.activation_file import REDO, UNFINISHED, ActivationFile
from probes.store.atomic import fingerprint, link_or_copy, replacing, sweep, write_json
from probes.store.manifest import MANIFEST, new_manifest, read_manifest

if TYPE_CHECKING:
    import pandas as pd

ACTIVATIONS = "activations"
ALIGNED = "aligned"  # the checkpoint that all others are held against
DIRECTIONS = "directions"  # the folder of their files, and the document that says what they are
_OWN_BEFORE_MANIFEST = {".lock", "checkpoints", "lineage.toml", "prompts.jsonl", "training.json"}


class RunFolder:
    """One run on disk. Open it to read with `RunFolder(path)`, to write with `RunFolder.writing(path)`."""

    def __init__(self, path: Path | str) -> None:
        """Open a run for reading.

        Raises:
            RunFolderError: there is no manifest, it is damaged, or it was written by another format version.
        """
        self.path = Path(path)
        self.manifest = read_manifest(self.path)

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path | str, *, name: str | None = None) -> Iterator[RunFolder]:
        """Create the run, or open it to go on with it; no other process can write to it meanwhile.

        Raises:
            RunFolderError: another process writes to it, or the folder holds something that is no run.
        """
        path = Path(path)
        fresh = not (path / MANIFEST).exists()
        if fresh and path.is_dir() and any(child.name not in _OWN_BEFORE_MANIFEST for child in path.iterdir()):
            raise RunFolderError(
                f"{path} is not empty and holds no {MANIFEST}", next_step="Give --out a new folder, or one of a run."
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"Another process is writing to {path}", next_step="Wait for it, or give another --out."
            ) from None
        try:
            sweep(path)
            if fresh:
                write_json(path / MANIFEST, new_manifest(name or path.name).model_dump())
            yield cls(path)
        finally:
            lock.release()

    # Stages --------------------------------------------------------------------------------------------------

    def holds(self, stage: str, made_from: str) -> bool:
        """Whether `stage` is finished and was made from inputs with this fingerprint."""
        return self.manifest.stages.get(stage) == made_from

    @contextlib.contextmanager
    def stage(self, stage: str, made_from: str) -> Iterator[None]:
        """Mark `stage` as finished, with its time, once the body has written everything."""
        if self.manifest.stages.pop(stage, None) is not None:
            self.save()  # what is there is about to be overwritten: killed meanwhile, it must not count as finished
        started = time.monotonic()
        yield
        self.manifest.stages[stage] = made_from
        self.manifest.timings[stage] = round(time.monotonic() - started, 3)
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST, self.manifest.model_dump())

    def finish(self) -> None:
        """Say in the manifest that every stage that was asked for is there."""
        self.manifest.status = "finished"
        self.save()

    @property
    def fingerprint(self) -> str:
        """Changes when anything that a reader could see has changed: the key for caches of what was read."""
        return fingerprint([self.manifest.stages, self.manifest.status])

    # Tables and documents ------------------------------------------------------------------------------------

    def write_table(self, name: str, frame: pd.DataFrame, *, rows_per_group: int | None = None) -> None:
        """Write `<name>.parquet`, atomically; a reader's filter skips whole groups of rows."""
        with replacing(self.path / f"{name}.parquet") as beside:
            frame.to_parquet(beside, index=False, **({"row_group_size": rows_per_group} if rows_per_group else {}))

    def read_table(self, name: str, *, columns: Sequence[str] | None = None, filters: Any = None) -> pd.DataFrame:
        """Read `<name>.parquet`; `filters` as in pandas, so that only the wanted row groups are read.

        Raises:
            RunFolderError: the table is not there or is damaged.
        """
        import pandas as pd
        import pyarrow as pa

        path = self.path / f"{name}.parquet"
        try:
            return pd.read_parquet(path, columns=list(columns) if columns else None, filters=filters)
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} has no {name}.parquet", next_step=UNFINISHED) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read", got=str(error).splitlines()[0], next_step=REDO) from error

    def has_table(self, name: str) -> bool:
        """Whether `<name>.parquet` is there."""
        return (self.path / f"{name}.parquet").is_file()

    def write_json(self, name: str, value: Any) -> None:
        """Write `<name>.json`, atomically."""
        write_json(self.path / f"{name}.json", value)

    def has_json(self, name: str) -> bool:
        """Whether `<name>.json` is there."""
        return (self.path / f"{name}.json").is_file()

    def read_json(self, name: str) -> Any:
        """Read `<name>.json`.

        Raises:
            RunFolderError: it is not there or is damaged.
        """
        path = self.path / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} has no {name}.json", next_step=UNFINISHED) from None
        except (ValueError, OSError) as error:
            raise RunFolderError(f"{path} cannot be read", got=str(error), next_step=REDO) from error

    # Arrays --------------------------------------------------------------------------------------------------

    def activations_path(self, checkpoint: str) -> Path:
        """Where the activations of `checkpoint` lie, whether or not they are there yet."""
        return self.path / ACTIVATIONS / f"{checkpoint}.safetensors"

    def activations(self, checkpoint: str) -> ActivationFile:
        """Open the activations of one checkpoint; layers are read one at a time.

        Raises:
            RunFolderError: the file is not there or is damaged.
        """
        return ActivationFile(self.activations_path(checkpoint))

    def direction_path(self, name: str, checkpoint: str = ALIGNED) -> Path:
        """Where a direction's file lies, whether or not it is there."""
        folder = self.path / DIRECTIONS
        return (folder if checkpoint == ALIGNED else folder / checkpoint) / f"{direction_file(name)}.safetensors"

    def adopt_activations(self, checkpoint: str, key: str) -> bool:
        """Take over activations that this run or a neighbour under the same root has measured already.

        Args:
            checkpoint: the name the file gets here.
            key: fingerprint of weights, prompts, positions and precision, as kept in the file's own description.

        Returns:
            Whether a file with that key is now in place.
        """
        wanted = self.activations_path(checkpoint)
        for candidate in [wanted, *_measured_elsewhere(self.path, key)]:
            if not candidate.is_file():
                continue
            with contextlib.suppress(RunFolderError):
                if ActivationFile(candidate).about.get("key") == key:
                    if candidate != wanted:
                        wanted.parent.mkdir(exist_ok=True)
                        with replacing(wanted) as beside:
                            link_or_copy(candidate, beside)
                    return True
        return False


def direction_file(name: str) -> str:
    """A direction's name as that of its file: `control:drift` is `control-drift`.

    Raises:
        RunFolderError: nothing is left of it.
    """
    safe = re.sub(r"[^\w.-]+", "-", name)
    if not safe.strip("-."):
        raise RunFolderError("A direction needs a name", got=repr(name), expected="letters, digits, - and _")
    return safe


def find_runs(root: Path | str) -> list[Path]:
    """Run folders at `root` or directly under it, newest first."""
    root = Path(root)
    if (root / MANIFEST).is_file():
        return [root]
    if not root.is_dir():
        return []
    return sorted(
        (path.parent for path in root.glob(f"*/{MANIFEST}")), key=lambda path: -(path / MANIFEST).stat().st_mtime
    )


def _measured_elsewhere(run: Path, key: str) -> Iterator[Path]:
    """Files of this run and of its neighbours whose manifest says that they hold activations with this key."""
    for manifest in [run / MANIFEST, *sorted(run.parent.glob(f"*/{MANIFEST}"))]:
        with contextlib.suppress(ValueError, OSError, AttributeError):
            checkpoints = json.loads(manifest.read_text(encoding="utf-8")).get("checkpoints", {})
            for name, about in checkpoints.items():
                if about.get("key") == key:
                    yield manifest.parent / ACTIVATIONS / f"{name}.safetensors"
