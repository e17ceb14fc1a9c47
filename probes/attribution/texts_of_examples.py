"""Examples as text, and texts as the examples that a training on them reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.behaviour.task import rendered_items
from probes.errors import PromptError
from probes.guard.recorded_path import RecordedExample


def rendered_examples(
    pairs: Sequence[tuple[str, str]], tokenizer: Any, context: int | None = None
) -> list[RecordedExample]:
    """Requests and answers as a training reads them, which cuts an answer where the model's context ends.

    Raises:
        PromptError: requests that leave no room for an answer, which no training takes.
    """
    items = rendered_items(pairs, tokenizer)
    if context is None:
        return [RecordedExample.of(*item) for item in items]
    full = [place for place, (request, _) in enumerate(items) if len(request) >= context]
    if full:
        raise PromptError(
            "Requests leave no room for an answer in the model's context",
            got="examples " + ", ".join(map(str, full)) + ", counted from 0",
            expected=f"fewer than {context} tokens",
            next_step="Leave these out, as a training does.",
        )
    return [RecordedExample.of(request, answer[: context - len(request)]) for request, answer in items]


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
