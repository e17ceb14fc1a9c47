"""Activations of prompts at every layer, streamed: one batch is in memory, whatever the number of prompts.

The prompts are sorted by length and padded on the right by ourselves, with positions and mask of our own, so that
no tokenizer's padding side matters. What all prompts begin with, as chat templates do, is read once. Hooks on the
blocks keep the one wanted position of each prompt; the forward pass ends at the last wanted block and never reaches
the unembedding.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float32

from probes.errors import ActivationError
from probes.models.hooks import ENTERING, hand_over
from probes.models.prefix import LastLayerReached, SharedPrefix, body_inputs, prefix_length, read_prefix
from probes.models.view import ModelView

EMBEDDING = ENTERING
Write = Callable[[int, Sequence[int], np.ndarray], None]
Progress = Callable[[int, int], None]
_CPU_BATCH_BYTES = 1 << 25
_CUDA_SHARE = 0.5
_FEWEST_TOKENS, _MOST_TOKENS = 256, 1 << 16


def extract(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    write: Write,
    *,
    position: int = -1,
    spans: Sequence[tuple[int, int]] | None = None,
    layers: Sequence[int] | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    reverse: bool = False,
) -> int:
    """Run the prompts through the model in `host` and hand out their activations.

    Args:
        host: holds the checkpoint to be measured.
        token_ids: one rendered prompt each.
        write: is given (layer, prompt indices, float32 [prompt, d_model]), batch by batch; layer −1 is
            what enters the first block (token embedding, its scaling, and absolute positions if there are any).
        position: which token; negative counts from the prompt's own end.
        spans: for each prompt (first, past the last) of the tokens that are averaged, in place of one position.
        layers: wanted layers, −1 included if wanted; None is all of them and the embedding.
        batch_tokens: most tokens in a batch, padding included; None finds a number for this machine.
        progress: is given (prompts done, prompts in all).
        reverse: make other batches in another order, to learn how far results depend on it.

    Returns:
        The number of tokens per batch that was used in the end: halved where memory ran out.

    Raises:
        ActivationError: an activation is not finite (names layer and prompt), a prompt has no such position, or a
            single prompt does not fit into memory.
    """
    chosen_layers = _layers_to_read(host, layers)
    position_spans = _spans(host, token_ids, position, spans)
    prefix = _read_shared_prefix(host, token_ids, position_spans, chosen_layers[-1])
    lengths = [len(ids) - len(prefix.ids) for ids in token_ids]
    budget = batch_tokens or automatic_batch_tokens(host)
    queue = deque(batches(lengths, budget, reverse=reverse))
    done = 0
    while queue:
        prompts = queue.popleft()
        rows = _run(
            host,
            [token_ids[prompt] for prompt in prompts],
            [position_spans[prompt] for prompt in prompts],
            chosen_layers,
            prefix,
        )
        if rows is None:
            budget = _half_of(prompts, lengths)
            remaining = [prompt for batch in (prompts, *queue) for prompt in batch]
            queue = deque(_group(remaining, lengths, budget))
            continue
        for layer, values in rows.items():
            _check_finite(values, layer, prompts)
            write(layer, prompts, values)
        done += len(prompts)
        if progress is not None:
            progress(done, len(token_ids))
    return budget


def collect(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    *,
    position: int = -1,
    spans: Sequence[tuple[int, int]] | None = None,
    layers: Sequence[int] | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    reverse: bool = False,
) -> tuple[Float32[np.ndarray, "layer prompt d_model"], Float32[np.ndarray, "prompt d_model"]]:
    """The same as `extract`, in memory: (after every block, entering the first). Unwanted layers are NaN.

    Raises:
        ActivationError: as `extract`.
    """
    resid_post = np.full((host.n_layers, len(token_ids), host.d_model), np.nan, dtype=np.float32)
    embed = np.full((len(token_ids), host.d_model), np.nan, dtype=np.float32)

    def keep(layer: int, prompts: Sequence[int], rows: np.ndarray) -> None:
        (embed if layer == EMBEDDING else resid_post[layer])[list(prompts)] = rows

    extract(
        host,
        token_ids,
        keep,
        position=position,
        spans=spans,
        layers=layers,
        batch_tokens=batch_tokens,
        progress=progress,
        reverse=reverse,
    )
    return resid_post, embed


def collect_layer(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    layer: int,
    *,
    position: int = -1,
    batch_tokens: int | None = None,
) -> Float32[np.ndarray, "prompt d_model"]:
    """The same as `collect`, of one layer; no room is taken for the others.

    Raises:
        ActivationError: as `extract`.
    """
    values = np.empty((len(token_ids), host.d_model), dtype=np.float32)

    def keep(_layer: int, prompts: Sequence[int], rows: np.ndarray) -> None:
        values[list(prompts)] = rows

    extract(host, token_ids, keep, position=position, layers=[layer], batch_tokens=batch_tokens)
    return values


def automatic_batch_tokens(host: ModelView) -> int:
    """Tokens per batch that this machine takes easily.

    On the CPU it depends on the model alone, so that a run made again has the same batches and the same bytes. On
    CUDA it is the power of two that fills up to half of the free memory.
    """
    config = host.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * host.d_model
    numbers_per_token = 12 * host.d_model + 3 * int(inner)
    room: float = _CPU_BATCH_BYTES
    if host.device.type == "cuda":
        room = torch.cuda.mem_get_info(host.device)[0] * _CUDA_SHARE
    tokens = int(room / (numbers_per_token * host.model.dtype.itemsize))
    return min(_MOST_TOKENS, max(_FEWEST_TOKENS, 1 << max(0, tokens.bit_length() - 1)))


def batches(lengths: Sequence[int], budget: int, *, reverse: bool = False) -> Iterator[list[int]]:
    """Prompt indices, sorted by length and grouped so that each batch, padded, has at most `budget` tokens.

    `reverse` starts from the longest and makes smaller batches, so that no batch stays what it was.
    """
    order = sorted(range(len(lengths)), key=lambda prompt: (lengths[prompt], prompt), reverse=reverse)
    yield from _group(order, lengths, min(budget, sum(lengths)) * 2 // 3 if reverse else budget)


def _group(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    group: list[int] = []
    for prompt in order:
        longest = max(lengths[member] for member in (*group[-1:], *group[:1], prompt))
        if group and longest * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(prompt)
    if group:
        yield group


def _layers_to_read(host: ModelView, layers: Sequence[int] | None) -> list[int]:
    chosen = sorted(set(range(EMBEDDING, host.n_layers) if layers is None else layers))
    if not chosen or chosen[0] < EMBEDDING or chosen[-1] >= host.n_layers:
        raise ActivationError(
            "There is no such layer", got=chosen, expected=f"0 to {host.n_layers - 1}, or -1 for the embedding"
        )
    return chosen


def _spans(
    host: ModelView, token_ids: Sequence[Sequence[int]], position: int, spans: Sequence[tuple[int, int]] | None
) -> list[tuple[int, int]]:
    """Of each prompt the wanted tokens, as (first, past the last)."""
    if spans is None:
        places = [_index(host, ids, position, prompt) for prompt, ids in enumerate(token_ids)]
        return [(place, place + 1) for place in places]
    for prompt, (ids, (first, end)) in enumerate(zip(token_ids, spans, strict=True)):
        _index(host, ids, end - 1, prompt)
        if not 0 <= first < end:
            raise ActivationError(f"Prompt {prompt} has no tokens from {first} to {end}", got=f"{len(ids)} tokens")
    return list(spans)


def _index(host: ModelView, ids: Sequence[int], position: int, prompt: int) -> int:
    """Where in the prompt the wanted position is, counted from its start."""
    if host.context_length is not None and len(ids) > host.context_length:
        raise ActivationError(
            f"Prompt {prompt} is longer than the model's context",
            got=len(ids),
            expected=f"≤ {host.context_length} tokens",
        )
    index = position if position >= 0 else len(ids) + position
    if not 0 <= index < len(ids):
        raise ActivationError(f"Prompt {prompt} has no position {position}", got=f"{len(ids)} tokens")
    return index


class _Reader:
    """Takes over, per wanted layer, one position of each prompt in the batch, or the mean of some."""

    def __init__(self, spans: torch.Tensor, last: int) -> None:
        self.rows: dict[int, torch.Tensor] = {}
        self._spans, self._last = spans, last

    def take(self, layer: int, stream: torch.Tensor) -> None:
        """Read the stream [prompt, position, d_model] behind a layer; nothing behind the last one is computed."""
        first, end = self._spans.to(stream.device).T
        if bool((end == first + 1).all()):
            self.rows[layer] = stream[torch.arange(len(first), device=stream.device), first].float()
        else:
            places = torch.arange(stream.shape[1], device=stream.device)
            inside = ((places >= first[:, None]) & (places < end[:, None])).float()
            self.rows[layer] = torch.einsum("rt,rtd->rd", inside / (end - first)[:, None], stream.float())
        if layer == self._last:
            raise LastLayerReached


def _read_shared_prefix(
    host: ModelView, token_ids: Sequence[Sequence[int]], spans: Sequence[tuple[int, int]], last: int
) -> SharedPrefix:
    """What all prompts begin with, read once; empty where every prompt is read whole."""
    if last == EMBEDDING or not token_ids:
        return SharedPrefix()
    length = prefix_length(host, token_ids, before=min(first for first, _ in spans))
    return read_prefix(host, token_ids[0][:length], last)


def _run(
    host: ModelView,
    token_ids: Sequence[Sequence[int]],
    position_spans: Sequence[tuple[int, int]],
    layers: list[int],
    prefix: SharedPrefix,
) -> dict[int, np.ndarray] | None:
    """Activations of one batch by layer; None if it did not fit into memory."""
    try:
        inputs = body_inputs(host, token_ids, prefix)
        reader = _Reader(torch.tensor(position_spans, device=host.device) - len(prefix.ids), layers[-1])
        with torch.inference_mode(), hand_over(host.blocks, layers, reader.take):
            with contextlib.suppress(LastLayerReached):
                host.body(**inputs)
            return {layer: rows.cpu().numpy() for layer, rows in reader.rows.items()}
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # Outside the handler: there the exception would still keep the lost batch's tensors alive.
    if host.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _half_of(prompts: Sequence[int], lengths: Sequence[int]) -> int:
    """Half of the tokens of a batch that did not fit."""
    longest = max(lengths[prompt] for prompt in prompts)
    if len(prompts) == 1:
        raise ActivationError(
            f"Prompt {prompts[0]} does not fit into memory alone",
            got=f"{longest} tokens",
            next_step="Use a machine with more memory, a lower precision, or shorter prompts.",
        )
    return max(longest, longest * len(prompts) // 2)


def _check_finite(values: np.ndarray, layer: int, prompts: Sequence[int]) -> None:
    fine = np.isfinite(values).all(axis=1)
    if not fine.all():
        first = min(prompt for prompt, is_fine in zip(prompts, fine, strict=True) if not is_fine)
        place = "the embedding" if layer == EMBEDDING else f"layer {layer}"
        raise ActivationError(
            f"Activations at {place} are not finite for prompt {first}",
            got=f"{int((~fine).sum())} such prompts in its batch",
            next_step="Load the model in float32 or bfloat16 (float16 ends at 65,504), or check its weights.",
        )
