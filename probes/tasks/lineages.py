"""Public models whose history is known: what may stand in for the witness of an aligned model, found by looking it up.

`data/lineages/known.toml` lists them, each entry checked against a public card, with the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from probes.errors import CheckpointError
from probes.lineage import CheckpointRef
from probes.models.source import CONFIG, fetch_description, read_json
from probes.prompts import data_folder
from probes.store.documents import read_toml

Read = TypeVar("Read")
CARD = "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CACHED = re.compile(r"models--([^/]+)--([^/]+)")


class KnownLineage(BaseModel):
    """One public instruct model and what came before it.

    Attributes:
        model: its hub id.
        base: the pretrained model's.
        sft: that of the instruction-tuned model before preference training, where that is public.
        checked: against what the entry was checked, e.g. `model card`.
        source: where that stands.
        shape: model type, layers, width and vocabulary of its configuration, where they were checked too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base: str
    sft: str | None = None
    checked: str
    source: str
    shape: tuple[str, int, int, int] | None = None

    @property
    def witness(self) -> tuple[str, str]:
        """What stands in for a witness, and its kind: the instruction-tuned model, else the base."""
        return (self.sft, "instruction-tuned") if self.sft else (self.base, "base")

    def to_json(self) -> dict[str, str | None]:
        """What `gravity-probe lineages --json` lists."""
        return {"model": self.model, "base": self.base, "sft": self.sft}


def known_lineages() -> tuple[KnownLineage, ...]:
    """Every entry of `data/lineages/known.toml`, by the model's name."""
    raw = read_toml(data_folder() / "lineages" / "known.toml", kind="list of lineages")
    entries = (KnownLineage.model_validate(entry) for entry in raw["models"])
    return tuple(sorted(entries, key=lambda entry: entry.model.lower()))


@dataclass(frozen=True)
class Suggestion:
    """What may stand in for the witness of an aligned model.

    Attributes:
        how: by what it was found.
        witnesses: hub id and kind of each candidate; several where only the architecture is known.
    """

    how: str
    witnesses: tuple[tuple[str, str], ...]

    def sentence(self, *, in_file: bool = False) -> str:
        """The line to add, as options of the command or for a lineage file."""
        lines = [_line(model, kind, in_file=in_file) for model, kind in self.witnesses]
        if len(lines) == 1:
            return f"An earlier state of this model is public ({self.how}). To measure the way back, add: {lines[0]}"
        return f"It may be one of several public models ({self.how}). If it is, add its line: " + "; or: ".join(lines)


def suggest_witness(aligned: CheckpointRef, known: Sequence[KnownLineage] | None = None) -> Suggestion | None:
    """Look an aligned model up: by its id, by the `base_model` of its card, by its architecture and vocabulary.

    Only its card and its configuration are read, from its folder or the hub; what cannot be reached is left out.

    Args:
        aligned: where it lives.
        known: the public models; None is those that ship with the program.
    """
    entries = known_lineages() if known is None else known
    by_id = {entry.model.lower(): entry for entry in entries}
    for model in _own_ids(aligned):
        if model.lower() in by_id:
            return Suggestion(f"its id is {model}", (by_id[model.lower()].witness,))
    for model in _bases_of_card(aligned):
        if model.lower() in by_id:
            return Suggestion(f"its card names {model}", (by_id[model.lower()].witness,))
        return Suggestion("base_model of its card", ((model, "base"),))
    shape = _shape(aligned)
    alike = tuple(dict.fromkeys(entry.witness for entry in entries if shape is not None and entry.shape == shape))
    return Suggestion("the same architecture and vocabulary", alike) if alike else None


def _line(model: str, kind: str, *, in_file: bool) -> str:
    if in_file:
        return f'witness = {{ model = "{model}", kind = "{kind}" }}'
    return f"--witness {model} --witness-kind {kind}"


def _own_ids(aligned: CheckpointRef) -> list[str]:
    """Hub ids that a place may stand for: itself, its place in the hub's cache, and what its configuration says."""
    if not Path(aligned.model).exists():
        return [aligned.model]
    cached = _CACHED.search(str(Path(aligned.model).resolve()))
    name = (_config(aligned) or {}).get("_name_or_path")
    return [*([f"{cached[1]}/{cached[2]}"] if cached else []), *([name] if isinstance(name, str) else [])]


def _bases_of_card(aligned: CheckpointRef) -> list[str]:
    """`base_model` of the model's card: one or several ids; what is no id is left out."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    try:
        named = (_read(aligned, CARD, metadata_load) or {}).get("base_model")
    except (YAMLError, ValueError, RecursionError):  # a damaged card names nothing
        return []
    return [name for name in map(str, named if isinstance(named, list) else [named]) if _HUB_ID.fullmatch(name)]


def _shape(aligned: CheckpointRef) -> tuple[str, int, int, int] | None:
    config = _config(aligned) or {}
    numbers = [config.get(name) for name in ("num_hidden_layers", "hidden_size", "vocab_size")]
    if not all(isinstance(number, int) for number in numbers):
        return None
    return (str(config.get("model_type")), *numbers)  # type: ignore[return-value]


def _config(aligned: CheckpointRef) -> dict[str, Any] | None:
    return _read(aligned, CONFIG, read_json)


def _read(aligned: CheckpointRef, name: str, read: Callable[[Path], Read]) -> Read | None:
    """A small file of a model; None where it has none, or cannot be reached."""
    try:
        path = fetch_description(aligned.model, aligned.revision) / name
        return read(path) if path.is_file() else None
    except (CheckpointError, OSError):
        return None
