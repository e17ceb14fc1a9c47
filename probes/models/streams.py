"""The residual stream as a forward pass leaves it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from probes.models.architecture import first_tensor


@contextlib.contextmanager
def residuals(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While open, each forward pass leaves the outputs of these blocks in the yielded mapping, by layer.

    The outputs are the tensors themselves, with their gradient history; nothing is changed. On leaving, also by an
    exception, no hook remains.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[layer] = first_tensor(output)

        return hook

    with contextlib.ExitStack() as stack:
        for layer in layers:
            handle = blocks[layer].register_forward_hook(keep(layer))
            stack.callback(handle.remove)
        yield seen
