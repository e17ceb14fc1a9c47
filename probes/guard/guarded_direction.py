"""Where and along what the guard looks: a direction's unit vectors at some layers, as tensors.

A control keeps the layers and the length that counts as 1, so that it differs from the block in nothing but the
direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.directions.vectors import Vectors
from probes.errors import GravityError


class GuardError(GravityError):
    """A guard that cannot do what it was asked to."""


@dataclass(frozen=True)
class GuardedDirection:
    """Where and along what the guard looks.

    Attributes:
        layers: the guarded blocks, rising.
        unit: a unit vector for each guarded layer, [layer, d_model].
        norm: length that counts as 1 at each guarded layer, [layer].
    """

    layers: tuple[int, ...]
    unit: Float[Tensor, "layer d_model"]
    norm: Float[Tensor, " layer"]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it consists of."""
        return torch.tensor(self.layers), self.unit, self.norm

    @classmethod
    def from_vectors(cls, vectors: Vectors, layers: Sequence[int]) -> GuardedDirection:
        """Take a direction at the guarded layers.

        Raises:
            GuardError: the direction is not known at a guarded layer, or not defined there.
        """
        chosen = tuple(sorted(set(layers)))
        if not chosen or not set(chosen) <= set(vectors.layers):
            raise GuardError(
                f"The direction {vectors.name} cannot be guarded at these layers",
                got=list(layers),
                expected=f"layers among {', '.join(map(str, vectors.layers))}",
            )
        places = [vectors.layers.index(layer) for layer in chosen]
        norm = vectors.norm[places]
        if not (np.isfinite(norm).all() and (norm > 0).all()):
            raise GuardError(
                f"The direction {vectors.name} is not defined at a guarded layer",
                got=f"norms {norm.round(6).tolist()} at layers {list(chosen)}",
                next_step="Guard other layers, or take a witness that differs from the aligned model there.",
            )
        return cls(chosen, torch.tensor(vectors.direction[places]), torch.tensor(norm))

    def turned_along(self, vectors: Vectors) -> GuardedDirection:
        """Another direction in the same layers, counted in this one's length: what a control is.

        Raises:
            GuardError: it is not known or not defined at a guarded layer.
        """
        return replace(GuardedDirection.from_vectors(vectors, self.layers), norm=self.norm)
