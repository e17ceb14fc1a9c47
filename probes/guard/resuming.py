"""Which checkpoints of a training are whole: a marker, written last into each, says so, and what to go on with.

The Trainer writes a checkpoint file by file, and the guard adds its state and its record; a kill may come between any
two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from probes.guard.guarded_direction import GuardError
from probes.store import is_unfinished, write_json
from probes.store.documents import read_object

MARKER = "gravity_probe.json"
STATE = "guard.safetensors"
RETURN, SAFETY = ALARMS = ("return", "safety")


@dataclass(frozen=True)
class WholeCheckpoint:
    """A checkpoint into which everything has been written.

    Attributes:
        folder: its `checkpoint-N`.
        step: N.
        healthy: whether every alarm was silent when it was saved.
        ringing: names of the alarms that were on, as `Watch.ringing_alarms` gives them.
        stopped: why training was to stop there; None where it was to go on.
    """

    folder: Path
    step: int
    healthy: bool
    ringing: tuple[str, ...]
    stopped: str | None


def mark_whole(folder: Path, *, ringing: Sequence[str], stopped: str | None) -> None:
    """Say that a checkpoint is whole; call it when nothing more will be written into the folder."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not is_unfinished(path)]
    sizes = {path.name: path.stat().st_size for path in files if path.name != MARKER}
    marker = {"healthy": not ringing, "ringing": list(ringing), "stopped": stopped, "files": sizes}
    write_json(folder / MARKER, marker)


def whole_checkpoints(output: Path) -> list[WholeCheckpoint]:
    """The checkpoints of a Trainer's output folder that are whole, by step; their files are held against the marker."""
    checkpoints = []
    for file in output.glob(f"checkpoint-*/{MARKER}"):
        marker = read_object(file, kind="marker of a checkpoint", error=GuardError)
        try:
            if all(_has_size(file.parent / name, size) for name, size in marker["files"].items()):
                step, healthy = int(file.parent.name.rpartition("-")[2]), bool(marker["healthy"])
                ringing = tuple(marker.get("ringing", () if healthy else ALARMS))  # earlier versions name none
                checkpoints.append(WholeCheckpoint(file.parent, step, healthy, ringing, marker["stopped"]))
        except (LookupError, TypeError, ValueError, AttributeError) as fault:
            raise GuardError(f"{file} is damaged", got=str(fault), next_step=f"Delete {file.parent}.") from fault
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def forget_after(output: Path, step: int) -> None:
    """Take the markers off checkpoints beyond `step`, which training that goes on from there writes anew."""
    for file in output.glob(f"checkpoint-*/{MARKER}"):
        if int(file.parent.name.rpartition("-")[2]) > step:
            file.unlink()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def saved_state(output: Path, step: int) -> dict[str, Any] | None:
    """What an interrupted training left of its guard beside the checkpoint it goes on from; None at step 0.

    Raises:
        GuardError: that checkpoint was saved by a training without this guard.
    """
    if step == 0:
        return None
    file = output / f"checkpoint-{step}" / STATE
    if not file.is_file():
        raise GuardError(
            "The training that goes on here had no guard", got=f"no {STATE} in {file.parent}", expected="one it saved"
        )
    return load_file(file)
