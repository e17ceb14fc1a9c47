"""A pass from the middle of a model: what its blocks return once, and blocks that return it again without computing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn


@contextlib.contextmanager
def block_outputs(blocks: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """While open, a forward pass leaves what each block returns in the list that is handed out, before any change."""
    outputs: list[Any] = []
    with contextlib.ExitStack() as stack:
        for block in blocks:
            hook = block.register_forward_hook(lambda _, __, output: outputs.append(output), prepend=True)
            stack.callback(hook.remove)
        yield outputs


@contextlib.contextmanager
def hold_blocks(blocks: Sequence[nn.Module], output: Any) -> Iterator[None]:
    """While open, these blocks compute nothing and return this; hooks on them work as ever."""
    with contextlib.ExitStack() as stack:
        for block in blocks:
            own = {name: value for name, value in vars(block).items() if name == "forward"}
            stack.callback(vars(block).update, own)
            stack.callback(vars(block).pop, "forward")
            vars(block)["forward"] = lambda *_, **__: output
        yield
