"""`run.json`: what a run is made of, how far it has come, and the refusal of what cannot be trusted."""

from __future__ import annotations

import contextlib
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from probes import __version__
from probes.errors import RunFolderError
from probes.store.documents import read_object

FORMAT_VERSION = 2
MANIFEST = "run.json"
_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy", "scipy", "scikit-learn", "safetensors", "peft")


class FileRecord(BaseModel):
    """One file as it was written: the sha256 of its bytes and their number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int


class StageRecord(BaseModel):
    """One finished stage.

    Attributes:
        made_from: fingerprint of its inputs.
        seconds: how long it took.
        outputs: its files, by their path in the run folder; a stage whose files are missing, cut off or changed is
            not finished.
    """

    model_config = ConfigDict(extra="forbid")

    made_from: str
    seconds: float = 0.0
    outputs: dict[str, FileRecord] = Field(default_factory=dict)


class Manifest(BaseModel):
    """`run.json`: what a run is made of and how far it has come.

    `omitted` lists the files that a packed run leaves out on purpose; readers say so, and it cannot be measured on.
    """

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    status: Literal["running", "finished"] = "running"
    created: str
    tool_version: str = __version__
    config_given: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    lineage: dict[str, Any] = Field(default_factory=dict)
    prompts: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    checkpoints: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    omitted: dict[str, FileRecord] = Field(default_factory=dict)

    @property
    def notices(self) -> list[str]:
        """What was read in another way than one might think, and what looks wrong, in sentences.

        Raises:
            RunFolderError: they are no sentences.
        """
        model, prompts = self.model, self.prompts
        try:
            of_stages = model.get("stage_notices", {}).values()
            sentences = [*model.get("notices", []), *of_stages, *prompts.get("notices", [])]
            return TypeAdapter(list[str]).validate_python(sentences, strict=True)
        except (AttributeError, TypeError, ValidationError):
            raise RunFolderError(f"The notices in {MANIFEST} are damaged", expected="lists of sentences") from None


def new_manifest(name: str) -> Manifest:
    """The manifest of a run that begins now, with the versions of what will make it."""
    return Manifest(name=name, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), packages=_package_versions())


def read_manifest(path: Path) -> Manifest:
    """The manifest of the run folder `path`.

    Raises:
        RunFolderError: there is none, it is damaged, or it was written by another format version.
    """
    file = path / MANIFEST
    if not file.exists():
        raise RunFolderError(
            f"{path} is no run folder", expected=f"a folder with {MANIFEST}", next_step="Make one: gravity-probe demo."
        )
    raw = read_object(file, kind="manifest of a run", error=RunFolderError, finite=False)
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise RunFolderError(
            f"{path} was written in another run format",
            got=f"version {version}",
            expected=f"version {FORMAT_VERSION}",
            next_step="Update gravity-probe." if newer else "Make the run again with this version.",
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise RunFolderError(f"{file} is damaged", got=f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def find_runs(root: Path | str) -> list[Path]:
    """Run folders at `root` or directly under it, newest first."""
    root = Path(root)
    if (root / MANIFEST).is_file():
        return [root]
    if not root.is_dir():
        return []
    folders = (path.parent for path in root.glob(f"*/{MANIFEST}"))
    return sorted(folders, key=lambda path: -(path / MANIFEST).stat().st_mtime)


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
