"""A Trainer's output folder: which models lie in it, at which step, and which of them were cut off while written."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from probes.errors import GravityError
from probes.store.documents import parse_json, read_object

_STEP = re.compile(r"^checkpoint-(\d+)$")
_NAMED = ("checkpoint-best", "checkpoint-final")
TRAINER_FILES = ("*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt", "*.model", "*model*.safetensors")
GUARDED, DIRECTION = "guard.json", "direction_sha256"  # what a guard leaves beside the checkpoints, and its key
_DESCRIPTIONS = ("config.json", "adapter_config.json")
_SHARDED = ("zero_to_fp32.py", "global_step*", "pytorch_model_fsdp*", "*.distcp", ".metadata")
_HEADER_BYTES = 8
_MAX_HEADER = 100_000_000  # as safetensors itself takes


class Contents(NamedTuple):
    """What lies in a Trainer's folder.

    Attributes:
        steps: a folder by optimiser step, in rising order.
        notices: a sentence on each model that was left out, or whose step had to be inferred.
    """

    steps: dict[int, Path]
    notices: tuple[str, ...]


def is_trainer_folder(folder: Path) -> bool:
    """Whether there is a `checkpoint-N` in it."""
    return folder.is_dir() and any(_STEP.match(child.name) for child in folder.iterdir())


def read_trainer_folder(folder: Path) -> Contents:
    """The `checkpoint-N`, the best one and the final model in the root, each step once; nothing where there is none."""
    if not folder.is_dir():
        return Contents({}, ())
    steps: dict[int, Path] = {}
    notices = []
    for child in folder.iterdir():
        match = _STEP.match(child.name)
        if match and child.is_dir():
            if is_whole(child):
                steps[int(match.group(1))] = child
            else:
                notices.append(f"{child} was left out: its writing was cut off.")
    for place in (*(folder / name for name in _NAMED), folder):
        if _has_model(place):
            step = _step_of(place)
            if step is None and place == folder and steps:
                step = max(steps) + 1
                notices.append(f"{place} holds a final model without trainer_state.json: it was taken as step {step}.")
            if step is None:
                notices.append(f"{place} was left out: nothing says at which step it was saved.")
            else:
                steps.setdefault(step, place)
    return Contents(dict(sorted(steps.items())), tuple(sorted(notices)))


def read_direction(folder: Path) -> str | None:
    """Hash of the direction that a training was guarded along; None without a guard, or of an earlier version's."""
    digest = _read(folder / GUARDED).get(DIRECTION)
    return digest if isinstance(digest, str) else None


def is_whole(folder: Path) -> bool:
    """Whether the weights in a checkpoint's folder are all there.

    Folders of DeepSpeed and FSDP count as whole, so that who opens them can say how to convert them.
    """
    if is_sharded_by_trainer(folder):
        return True
    for index in folder.glob("*.index.json"):
        names = _shards(index)
        return bool(names) and all(_is_whole_file(folder / Path(name).name) for name in names)
    files = [path for pattern in ("*.safetensors", "*model*.bin", "*.gguf") for path in folder.glob(pattern)]
    return bool(files) and all(map(_is_whole_file, files))


def is_sharded_by_trainer(folder: Path) -> bool:
    """Whether DeepSpeed or FSDP left the weights in pieces of their own, and no others are there."""
    weights = [*folder.glob("*model*.safetensors"), *folder.glob("*model*.bin")]
    return not weights and any(any(folder.glob(pattern)) for pattern in _SHARDED)


def _has_model(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_file() for name in _DESCRIPTIONS) and is_whole(folder)


def _is_whole_file(path: Path) -> bool:
    """Whether a file of weights is as long as it says."""
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return path.suffix != ".bin" or zipfile.is_zipfile(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(_HEADER_BYTES), "little")
        if length > min(path.stat().st_size, _MAX_HEADER):
            return False
        try:
            header = parse_json(file.read(length).decode("utf-8"), str(path))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return path.stat().st_size == _HEADER_BYTES + length + max(ends, default=0)
        except (GravityError, ValueError, LookupError, TypeError, AttributeError):
            return False


def _read(path: Path) -> dict[str, Any]:
    """The object of a file; an empty one where there is none, or none that can be read."""
    try:
        return read_object(path, kind="file of a Trainer", error=GravityError, finite=False)
    except GravityError:
        return {}


def _step_of(folder: Path) -> int | None:
    step = _read(folder / "trainer_state.json").get("global_step")
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def _shards(index: Path) -> set[str]:
    """Names of the files that an index says the weights lie in."""
    places = _read(index).get("weight_map")
    return {str(name) for name in places.values()} if isinstance(places, dict) else set()
