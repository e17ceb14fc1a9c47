"""Whether a model in memory is built as the measurement assumes: asked when it loads, and refused otherwise."""

from __future__ import annotations

import contextlib
from functools import partial

import torch
from torch import nn

from probes.errors import CheckpointError
from probes.models.devices import input_device
from probes.models.hooks import ENTERING, hand_over

_PROBE_TOKENS = 5
_ROUNDING_IN_8_BITS = 0.1
_LEAVING = 0  # of a list of one block


def check_structure(body: nn.Module, blocks: list[nn.Module], n_layers: int, d_model: int) -> None:
    """Run five tokens and hold the model against what the measurement assumes.

    Checked: as many blocks as the configuration says, each called once and in order; the stream is `d_model`
    wide; what leaves block l is what enters block l + 1, so that the difference over a block is what that block
    added; a later token changes no earlier one, so that padding on the right is harmless. (`hidden_states` are not
    asked for: transformers then leaves hooks of its own on every block.)

    Raises:
        CheckpointError: one of these does not hold.
    """
    if len(blocks) != n_layers:
        raise CheckpointError("The model has another depth than configured", got=len(blocks), expected=n_layers)
    tokens = torch.arange(_PROBE_TOKENS, device=input_device(body))[None]
    entered, left = _streams(body, blocks, tokens)
    shape = (1, _PROBE_TOKENS, d_model)
    odd = [tuple(stream.shape) for stream in (*entered, *left) if tuple(stream.shape) != shape]
    if odd:
        raise _unsupported_error(f"a residual stream [prompt, position, {d_model}]", f"the shape {odd[0]}")
    for layer in range(n_layers - 1):
        if not _same(left[layer], entered[layer + 1]):
            raise _unsupported_error("each block's output to enter the next", f"another tensor after block {layer}")
    changed = tokens.clone()
    changed[0, -1] += 1
    again = _streams(body, blocks, changed)[1][-1]
    if not _agree(again[:, :-1], left[-1][:, :-1], _tolerance(body)):
        raise _unsupported_error("a later token to change no earlier one", "a model that looks ahead")


def _tolerance(body: nn.Module) -> float | None:
    """What a token may change by when a later one is another, of its own size; None is next to nothing.

    In 8 bits, which columns are multiplied in half precision hangs on all tokens of a batch.
    """
    in_8_bits = any(type(module).__name__ == "Linear8bitLt" for module in body.modules())
    return _ROUNDING_IN_8_BITS if in_8_bits else None


def _agree(again: torch.Tensor, before: torch.Tensor, tolerance: float | None) -> bool:
    if tolerance is None:
        return torch.allclose(again, before, rtol=1e-2, atol=1e-3, equal_nan=True)
    return bool(((again - before).float().norm(dim=-1) <= tolerance * before.float().norm(dim=-1)).all())


def _streams(
    body: nn.Module, blocks: list[nn.Module], tokens: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What enters and what leaves each block, in the order of `blocks`."""
    entered: list[list[torch.Tensor]] = [[] for _ in blocks]
    left: list[list[torch.Tensor]] = [[] for _ in blocks]

    def take(block: int, side: int, stream: torch.Tensor) -> None:
        (entered if side == ENTERING else left)[block].append(stream)

    with contextlib.ExitStack() as stack, torch.inference_mode():
        for number, block in enumerate(blocks):
            stack.enter_context(hand_over([block], (ENTERING, _LEAVING), partial(take, number)))
        body(input_ids=tokens, use_cache=False)
    calls = [len(tensors) for tensors in left]
    if calls != [1] * len(blocks):
        raise _unsupported_error("every block to be called once", f"calls {calls}")
    return [tensors[0] for tensors in entered], [tensors[0] for tensors in left]


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))


def _unsupported_error(expected: str, fault: str) -> CheckpointError:
    return CheckpointError(
        "The model is built in a way that is not supported",
        got=fault,
        expected=expected,
        next_step="Activations of it would be named wrongly, so none are taken.",
    )
