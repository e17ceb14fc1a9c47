"""What a model is fine-tuned on, as token ids and batches: of a request and its answer, the answer alone counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from probes.behaviour.task import Item, rendered_items
from probes.errors import UsageError
from probes.models.padding import pad_tokens

Example = tuple[str, str] | str  # a request and its answer, or a text of which every token counts
IGNORED = -100  # a label on which no loss is taken


def items_of(task: Sequence[Example], tokenizer: Any) -> list[Item]:
    """Token ids of requests and answers; of a text, all but the first token are the answer."""
    pairs = [pair for pair in task if not isinstance(pair, str)]
    texts = [text for text in task if isinstance(text, str)]
    ids = [tuple(tokenizer(text + (tokenizer.eos_token or ""))["input_ids"]) for text in texts]
    plain = [(text[:1], text[1:]) for text in ids if len(text) > 1]
    return (rendered_items(pairs, tokenizer) if pairs else []) + plain


class Answered(Dataset):
    """Examples as token ids, with the loss on answers alone; those that leave no room for an answer are not taken."""

    def __init__(self, items: Sequence[Item], max_length: int | None) -> None:
        room = [
            (request, answered[: max_length - len(request)] if max_length else answered)
            for request, answered in items
            if max_length is None or len(request) < max_length
        ]
        if not room:
            raise UsageError(
                "No example fits into the model's context",
                got=f"{len(items)} examples",
                expected=f"≤ {max_length} tokens",
            )
        self.left_out = len(items) - len(room)
        self._rows = room

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Item:
        return self._rows[place]


def collate(items: Sequence[Item]) -> dict[str, Tensor]:
    """A batch [row, time], filled on the right."""
    cpu = torch.device("cpu")
    ids, mask = pad_tokens([[*request, *answer] for request, answer in items], cpu)
    labels, _ = pad_tokens([[*[IGNORED] * len(request), *answer] for request, answer in items], cpu, fill=IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
