"""What a checkpoint is, whatever it is called and wherever it lies: a hash of all that it computes with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.errors import CheckpointError
from probes.lineage import ADAPTER_CONFIG, CheckpointRef
from probes.models.kinship import computation
from probes.models.loading import load_config
from probes.models.source import CONFIG, folder_of, read_json
from probes.models.weights import WeightFiles

_NOT_THE_WEIGHTS = {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}


def checkpoint_sha256(folder: Path, adapter: Path | None = None, *, allow_pickle: bool = False) -> str:
    """Hash of what a checkpoint in a folder computes with, its adapter included; see `ModelHost.weights_sha256`.

    Raises:
        CheckpointError: it cannot be read.
    """
    made_of: dict[str, Any] = {
        "weights": WeightFiles.of_model(folder, allow_pickle=allow_pickle).digests(),
        "computation": _computation(folder),
    }
    if adapter is not None:
        config = read_json(adapter / ADAPTER_CONFIG)
        made_of["adapter"] = WeightFiles.of_adapter(adapter, allow_pickle=allow_pickle).digests()
        made_of["adapter_config"] = {name: config[name] for name in config.keys() - _NOT_THE_WEIGHTS}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


_COMPUTATIONS: dict[bytes, dict[str, Any]] = {}  # by the text of the configuration


def _computation(folder: Path) -> dict[str, Any]:
    """What the configuration says of the computation; a trajectory's say the same, which is read once."""
    if not (folder / CONFIG).is_file():
        return computation(load_config(folder))
    text = (folder / CONFIG).read_bytes()
    if text not in _COMPUTATIONS:
        _COMPUTATIONS[text] = computation(load_config(folder))
    return _COMPUTATIONS[text]


def weights_sha256(ref: CheckpointRef, *, allow_pickle: bool = False) -> str:
    """Hash of what `ref` computes with, found where it lives; see `checkpoint_sha256`.

    Raises:
        CheckpointError: it cannot be found or read.
    """
    adapter = folder_of(ref.adapter, None, allow_pickle=allow_pickle) if ref.adapter else None
    return checkpoint_sha256(
        folder_of(ref.model, ref.revision, allow_pickle=allow_pickle), adapter, allow_pickle=allow_pickle
    )


def check_measured(hash_of: Callable[[CheckpointRef], str], ref: CheckpointRef, measured: str | None) -> None:
    """Refuse a checkpoint whose place by now holds other weights than were measured there.

    Args:
        hash_of: a checkpoint's hash: `ModelHost.weights_sha256` of its lineage, or `weights_sha256`.
        ref: the checkpoint.
        measured: its hash as the run has it; None where the run has none.

    Raises:
        CheckpointError: they are others, or cannot be read.
    """
    if measured and hash_of(ref) != measured:
        raise CheckpointError(
            f"{ref} holds other weights than those that were measured",
            next_step="Measure it again: gravity-probe measure.",
        )
