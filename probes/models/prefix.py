"""A prefix that all prompts share is read once: its keys and values, repeated for every batch.

Chat templates begin every prompt alike. Where a model keeps an ordinary cache of keys and values, what follows the
prefix comes out as if the whole prompt had been read, up to rounding, and so do gradients; every model is held to that
when it loads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probes.models.architecture import accepts
from probes.models.hooks import edits_all_alike, hand_over
from probes.models.padding import pad_tokens
from probes.models.view import ModelView

if TYPE_CHECKING:
    from probes.models.row_cache import RowCache

FEWEST_TOKENS = 4  # a shorter prefix is not worth a pass of its own
_ORDINARY = {"full_attention", "sliding_attention"}
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError)
_PREFIX, _SUFFIXES, _NEXT = [5, 6, 7, 8, 9], ([10], [11, 12, 13], [14, 15]), 16
# What two ways of reading may differ by, of the size of activations: a fault of structure makes tenths. On the tokens
# above, a real model in float32 is itself 1e-4 from float64; on its own chat prompts the two ways differ by 1e-6.
_TOLERANCE = 1e-3
_ROUNDING = 8  # units of a half precision's own rounding


class LastLayerReached(Exception):  # noqa: N818 - a way out of the forward pass, no error
    """Raised by a hook: nothing behind this block is wanted."""


@dataclass(frozen=True)
class SharedPrefix:
    """What a model keeps of the tokens that all prompts begin with; empty where it reads each prompt whole.

    Attributes:
        ids: the tokens.
        layers: keys and values [1, head, token, d_head] of each block that was read; of prompts that are read in
            several ways at once, [way, …].
    """

    ids: tuple[int, ...] = ()
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    def cache(self, count: int) -> Any:
        """A cache of transformers that holds the prefix for `count` prompts; what it gains is its own.

        Of several ways, all prompts of the first come first.
        """
        cache = _empty_cache()
        for layer, pair in enumerate(self.layers):
            cache.update(*(_for_each(tensor, count) for tensor in pair), layer)
        cache.prompt_starts = len(self.ids)  # hooks on generated tokens ask where the prompt's own pass begins
        return cache


def prefix_length(
    host: ModelView, token_ids: Sequence[Sequence[int]], *, before: int | None = None, more: int = 0
) -> int:
    """How many tokens of these prompts are read once for all; 0 where each prompt is read whole.

    Args:
        host: holds the checkpoint.
        token_ids: rendered prompts.
        before: a position that each prompt still has to read for itself.
        more: tokens that will be generated behind the longest prompt.
    """
    if len(token_ids) < 2 or prefix_fault(host) is not None or not edits_all_alike(host.body):
        return 0
    longest, shortest = (bound(map(len, token_ids)) for bound in (max, min))
    if beyond_window(host, longest + more):
        return 0
    most = shortest - 1 if before is None else min(shortest - 1, before)
    differing = (place for place in range(most) if len({ids[place] for ids in token_ids}) > 1)
    length = next(differing, most)
    return length if length >= FEWEST_TOKENS else 0


def beyond_window(host: ModelView, length: int) -> bool:
    """Whether some block does not see all of so many tokens."""
    window = getattr(host.config.get_text_config(), "sliding_window", None)
    return window is not None and length > window


def read_prefix(
    host: ModelView, ids: Sequence[int], last: int | None = None, *, differentiable: bool = False
) -> SharedPrefix:
    """Read the prefix up to block `last` (None: all of them); nothing is read where it is empty.

    Where it is `differentiable`, what is read behind it hands its gradient on: summed up over the prompts.
    """
    if not ids:
        return SharedPrefix()
    return SharedPrefix(tuple(ids), _keys_and_values(_fill_cache(host, ids, last, differentiable=differentiable)))


def reread_prefix(host: ModelView, prefix: SharedPrefix, first: int, ways: int = 1) -> SharedPrefix:
    """The prefix as the model is now, in which no block before `first` is computed: of those, what is there already.

    It is read as so many rows as there are `ways`, which the model changes each in its own.
    """
    if not prefix.ids:
        return prefix
    cache = _fill_cache(host, prefix.ids, None, rows=ways)
    return SharedPrefix(prefix.ids, (*prefix.layers[:first], *_keys_and_values(cache, first)))


def _for_each(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Rows of a prefix, each for its share of `count` prompts; one for all is not copied."""
    ways = len(tensor)
    return tensor.expand(count, -1, -1, -1) if ways == 1 else tensor.repeat_interleave(count // ways, dim=0)


def _fill_cache(
    host: ModelView, ids: Sequence[int], last: int | None, *, rows: int = 1, differentiable: bool = False
) -> Any:
    cache = _empty_cache()
    tokens, mask = pad_tokens([ids] * rows, host.device)
    layers = [] if last is None else [last]
    reading = torch.inference_mode(not differentiable)
    with reading, hand_over(host.blocks, layers, _leave), contextlib.suppress(LastLayerReached):
        host.body(**_arguments(host, tokens, mask, 0, cache))
    return cache


def _keys_and_values(cache: Any, first: int = 0) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    layers = cache.layers[first:]
    if any(layer.keys is None for layer in layers):
        raise TypeError("a block puts nothing into the cache")
    return tuple((layer.keys, layer.values) for layer in layers)


def body_inputs(
    host: ModelView, token_ids: Sequence[Sequence[int]], prefix: SharedPrefix | None = None
) -> dict[str, Any]:
    """The body's arguments for a batch, padded on the right, positions from each prompt's start.

    What stands in the padding does not matter: it comes after the prompt, and no token looks ahead. With a prefix,
    `input_ids` are what follows it in each prompt.
    """
    if prefix is None or not prefix.ids:
        return _arguments(host, *pad_tokens(token_ids, host.device), 0, None)
    start, count = len(prefix.ids), len(token_ids)
    tokens, mask = pad_tokens([ids[start:] for ids in token_ids], host.device)
    whole = torch.cat([mask.new_ones(count, start), mask], dim=1)
    return _arguments(host, tokens, whole, start, prefix.cache(count))


def answer_inputs(
    host: ModelView, token_ids: Sequence[Sequence[int]], first: int, *, differentiable: bool = False
) -> dict[str, Any]:
    """The model's arguments for a batch of which only the logits from position `first` on are wanted.

    What all the texts begin with, up to there, is read here, once; and no other logits are computed.

    Args:
        host: holds the checkpoint.
        token_ids: texts, longer than `first`.
        first: a position in each text.
        differentiable: whether gradients go through the beginning too.
    """
    length = prefix_length(host, token_ids, before=first)
    prefix = read_prefix(host, token_ids[0][:length], differentiable=differentiable)
    return {**body_inputs(host, token_ids, prefix), "logits_to_keep": max(map(len, token_ids)) - first}


def prefix_fault(host: ModelView) -> str | None:
    """Why a shared prefix cannot be read once for this model; None where it can. A model is tried once.

    A short prefix and three continuations are read both ways, and every block's output is compared; not while hooks
    tell tokens or prompts apart, which would be laid to the cache.
    """
    if not host.prefix_tried and not edits_all_alike(host.body):
        return "it is changed at some tokens alone, and was not tried before"
    if not host.prefix_tried:
        host.prefix_tried.append(_find_fault(host))
    return host.prefix_tried[0]


def try_prefix(host: ModelView) -> str | None:
    """Hold the model, as it is now, to what reading a shared prefix once assumes; a sentence where it does not hold."""
    host.prefix_tried.clear()
    fault = prefix_fault(host)
    return fault and f"The beginning that all prompts share is read with every one of them: {fault}."


def _find_fault(host: ModelView) -> str | None:
    kinds = set(getattr(host.config.get_text_config(), "layer_types", None) or ()) - _ORDINARY
    if kinds:
        return f"its blocks keep more than keys and values ({', '.join(sorted(kinds))})"
    if cache_argument(host.body) is None:
        return "its body takes no cache"
    try:
        with torch.inference_mode():
            error = _error_of_cache(host)
    except _FAULTS as fault:
        return f"its cache is of another kind ({type(fault).__name__})"
    allowed = max(_TOLERANCE, _ROUNDING * torch.finfo(host.model.dtype).eps)
    return None if error <= allowed else f"activations behind it then differ by {error:.1g} of their size"


def _error_of_cache(host: ModelView) -> float:
    """Suffixes are read behind the prefix, and then one token behind each of them: how far from reading all whole."""
    prompts = [[*_PREFIX, *suffix] for suffix in _SUFFIXES]
    whole = _streams(host, body_inputs(host, [[*ids, _NEXT] for ids in prompts]))
    suffixes = body_inputs(host, prompts, read_prefix(host, _PREFIX))
    behind = _streams(host, suffixes)
    rows = new_rows(host, len(prompts))
    rows.join(suffixes[str(cache_argument(host.body))], suffixes["attention_mask"])
    rows.cache.prompt_starts = rows.width  # what is changed at prompts alone is changed at these tokens too
    following = _streams(host, next_inputs(host, host.body, [_NEXT] * len(prompts), rows))
    return max(_relative_error(host, *streams) for streams in zip(whole, behind, following, strict=True))


def new_rows(host: ModelView, most: int) -> RowCache:
    """A cache for at most so many prompts that are continued, none yet."""
    from probes.models.row_cache import RowCache

    return RowCache(most, host.device)


def next_inputs(host: ModelView, module: torch.nn.Module, tokens: Sequence[int], rows: RowCache) -> dict[str, Any]:
    """Arguments of the model or its body for one more token of every row."""
    ids = torch.tensor(tokens, device=host.device)[:, None]
    arguments = {"input_ids": ids, "attention_mask": rows.mask(), "use_cache": True}
    if accepts(module, "position_ids"):
        arguments["position_ids"] = rows.slots[:, None]
    return {**arguments, str(cache_argument(module)): rows.cache}


def _leave(_layer: int, _stream: torch.Tensor) -> None:
    raise LastLayerReached


def _empty_cache() -> Any:
    # transformers takes seconds to import, so only what loads a model does it.
    from transformers import DynamicCache

    return DynamicCache()


def cache_argument(module: torch.nn.Module) -> str | None:
    """What a model or its body calls its cache: transformers 5.24 gave it another name; None where it takes none."""
    return next((name for name in ("cache", "past_key_values") if accepts(module, name)), None)


def _arguments(host: ModelView, tokens: torch.Tensor, mask: torch.Tensor, start: int, cache: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "use_cache": cache is not None}
    if accepts(host.body, "position_ids"):
        places = torch.arange(start, start + tokens.shape[1], device=host.device)
        arguments["position_ids"] = places.expand(len(tokens), -1)
    name = cache_argument(host.body)
    return {**arguments, name: cache} if name and cache is not None else arguments


def _streams(host: ModelView, arguments: dict[str, Any]) -> list[torch.Tensor]:
    """Each block's output on what follows the prefix."""
    streams: list[torch.Tensor] = []
    with hand_over(host.blocks, range(host.n_layers), lambda _, stream: streams.append(stream)):
        host.body(**arguments)
    return [stream[:, -max(map(len, _SUFFIXES)) - 1 :] for stream in streams]


def _relative_error(host: ModelView, whole: torch.Tensor, behind: torch.Tensor, following: torch.Tensor) -> float:
    """Of the tokens behind the prefix and of the one that follows them, of the size of the largest."""
    mask = pad_tokens([[*suffix, _NEXT] for suffix in _SUFFIXES], host.device)[1].to(whole.device)
    ends = mask.sum(dim=1) - 1
    pieces = torch.cat([behind, torch.zeros_like(following)], dim=1)
    pieces[torch.arange(len(pieces), device=whole.device), ends] = following[:, 0]
    difference, size = ((tensor.float().norm(dim=-1) * mask).max() for tensor in (whole - pieces, whole))
    return float(difference / size)
