"""Mean activations over the tokens of answers, taken by the passes that generate them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float32, Int

from probes.models.hooks import ENTERING, hand_over
from probes.models.view import ModelView


class AnswerMeans:
    """Sums up what leaves each block at every token of an answer that is read.

    Attributes:
        tokens: of each prompt's answer, as many as were read.
    """

    def __init__(self, host: ModelView, count: int) -> None:
        """Of so many prompts, none read yet."""
        self._host = host
        self._passes = np.zeros(count, dtype=np.int64)
        self._sums = np.zeros((host.n_layers + 1, count, host.d_model), dtype=np.float32)

    @property
    def tokens(self) -> Int[np.ndarray, " prompt"]:
        """The first pass over a prompt ends with its own last token."""
        return np.maximum(self._passes - 1, 0)

    @contextlib.contextmanager
    def listen(self, prompts: Mapping[int, int]) -> Iterator[None]:
        """While open, a forward pass reads the next token of these prompts, which are named by their rows."""
        rows, places = list(prompts), list(prompts.values())
        goes_on = (self._passes[places] > 1)[:, None]

        def take(layer: int, stream: torch.Tensor) -> None:
            values = stream[rows, -1].float().cpu().numpy()
            self._sums[layer + 1, places] = self._sums[layer + 1, places] * goes_on + values

        with hand_over(self._host.blocks, range(ENTERING, self._host.n_layers), take):
            yield
        self._passes[places] += 1

    def of_layer(self, layer: int) -> Float32[np.ndarray, "prompt d_model"]:
        """The means behind a block, −1 being what enters the first; where nothing was said, the prompt's last token."""
        return self._sums[layer + 1] / np.maximum(self.tokens, 1)[:, None].astype(np.float32)
