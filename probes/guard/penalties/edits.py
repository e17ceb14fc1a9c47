"""Defences that edit activations while the task trains: preventative steering, and ablation (CAFT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from probes.guard.guarded_direction import GuardedDirection
from probes.guard.penalties.effect import Effect
from probes.models.hooks import edit_in_training


class Edited(Effect):
    """Edits what leaves the guarded blocks, in training mode only: nothing else sees it."""

    def __init__(self, direction: GuardedDirection) -> None:
        super().__init__()
        self.direction = direction

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """The direction that is added or taken out."""
        return self.direction.tensors

    def edit(self, stream: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
        """The stream that goes on."""
        raise NotImplementedError

    def editing(self, blocks: Sequence[nn.Module]) -> AbstractContextManager[None]:
        """Hooks on the guarded blocks; on leaving, also by an exception, none remains."""
        return edit_in_training(blocks, {layer: self._at(place) for place, layer in enumerate(self.direction.layers)})

    def _at(self, place: int) -> Callable[[Tensor], Tensor]:
        def change(stream: Tensor) -> Tensor:
            unit, norm = (values[place].to(stream) for values in (self.direction.unit, self.direction.norm))
            return self.edit(stream, unit, norm)

        return change


class Steering(Edited):
    """Adds c·v while the task trains (preventative steering, arXiv 2507.21509).

    With c > 0 the stream is already where the task would pull it, so the weights need not go there; a negative c
    steers away from the witness instead.
    """

    def __init__(self, direction: GuardedDirection, *, strength: float = 1.0) -> None:
        super().__init__(direction)
        self.strength = strength

    def edit(self, stream: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
        """c reversions along."""
        return stream + self.strength * norm * unit


class Ablation(Edited):
    """Projects v out while the task trains, so that nothing is learnt along it (CAFT, arXiv 2507.16795)."""

    def edit(self, stream: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
        """h − ⟨h, v̂⟩ v̂."""
        del norm
        return stream - (stream @ unit)[..., None] * unit
