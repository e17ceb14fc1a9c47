"""Rivals that edit activations while the task trains: preventative steering, and ablation (CAFT)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from probes.guard.guarded_direction import GuardedDirection
from probes.guard.penalties.effect import Effect

Edit = Callable[[Tensor, Tensor, Tensor], Tensor]


class Edited(Effect):
    """Edits what leaves the guarded blocks, in training mode only: nothing else sees it."""

    def __init__(self, direction: GuardedDirection) -> None:
        super().__init__()
        self.direction = direction

    def edit(self, stream: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
        """The stream that goes on."""
        raise NotImplementedError

    @contextlib.contextmanager
    def editing(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Hooks on the guarded blocks; on leaving, also by an exception, none remains."""
        with contextlib.ExitStack() as stack:
            for place, layer in enumerate(self.direction.layers):
                handle = blocks[layer].register_forward_hook(self._hook(place))
                stack.callback(handle.remove)
            yield

    def _hook(self, place: int) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not module.training:
                return None
            stream = output if isinstance(output, Tensor) else output[0]
            unit, norm = (each[place].to(stream) for each in (self.direction.unit, self.direction.norm))
            changed = self.edit(stream, unit, norm)
            return changed if isinstance(output, Tensor) else (changed, *output[1:])

        return hook


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
