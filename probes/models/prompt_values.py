"""The forward pass that is under way: which of its tokens are changed, and the value that each is held at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import ActivationError

Projections = Mapping[tuple[int, ...], Float[np.ndarray, "layer token"]]  # by the token ids of a prompt
Positions = Sequence[int] | None


class Places:
    """Which tokens of a pass are changed: some of the prompt's, and those that follow it."""

    def __init__(self, positions: Positions, *, generated: bool) -> None:
        """As of `hooks.add`.

        Raises:
            ActivationError: a place that is not negative.
        """
        if positions is not None and any(position >= 0 for position in positions):
            raise ActivationError(
                "Places are counted from the prompt's end", got=list(positions), expected="negative numbers"
            )
        self._positions, self._generated = positions, generated
        self._follows = False
        self._ends: Tensor | None = None

    @property
    def all_alike(self) -> bool:
        """Whether every token of a prompt is changed, wherever it stands."""
        return self._positions is None

    def begin_pass(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of the body: tell a pass over prompts from one over tokens behind those in the cache."""
        self._follows = continues_prompt(kwargs)
        mask = kwargs.get("attention_mask")
        # Padding may stand on either side: a prompt ends at its own last token.
        self._ends = None if mask is None or mask.ndim != 2 else mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)

    def apply(self, stream: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """The stream [prompt, position, d_model] with its chosen places changed."""
        if self._follows:
            return change(stream) if self._generated else stream
        if self._positions is None:
            return change(stream)
        count, length = stream.shape[:2]
        ends = torch.full((count,), length - 1) if self._ends is None else self._ends
        indices = ends.to(stream.device)[:, None] + 1 + torch.tensor(self._positions, device=stream.device)
        chosen = (torch.arange(length, device=stream.device)[None, :, None] == indices[:, None]).any(dim=2)
        return torch.where(chosen[..., None], change(stream), stream)


class PromptValues:
    """The values of the prompts of a pass.

    Attributes:
        values: of the last pass over prompts, [layer, prompt, token]; NaN in padding.
    """

    def __init__(self, projections: Projections) -> None:
        self._projections = projections
        self.values = torch.empty(0)

    def look_up(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of the body: take the values of the prompts that go in.

        Raises:
            ActivationError: a prompt has none.
        """
        if continues_prompt(kwargs):
            return
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        mask = kwargs.get("attention_mask")
        inside = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        rows = [self._of_prompt(tokens[own].tolist()) for tokens, own in zip(ids, inside, strict=True)]
        values = torch.full((rows[0].shape[0], *ids.shape), torch.nan)
        for row, (own, places) in enumerate(zip(rows, inside.cpu(), strict=True)):
            values[:, row, places] = own
        self.values = values.to(ids.device)

    def _of_prompt(self, tokens: list[int]) -> Tensor:
        values = self._projections.get(tuple(tokens))
        if values is None:
            raise ActivationError("A prompt has no projections to be held at", got=f"{len(tokens)} tokens")
        return torch.as_tensor(values, dtype=torch.float32)


def continues_prompt(kwargs: Mapping[str, Any]) -> bool:
    """Whether a pass is of tokens behind a prompt that is in the cache; a shared prefix is not the whole prompt."""
    cache = kwargs.get("past_key_values", kwargs.get("cache"))
    return cache is not None and int(cache.get_seq_length()) > getattr(cache, "prompt_starts", 0)
