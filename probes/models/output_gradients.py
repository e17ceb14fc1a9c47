"""The gradient of a loss at what modules put out, by hooks, as `models.hooks` has them for the residual stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Call:
    """What a module was called with, and the place of one tensor among all that it put out."""

    args: Any
    kwargs: Any
    output: int


@contextlib.contextmanager
def output_gradients(
    modules: Sequence[nn.Module], examples: int, take: Callable[[int, Call, Tensor], None]
) -> Iterator[None]:
    """Passes that are made while it is open give `take`, in their backward pass, the gradient at each module's output.

    `take` gets the module's place, its call and the gradient. Modules below which no weight is trained begin the
    backward pass. What all examples of a batch share, as the embedding of positions, has a gradient for each of them.
    """

    def note(module: int, _: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        leaves, form = tree_flatten(output)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 1:
                leaves[place] = _alias(leaf, examples)
                leaves[place].register_hook(partial(take, module, Call(args, kwargs, place)))
        return tree_unflatten(leaves, form)

    with contextlib.ExitStack() as stack:
        for place, module in enumerate(modules):
            stack.callback(module.register_forward_hook(partial(note, place), with_kwargs=True).remove)
        yield


def _alias(tensor: Tensor, examples: int) -> Tensor:
    """The same numbers, whose gradient is from behind the module alone: one output may be made from another."""
    if not tensor.requires_grad:
        tensor.requires_grad_()
    return tensor.expand(examples, *tensor.shape[1:]) if len(tensor) == 1 else tensor.view_as(tensor)
