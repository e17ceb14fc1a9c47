"""Examples as text, and texts as the examples that a training on them reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.behaviour.task import rendered_items
from probes.errors import PromptError
from probes.guard.recorded_path import RecordedExample


def rendered_examples(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[RecordedExample]:
    """Requests and answers as the model reads them."""
    return [RecordedExample.of(*item) for item in rendered_items(pairs, tokenizer)]


def are_read_as(pairs: Sequence[tuple[str, str]], examples: Sequence[RecordedExample], tokenizer: Any) -> bool:
    """Whether a training on these texts would read these examples."""
    try:
        return rendered_examples(pairs, tokenizer) == list(examples)
    except PromptError:
        return False


def texts_of(example: RecordedExample, tokenizer: Any) -> tuple[str, str]:
    """Request and answer of an example as text."""
    start = next((place for place, label in enumerate(example.labels) if label >= 0), len(example.ids))
    request, answer = (
        str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        for ids in (example.ids[:start], example.ids[start:])
    )
    return request, answer
