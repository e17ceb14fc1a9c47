"""The logits of the token that follows each prompt: read whole, or from the block on behind which a vector is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.behaviour.answer_batches import read_prompts
from probes.models.held_blocks import block_outputs, hold_blocks
from probes.models.hooks import add, add_to_groups
from probes.models.prefix import SharedPrefix, prefix_fault, prefix_length, read_prefix, reread_prefix
from probes.models.view import ModelView

_BATCH_SIZE = 32
_MOST_BYTES = 1 << 30  # of what blocks gave, to be kept
_TOLERANCE = 1e-3  # of log probabilities, between two ways of reading: a fault of structure makes more
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)


@torch.inference_mode()
def next_logits(host: ModelView, token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "prompt vocabulary"]:
    """Logits of the token that follows each prompt, float32 on the CPU; what all begin with is read once."""
    prefix = read_prefix(host, token_ids[0][: prefix_length(host, token_ids)])
    places = _batches(token_ids)
    parts = [read_prompts(host, [token_ids[prompt] for prompt in batch], prefix)[0] for batch in places]
    return _in_order(places, parts)


class RepeatedReading:
    """Prompts that are read time and again by a model to which vectors are added behind one block alone.

    What the blocks up to there give is kept from the first reading, and not computed again. A model of which that
    cannot be done, or whose prompts take too much room, is read whole each time.

    Attributes:
        logits: of the token that follows each prompt, by the model as it was first.
    """

    def __init__(self, host: ModelView, token_ids: Sequence[Sequence[int]]) -> None:
        """Read the prompts, with the model as it is."""
        self._host, self._token_ids, self._places = host, token_ids, _batches(token_ids)
        self._prefix, self._of_prefix, self._of_batches = SharedPrefix(), list[Any](), list[list[Any]]()
        self._keeps = prefix_fault(host) is None and self._bytes() <= _MOST_BYTES
        self.logits = self._read_first() if self._keeps else next_logits(host, token_ids)
        self._keeps = self._keeps and self._is_the_same()

    def logits_with(
        self, layer: int, vectors: Float[np.ndarray, "vector d_model"]
    ) -> Float[Tensor, "vector prompt vocabulary"]:
        """As `logits`, with each of the vectors added behind block `layer` in turn; nothing else may have changed."""
        if self._keeps:
            with add_to_groups(self._host, layer, vectors):
                return self._read_from(layer, len(vectors))
        read = []
        for vector in vectors:
            with add(self._host, [layer], vector[None]):
                read.append(next_logits(self._host, self._token_ids))
        return torch.stack(read)

    @torch.inference_mode()
    def _read_first(self) -> Tensor:
        length = prefix_length(self._host, self._token_ids)
        with block_outputs(self._host.blocks) as self._of_prefix:
            self._prefix = read_prefix(self._host, self._token_ids[0][:length])
        parts = []
        for batch in self._places:
            with block_outputs(self._host.blocks) as outputs:
                parts.append(self._read(batch, self._prefix))
            self._of_batches.append(outputs)
        return _in_order(self._places, parts)

    @torch.inference_mode()
    def _read_from(self, layer: int, ways: int) -> Tensor:
        """The prompts in so many ways at once, which differ in what leaves block `layer`."""
        parts, prefix = [], self._prefix_from(layer, ways)
        for batch, outputs in zip(self._places, self._of_batches, strict=True):
            with hold_blocks(self._host.blocks[: layer + 1], _repeat(outputs[layer], ways)):
                logits = self._read([*batch] * ways, prefix)
            parts.append(logits.unflatten(0, (ways, len(batch))))
        return torch.stack([_in_order(self._places, [part[way] for part in parts]) for way in range(ways)])

    def _prefix_from(self, layer: int, ways: int) -> SharedPrefix:
        """The prefix as it is now; of blocks that are not computed, whose keys nobody reads, as it was first."""
        if not self._prefix.ids:
            return self._prefix
        with hold_blocks(self._host.blocks[: layer + 1], _repeat(self._of_prefix[layer], ways)):
            return reread_prefix(self._host, self._prefix, layer + 1, ways)

    def _read(self, batch: Sequence[int], prefix: SharedPrefix) -> Tensor:
        return read_prompts(self._host, [self._token_ids[prompt] for prompt in batch], prefix)[0]

    def _is_the_same(self) -> bool:
        """Whether the unchanged model, read from the middle, says what it said first."""
        try:
            again = self._read_from(self._host.n_layers // 2, 1)[0]
        except _FAULTS:
            return False
        return bool((again.log_softmax(dim=-1) - self.logits.log_softmax(dim=-1)).abs().max() <= _TOLERANCE)

    def _bytes(self) -> int:
        tokens = sum(len(batch) * max(len(self._token_ids[prompt]) for prompt in batch) for batch in self._places)
        return tokens * self._host.n_layers * self._host.d_model * int(self._host.model.dtype.itemsize)


def _repeat(output: Any, ways: int) -> Any:
    """What a block returns, so many times over."""
    if isinstance(output, Tensor):
        return output.repeat(ways, *[1] * (output.ndim - 1)) if ways > 1 else output
    return type(output)(_repeat(part, ways) for part in output) if isinstance(output, tuple) else output


def _batches(token_ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Prompts of like length together."""
    order = sorted(range(len(token_ids)), key=lambda prompt: len(token_ids[prompt]))
    return [order[first : first + _BATCH_SIZE] for first in range(0, len(order), _BATCH_SIZE)]


def _in_order(places: Sequence[Sequence[int]], parts: Sequence[Tensor]) -> Tensor:
    """Rows of the batches in the order of the prompts."""
    rows = torch.cat([part.float().cpu() for part in parts])
    order = torch.tensor([prompt for batch in places for prompt in batch])
    return torch.empty_like(rows).index_copy_(0, order, rows)
