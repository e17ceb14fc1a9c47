"""Reading a model in training on fixed prompts: the residual stream at chosen places, with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardError
from probes.models.architecture import accepts
from probes.models.hooks import residuals
from probes.models.padding import pad_tokens, positions
from probes.models.prefix import body_inputs, prefix_length, read_prefix
from probes.models.view import ModelView, view_of


class Reader:
    """Prompts, and the model that is read on them.

    Whole texts are right-padded, and of each only its own tokens are read: under a causal mask nothing behind a
    token can reach it, so neither mask nor position ids are needed.
    """

    def __init__(
        self,
        model: ModelView | nn.Module,
        token_ids: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Prepare the prompts.

        Args:
            model: a Hugging Face causal language model.
            token_ids: the prompts, rendered.
            answers: token ids that follow each prompt; None or empty where there are none.

        Raises:
            GuardError: no prompts, or an empty one.
        """
        if not token_ids or not all(len(ids) for ids in token_ids):
            raise GuardError(
                "The penalty needs prompts", got=f"{len(token_ids)} prompts", expected="at least one, none empty"
            )
        self._view = view_of(model)
        self.model, self.blocks = self._view.model, self._view.blocks
        self.prompts = [list(ids) for ids in token_ids]
        self.answers = [list(ids) for ids in answers] if answers is not None else [[] for _ in self.prompts]

    def __len__(self) -> int:
        return len(self.prompts)

    def every(self) -> Tensor:
        """The places of all prompts."""
        return torch.arange(len(self))

    def stream(
        self, chosen: Tensor, layers: Sequence[int], answer_tokens: int = 0, *, earlier: bool = True
    ) -> Float[Tensor, "layer row d_model"]:
        """The residual stream of the chosen prompts, differentiable; a row is one place of one prompt.

        Rows go prompt by prompt: its last token, then its first `answer_tokens` answer tokens where it has them.

        Args:
            chosen: places of prompts.
            layers: behind which blocks.
            answer_tokens: how many tokens of the answers.
            earlier: let the gradient reach the keys and values of the tokens before the last one too. Without it
                they count as fixed (the values of the stream are the same), and the backward pass costs one token
                a prompt; answer tokens are always read with it.
        """
        if not earlier and answer_tokens == 0 and all(len(self.prompts[prompt]) > 1 for prompt in chosen.tolist()):
            return self._ends(chosen, layers)
        texts = [self.prompts[prompt] + self.answers[prompt][:answer_tokens] for prompt in chosen.tolist()]
        starts = [len(self.prompts[prompt]) - 1 for prompt in chosen.tolist()]
        shared = prefix_length(self._view, texts, before=min(starts))
        rows = [row for row, text in enumerate(texts) for _ in range(starts[row], len(text))]
        places = [at - shared for start, text in zip(starts, texts, strict=True) for at in range(start, len(text))]
        inputs = self._behind(texts, shared) if shared else {"input_ids": self.pad(texts), "use_cache": False}
        with residuals(self.blocks, layers) as seen:
            self._view.body(**inputs)
        return torch.stack([seen[layer][rows, places] for layer in layers]).float()

    def _behind(self, texts: Sequence[Sequence[int]], shared: int) -> dict[str, Any]:
        """The body's arguments for what follows the tokens that all texts begin with, which are read here, once."""
        prefix = read_prefix(self._view, texts[0][:shared], differentiable=True)
        return body_inputs(self._view, texts, prefix)

    def _ends(self, chosen: Tensor, layers: Sequence[int]) -> Float[Tensor, "layer row d_model"]:
        """The last tokens' stream, everything before them from a cache that holds no gradient."""
        texts = [self.prompts[prompt] for prompt in chosen.tolist()]
        body, device = self.model.base_model, next(self.model.parameters()).device
        ids, mask = pad_tokens([text[:-1] for text in texts], device, side="left")
        places = positions(mask)
        positioned = accepts(body, "position_ids")
        with torch.no_grad():
            place_argument = {"position_ids": places} if positioned else {}
            cache = body(input_ids=ids, attention_mask=mask, use_cache=True, **place_argument)
        # transformers 5.24 gave the argument another name.
        cache_argument = "cache" if accepts(body, "cache") else "past_key_values"
        place_argument = {"position_ids": places[:, -1:] + 1} if positioned else {}
        with residuals(self.blocks, layers) as seen:
            body(
                input_ids=torch.tensor([[text[-1]] for text in texts], device=device),
                attention_mask=torch.cat([mask, mask.new_ones(len(texts), 1)], dim=1),
                use_cache=True,
                **{cache_argument: getattr(cache, cache_argument)},
                **place_argument,
            )
        return torch.stack([seen[layer][:, 0] for layer in layers]).float()

    def owners(self, chosen: Tensor, answer_tokens: int = 0) -> Tensor:
        """For each row of `stream`, the place of its prompt among all prompts."""
        counts = [1 + len(self.answers[prompt][:answer_tokens]) for prompt in chosen.tolist()]
        return chosen.repeat_interleave(torch.tensor(counts))

    def answer_logits(self, chosen: Tensor) -> tuple[Float[Tensor, "row vocabulary"], Tensor]:
        """Logits where each token of the chosen prompts' answers is decided, and those tokens, prompt by prompt."""
        texts = [self.prompts[prompt] + self.answers[prompt] for prompt in chosen.tolist()]
        pairs = [
            (row, place)
            for row, prompt in enumerate(chosen.tolist())
            for place in range(len(self.prompts[prompt]) - 1, len(texts[row]) - 1)
        ]
        rows, places = [row for row, _ in pairs], [place for _, place in pairs]
        ids = self.pad(texts)
        logits = self.model(input_ids=ids, use_cache=False).logits[rows, places]
        return logits.float(), ids[rows, [place + 1 for place in places]]

    def pad(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Token ids [row, time] on the model's device, filled on the right."""
        return pad_tokens(texts, next(self.model.parameters()).device)[0]
