"""Where and along what the guard looks: unit vectors at some layers, and what controls put in their place.

Every control keeps the layers and the length that counts as 1, so that it differs from the block in nothing but the
direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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

    @classmethod
    def from_vectors(cls, vectors: Float[np.ndarray, "all_layers d_model"], layers: Sequence[int]) -> GuardedDirection:
        """Take the raw reversion vectors of all layers and keep the guarded ones.

        Raises:
            GuardError: a guarded layer is not there, or its vector is zero or not finite.
        """
        chosen = tuple(sorted(set(layers)))
        if not chosen or chosen[0] < 0 or chosen[-1] >= len(vectors):
            raise GuardError(
                "These layers cannot be guarded", got=list(layers), expected=f"layers from 0 to {len(vectors) - 1}"
            )
        raw = np.asarray(vectors, dtype=np.float64)[list(chosen)]
        norm = np.linalg.norm(raw, axis=1)
        if not (np.isfinite(norm).all() and (norm > 0).all()):
            raise GuardError(
                "The reversion direction is not defined",
                got=f"norms {norm.round(6).tolist()} at layers {list(chosen)}",
                next_step="Take a witness that differs from the aligned model.",
            )
        unit = raw / norm[:, None]
        return cls(chosen, torch.tensor(unit, dtype=torch.float32), torch.tensor(norm, dtype=torch.float32))

    def random(self, seed: int) -> GuardedDirection:
        """The control: isotropic unit vectors in the same layers, counted in the same length."""
        generator = torch.Generator().manual_seed(seed)
        return self.along(torch.randn(self.unit.shape, generator=generator))

    def along(self, vectors: Tensor | np.ndarray) -> GuardedDirection:
        """Other vectors [layer, d_model] in the same layers, counted in the same length.

        Raises:
            GuardError: one of them is zero or not finite.
        """
        wide = torch.as_tensor(vectors, dtype=torch.float64)
        length = wide.norm(dim=1, keepdim=True)
        if not bool((torch.isfinite(length) & (length > 0)).all()):
            raise GuardError("A control's direction is not defined", got=f"norms {length.flatten().tolist()}")
        return GuardedDirection(self.layers, (wide / length).float(), self.norm)

    def off(self, vectors: np.ndarray) -> GuardedDirection:
        """The part of other vectors [layer, d_model] that is orthogonal to this direction; raises as `along`."""
        wide, unit = torch.as_tensor(vectors, dtype=torch.float64), self.unit.double()
        return self.along(wide - (wide * unit).sum(dim=1, keepdim=True) * unit)
