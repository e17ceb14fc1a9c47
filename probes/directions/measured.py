"""What directions are made from: activations of checkpoints on the same prompts, of a run or in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from probes.directions.reversion import reversion_did_vectors, reversion_vectors
from probes.directions.vectors import Vectors
from probes.errors import UsageError


@runtime_checkable
class Measured(Protocol):
    """Activations of some checkpoints, and the directions that are made of them; `probes.run.Run` is one."""

    @property
    def harmful(self) -> Bool[np.ndarray, " prompt"]:
        """Which prompts are harmful."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""

    def activations(self, checkpoint: str, layer: int) -> Float32[np.ndarray, "prompt d_model"]:
        """Activations of a checkpoint behind a block."""

    def direction(self, name: str) -> Vectors:
        """A direction as it is at the aligned model."""


@dataclass(frozen=True)
class MeasuredInMemory:
    """Activations that are in no run folder.

    Attributes:
        checkpoints: by name, `aligned` and `witness` among them.
        harmful: which prompts are harmful.
    """

    checkpoints: Mapping[str, Float32[np.ndarray, "layer prompt d_model"]]
    harmful: Bool[np.ndarray, " prompt"]

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.checkpoints["aligned"])

    def activations(self, checkpoint: str, layer: int) -> Float32[np.ndarray, "prompt d_model"]:
        """Activations of a checkpoint behind a block."""
        return self.checkpoints[checkpoint][layer]

    def direction(self, name: str) -> Vectors:
        """The reversion or its difference-in-differences twin.

        Raises:
            UsageError: another direction, which is for a run to keep.
        """
        makers = {"reversion": reversion_vectors, "reversion_did": reversion_did_vectors}
        if name not in makers:
            raise UsageError("Activations in memory have no such direction", got=name, expected=", ".join(makers))
        return makers[name](self.checkpoints["aligned"], self.checkpoints["witness"], self.harmful)


def activations_by_layer(run: Measured, checkpoint: str) -> Iterator[Float32[np.ndarray, "prompt d_model"]]:
    """A checkpoint's activations behind each block in order, one layer in memory at a time."""
    return (run.activations(checkpoint, layer) for layer in range(run.n_layers))
