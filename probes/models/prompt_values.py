"""A value for each token of each prompt, looked up for the forward pass that is under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import ActivationError

Projections = Mapping[tuple[int, ...], Float[np.ndarray, "layer token"]]  # by the token ids of a prompt


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
