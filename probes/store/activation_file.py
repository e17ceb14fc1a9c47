"""Activations of one checkpoint on disk: written row by row in any order, read a layer at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from probes.errors import RunFolderError, UsageError
from probes.store.atomic import place_beside

ACTIVATIONS = "activations"  # the folder of the files, and of the stages that leave them
RESID_POST = "resid_post"  # [layer, prompt, d_model]
EMBED = "embed"  # [prompt, d_model]
UNFINISHED = "The run is not finished; start the command that made it again and it goes on where it stopped."
REDO = "Delete the file and start the command that made it again; only that stage is done anew."
_SAFETENSORS_NAMES = {"float16": "F16", "float32": "F32"}


def activations_stage(checkpoint: str) -> str:
    """The name of the stage that leaves the activations of a checkpoint."""
    return f"{ACTIVATIONS}/{checkpoint}"


class ActivationFile:
    """Activations of one checkpoint on disk: the residual stream after every block, and the embedding."""

    def __init__(self, path: Path | str) -> None:
        """Read the file's header.

        Raises:
            RunFolderError: it is not there, truncated, or no activation file.
        """
        self.path = Path(path)
        with opened(self.path) as file:
            self.about: dict[str, str] = dict(file.metadata() or {})
            if RESID_POST not in file.keys():  # noqa: SIM118
                raise RunFolderError(f"{self.path} holds no {RESID_POST}", got=sorted(file.keys()), next_step=REDO)
            self.shape: tuple[int, ...] = tuple(file.get_slice(RESID_POST).get_shape())

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.shape[0]

    def layer(self, layer: int) -> np.ndarray:
        """Float32 activations [prompt, d_model] after block `layer`; -1 is the embedding. One contiguous read.

        Raises:
            UsageError: there is no such layer.
        """
        if not -1 <= layer < self.n_layers:
            raise UsageError(
                "There is no such layer", got=layer, expected=f"0 to {self.n_layers - 1}, or -1 for the embedding"
            )
        with opened(self.path) as file:
            rows = file.get_tensor(EMBED) if layer == -1 else file.get_slice(RESID_POST)[layer]
        return np.asarray(rows, dtype=np.float32)


class ActivationWriter:
    """Writes an activation file row by row in any order, holding nothing in memory.

    The header goes first, then each row to its own offset; the file is renamed into place by `close()`, or at the end
    of a `with`. Its room on disk is taken at the start, so that a full disk is known before the work, not after.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], *, dtype: str, about: Mapping[str, str]) -> None:
        """Take the file's room on disk and write its header; `shape` is [layer, prompt, d_model]."""
        self.path, self.dtype = path, np.dtype(dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = place_beside(path)
        self._shape = shape
        header, self._offsets, size = self._layout(about)
        self._file = open(self._beside, "wb", buffering=0)  # noqa: SIM115
        try:
            os.posix_fallocate(self._file.fileno(), 0, len(header) + size)
            os.pwrite(self._file.fileno(), header, 0)
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> ActivationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave a whole file, or after an exception none."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def _layout(self, about: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
        n_layers, n_prompts, d_model = self._shape
        resid, embed = n_layers * n_prompts * d_model, n_prompts * d_model
        width = self.dtype.itemsize
        kind = _SAFETENSORS_NAMES[self.dtype.name]
        document = {
            "__metadata__": dict(sorted(about.items())),
            EMBED: {"dtype": kind, "shape": [n_prompts, d_model], "data_offsets": [0, embed * width]},
            RESID_POST: {
                "dtype": kind,
                "shape": list(self._shape),
                "data_offsets": [embed * width, (embed + resid) * width],
            },
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        start = 8 + len(text)
        return (
            len(text).to_bytes(8, "little") + text,
            {EMBED: start, RESID_POST: start + embed * width},
            (embed + resid) * width,
        )

    def write(self, layer: int, prompts: Sequence[int], rows: np.ndarray) -> None:
        """Put `rows` [len(prompts), d_model] at `layer` (-1: the embedding) and these prompts."""
        _, n_prompts, d_model = self._shape
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        base = (
            self._offsets[EMBED]
            if layer == -1
            else self._offsets[RESID_POST] + layer * n_prompts * d_model * self.dtype.itemsize
        )
        for row, prompt in zip(rows, prompts, strict=True):
            os.pwrite(self._file.fileno(), row.data, base + prompt * d_model * self.dtype.itemsize)

    def close(self) -> None:
        """Make the file appear under its name."""
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._beside, self.path)

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._beside.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file.

    Raises:
        RunFolderError: it is not there, truncated or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise RunFolderError(f"{path} is not there", next_step=UNFINISHED) from None
    except SafetensorError as error:
        raise RunFolderError(f"{path} is truncated or damaged", got=str(error), next_step=REDO) from error
