"""Where one checkpoint lives: a local folder, a hub id with a revision, a GGUF file, or an adapter on a base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from probes.errors import LineageError
from probes.store.documents import read_object
from probes.store.remote import download_checkpoint, is_url, whole_url

ADAPTER_CONFIG = "adapter_config.json"
DESCRIPTIONS = ("config.json", ADAPTER_CONFIG)
ADAPTER_TASKS = (None, "CAUSAL_LM")  # what peft calls the task of an adapter of a language model
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_PATH_LIKE = re.compile(r"[/\\\x00-\x1f]|^\.|^$")


class Record(BaseModel):
    """Part of a lineage: frozen, and an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _no_path(name: str) -> str:
    if _PATH_LIKE.search(name):
        raise ValueError(f"{name!r} is no name: it must not be empty, begin with a dot, or hold a slash")
    return name


Name = Annotated[str, AfterValidator(_no_path)]


class CheckpointRef(Record):
    """Where one checkpoint lives.

    Attributes:
        model: a local folder, a hub id such as `allenai/OLMo-2-0425-1B-DPO`, or a URL such as `s3://bucket/model`.
        revision: branch, tag or commit on the hub; None is the hub's default.
        adapter: a PEFT adapter (folder, hub id or URL) that sits on `model`.
    """

    model: str
    revision: str | None = None
    adapter: str | None = None

    @classmethod
    def parse(cls, text: str, base: str | None = None) -> CheckpointRef:
        """Read `folder`, `org/name`, `org/name@revision`, a GGUF file, an adapter's folder, or the URL of any.

        Args:
            text: the place.
            base: where an adapter's base is now, in place of what the adapter says.

        Raises:
            LineageError: the text is neither a folder that is there nor a hub id.
            RemoteError: it is a URL of a store that refuses, or does not answer.
        """
        if is_url(text):
            return cls._behind_url(text, base)
        folder = Path(text).expanduser()
        if folder.is_dir():
            return cls.from_folder(folder, base)
        if folder.is_file() and folder.suffix == ".gguf":
            return cls(model=str(folder))
        name, _, revision = text.partition("@")
        if _HUB_ID.match(name):
            return cls(model=name, revision=revision or None)
        raise LineageError(
            "This is no checkpoint",
            got=repr(text),
            expected="a folder that exists, a hub id such as org/name@revision, or a URL (s3://, gs://, hf://)",
        )

    @classmethod
    def _behind_url(cls, text: str, base: str | None) -> CheckpointRef:
        """A model's or an adapter's folder behind a URL; a whole repository of the hub is one by its id."""
        url = whole_url(text)
        hub_id, _, revision = url.removeprefix("hf://").partition("@")
        if url.startswith("hf://") and _HUB_ID.match(hub_id) and "/" not in revision:
            return cls(model=hub_id, revision=revision or None)
        if url.endswith(".gguf"):
            return cls(model=url)
        return cls.from_folder(download_checkpoint(url, DESCRIPTIONS), base).moved_to(url)

    def moved_to(self, place: str) -> CheckpointRef:
        """The same reference where the folder that it was read from is a copy of `place`."""
        return self.model_copy(update={"adapter": place} if self.adapter else {"model": place})

    @classmethod
    def of(cls, place: Place, base: str | None = None) -> CheckpointRef:
        """A reference as it is, or read from text (see `parse`) or a folder's path."""
        return place if isinstance(place, CheckpointRef) else cls.parse(str(place), base)

    @classmethod
    def from_folder(cls, folder: Path, base: str | None = None) -> CheckpointRef:
        """A folder that is there: a model's, or an adapter's with what it says of its base; errors as `parse`."""
        if (folder / ADAPTER_CONFIG).is_file():
            config = read_object(
                folder / ADAPTER_CONFIG, kind="description of an adapter", error=LineageError, finite=False
            )
            if config.get("task_type") not in ADAPTER_TASKS:
                raise LineageError(
                    f"The adapter {folder} is not of a language model",
                    got=f"task_type {config['task_type']}",
                    expected="CAUSAL_LM",
                )
            if base is not None:
                base_ref = cls.parse(base)
                return cls(model=base_ref.model, revision=base_ref.revision, adapter=str(folder))
            named = config.get("base_model_name_or_path")
            if not named:
                raise LineageError(
                    f"The adapter {folder} does not say which base it belongs to",
                    expected=f"base_model_name_or_path in {ADAPTER_CONFIG}",
                    next_step="Say where it is: base = BASE, in a lineage file or as an argument.",
                )
            return cls(model=str(named), adapter=str(folder), revision=config.get("revision"))
        return cls(model=str(folder))

    @property
    def is_local(self) -> bool:
        """Whether `model` is a folder on this machine."""
        return Path(self.model).is_dir()

    def __str__(self) -> str:
        place = f"{self.model}@{self.revision}" if self.revision else self.model
        return f"{place} + {self.adapter}" if self.adapter else place


Place: TypeAlias = str | Path | CheckpointRef


class Step(CheckpointRef):
    """One checkpoint of a trajectory, `step` optimiser steps after the aligned model."""

    step: Annotated[int, Field(ge=0)]
