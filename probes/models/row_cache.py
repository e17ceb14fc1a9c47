"""Keys and values of prompts of unequal length that are continued together, and come and go one by one.

A prompt's tokens stand in its row from slot 0 on, so that a token's slot is its position, and a row needs no padding.
A new token is written where it belongs; transformers' own cache is copied whole for every token. The classes are
transformers' own, so that every model that takes its `DynamicCache` takes these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_SLOTS = 64  # room is made for as many tokens at once


class RowCache:
    """A cache whose rows join, grow by a token at a time, and leave.

    Attributes:
        cache: what the model is given; it takes one new token of every row.
        lengths: tokens of each row.
        slots: the same numbers, on the model's device, as the next tokens' positions.
        numbers: of the rows, beside them.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        """Of at most `most` rows, none yet, of a model that takes its tokens on this device."""
        self.most = most
        self.lengths: list[int] = []
        self.slots = torch.zeros(0, dtype=torch.long, device=device)
        self.numbers = torch.arange(0, device=device)
        self.cache: Any = DynamicCache()
        self._capacity = 0

    @property
    def width(self) -> int:
        """Slots that the longest row needs with its next token."""
        return max(self.lengths, default=0) + 1

    def join(self, cache: Any, mask: Tensor) -> None:
        """Add the rows of a cache of transformers; mask [row, slot] says where its tokens stand (1) and padding (0)."""
        if not self.cache.layers:
            self.cache.layers = [_Layer(self, layer.keys, layer.values) for layer in cache.layers]
        first, count = len(self.lengths), len(mask)
        self.lengths += mask.sum(dim=1).tolist()
        self._make_room()
        numbers = torch.arange(count, device=mask.device)[:, None]
        order = torch.argsort(1 - mask, dim=1, stable=True)
        for mine, layer in zip(self.cache.layers, cache.layers, strict=True):
            at, tokens_first = (index.to(mine.device) for index in (numbers, order))
            for slots, tensor in ((mine.keys, layer.keys), (mine.values, layer.values)):
                slots[first : first + count, :, : mask.shape[1]] = tensor[at, :, tokens_first].transpose(1, 2)
                slots[first : first + count, :, mask.shape[1] :] = 0  # a masked NaN of an older row would still spread

    def mask(self) -> Tensor:
        """Slots [row, slot] that every row's next token sees: those before it, and its own."""
        columns = torch.arange(self.width, device=self.slots.device)
        return (columns <= self.slots[:, None]).long()

    def grow(self) -> None:
        """Every row's next token has been read."""
        self.lengths = [length + 1 for length in self.lengths]
        self._make_room()

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Let all rows but these, in rising order, leave; which former row stands in each row now."""
        holes = sorted(set(range(len(rows))).difference(rows))
        movers = list(rows[len(rows) - len(holes) :])
        order = list(range(len(rows)))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        width = max(self.lengths, default=0)
        self.lengths = [self.lengths[row] for row in order]
        if holes:
            for layer in self.cache.layers:
                for slots in (layer.keys, layer.values):
                    slots[holes, :, :width] = slots[movers, :, :width]
        self._make_room()
        return order

    def _make_room(self) -> None:
        if self.width > self._capacity:
            self._capacity = -(-self.width // _SLOTS) * _SLOTS
            for layer in self.cache.layers:
                layer.widen(self._capacity)
        self.slots = torch.tensor(self.lengths, dtype=torch.long, device=self.slots.device)
        if len(self.numbers) != len(self.lengths):
            self.numbers = torch.arange(len(self.lengths), device=self.slots.device)


class _Layer(DynamicLayer):
    """One block's keys and values, [row, head, slot, d_head]; behind a row's tokens stand its padding and zeros."""

    keys: Tensor
    values: Tensor

    def __init__(self, rows: RowCache, keys: Tensor, values: Tensor) -> None:
        """Without room yet, of the form of these."""
        super().__init__()
        self._rows = rows
        self.device, self.dtype, self.is_initialized = keys.device, keys.dtype, True
        self.keys, self.values = (
            tensor.new_zeros(rows.most, tensor.shape[1], 0, tensor.shape[3]) for tensor in (keys, values)
        )

    def get_seq_length(self) -> int:
        """Tokens of the longest row."""
        return self._rows.width - 1

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write every row's next token; what the rows hold then."""
        count, width = len(self._rows.lengths), self._rows.width
        numbers, slots = (index.to(self.device) for index in (self._rows.numbers, self._rows.slots))
        self.keys[numbers, :, slots] = key_states[:, :, 0]
        self.values[numbers, :, slots] = value_states[:, :, 0]
        return self.keys[:count, :, :width], self.values[:count, :, :width]

    def widen(self, capacity: int) -> None:
        """Make room for so many tokens."""
        self.keys, self.values = (_widen(tensor, capacity) for tensor in (self.keys, self.values))


def _widen(tensor: Tensor, capacity: int) -> Tensor:
    wider = tensor.new_zeros(*tensor.shape[:2], capacity, tensor.shape[3])
    wider[:, :, : tensor.shape[2]] = tensor
    return wider
