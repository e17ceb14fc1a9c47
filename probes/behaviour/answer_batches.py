"""Prompts that are answered together: read, continued by a token each, and gone when their answers have ended."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.models.padding import pad_tokens, positions
from probes.models.prefix import (
    SharedPrefix,
    beyond_window,
    cache_argument,
    new_rows,
    next_inputs,
    prefix_fault,
    prefix_length,
    read_prefix,
)
from probes.models.view import ModelView

_READ_TOGETHER = 32  # prompts: more make the pass that reads them no quicker
_LAST = torch.tensor([-1])  # the token that logits are made of; as a number it gives a view, of which they take longer
_PADDING = 0.125  # of the tokens that are read together


class RowBatch:
    """Prompts join and leave at any token, and each pays for its own tokens alone.

    Attributes:
        prompts: who is being answered, in the order of the rows.
    """

    def __init__(self, host: ModelView, prefix: SharedPrefix, most: int) -> None:
        """Of at most `most` prompts at a time, none yet."""
        self.prompts: list[int] = []
        self._host, self._prefix, self._most = host, prefix, most
        self._rows = new_rows(host, most)

    def takes(self, count: int) -> bool:
        """Whether so many more prompts can join."""
        return len(self.prompts) + count <= self._most

    def join(self, prompts: Sequence[int], token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "prompt vocabulary"]:
        """Read these prompts; the logits of their first tokens."""
        cache = self._prefix.cache(len(prompts))
        logits, _, mask = read_prompts(self._host, token_ids, self._prefix, cache)
        self._rows.join(cache, mask)
        self.prompts += prompts
        return logits

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "prompt vocabulary"]:
        """Read each prompt's next token; the logits of the one behind it."""
        output = self._host.model(**next_inputs(self._host, self._host.model, tokens, self._rows))
        self._rows.grow()
        return output.logits[:, -1]

    def leave(self, ended: Collection[int]) -> None:
        """Let go of prompts whose answers have ended."""
        rows = [row for row, prompt in enumerate(self.prompts) if prompt not in ended]
        if len(rows) < len(self.prompts):
            self.prompts = [self.prompts[row] for row in self._rows.keep(rows)]


class PaddedBatch:
    """Prompts stay together until the last of them has ended: for models whose cache is theirs alone.

    Attributes:
        prompts: as of `RowBatch`; answers may have ended.
    """

    def __init__(self, host: ModelView, prefix: SharedPrefix) -> None:
        """None yet."""
        self.prompts: list[int] = []
        self._host, self._prefix = host, prefix
        self._cache: Any = None
        self._mask = self._places = torch.zeros(0, 0, dtype=torch.long)

    def takes(self, _count: int) -> bool:
        """Whether the last batch is gone."""
        return not self.prompts

    def join(self, prompts: Sequence[int], token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "prompt vocabulary"]:
        """As of `RowBatch`."""
        logits, self._cache, self._mask = read_prompts(self._host, token_ids, self._prefix)
        self.prompts, self._places = list(prompts), positions(self._mask)[:, -1:]
        return logits

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "prompt vocabulary"]:
        """As of `RowBatch`."""
        ids = torch.tensor(tokens, device=self._host.device)[:, None]
        self._places = self._places + 1
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        logits, self._cache = _run(self._host, ids, self._mask, self._places, self._cache)
        return logits

    def leave(self, ended: Collection[int]) -> None:
        """Let go of the batch if all its answers have ended."""
        if all(prompt in ended for prompt in self.prompts):
            self.prompts, self._cache = [], None


def open_batch(
    host: ModelView, token_ids: Sequence[Sequence[int]], max_new_tokens: int, most: int
) -> tuple[RowBatch | PaddedBatch, list[list[int]]]:
    """How these prompts are answered, at most `most` of them at a time, and which of them join together."""
    lengths = [len(ids) for ids in token_ids]
    longest = max(lengths, default=0)
    shared = prefix_length(host, token_ids, more=max_new_tokens)
    prefix = read_prefix(host, token_ids[0][:shared]) if shared else SharedPrefix()
    if prefix_fault(host) is None and not beyond_window(host, longest + max_new_tokens):
        return RowBatch(host, prefix, min(most, len(lengths))), list(_of_like_length(lengths, shared, most))
    roomy = longest if host.context_length is None else host.context_length - max_new_tokens
    return PaddedBatch(host, prefix), list(_of_one_room(lengths, most, roomy))


def _of_like_length(lengths: Sequence[int], shared: int, most: int) -> Iterator[list[int]]:
    """Prompts whose tokens behind the shared ones need little padding."""
    group: list[int] = []
    tokens = 0
    for prompt in _by_length(lengths):
        own = lengths[prompt] - shared
        padded = own * (len(group) + 1)
        if group and (len(group) == min(most, _READ_TOGETHER) or padded - tokens - own > _PADDING * padded):
            yield group
            group, tokens = [], 0
        group.append(prompt)
        tokens += own
    if group:
        yield group


def _of_one_room(lengths: Sequence[int], most: int, roomy: int) -> Iterator[list[int]]:
    """Prompts of like length; those longer than `roomy`, of one length, so that all have the room they have alone."""
    for _, prompts in groupby(_by_length(lengths), key=lambda prompt: max(lengths[prompt], roomy)):
        alike = list(prompts)
        yield from (alike[first : first + most] for first in range(0, len(alike), most))


def _by_length(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda prompt: lengths[prompt])


def read_prompts(
    host: ModelView, token_ids: Sequence[Sequence[int]], prefix: SharedPrefix, cache: Any = None
) -> tuple[Float[Tensor, "prompt vocabulary"], Any, Int[Tensor, "prompt token"]]:
    """Prompts, padded on the left, behind the prefix: logits of their next tokens, cache and mask of all that was read.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts.
        prefix: what they all begin with.
        cache: holds the prefix; None is what the prefix has, and the model's own where nothing is shared.
    """
    start = len(prefix.ids)
    ids, mask = pad_tokens([ids[start:] for ids in token_ids], host.device, side="left")
    mask = torch.cat([mask.new_ones(len(mask), start), mask], dim=1)
    behind = prefix.cache(len(mask)) if start and cache is None else cache
    return *_run(host, ids, mask, positions(mask)[:, start:], behind), mask


def _run(
    host: ModelView, ids: Tensor, mask: Tensor, places: Tensor, cache: Any
) -> tuple[Float[Tensor, "prompt vocabulary"], Any]:
    """The logits of every prompt's next token, and the cache behind what was read."""
    name = cache_argument(host.model) or "past_key_values"
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places, name: cache}
    output = host.model(**inputs, use_cache=True, logits_to_keep=_LAST)
    return output.logits[:, -1], getattr(output, name)
