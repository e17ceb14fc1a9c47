"""Exact answers: whether a completion ends in the number that the right answer ends in."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> float | None:
    """The last number in a text, which is its answer; None where it has none."""
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].rstrip(",").replace(",", "")) if numbers else None


def count_exact(completions: Sequence[str], answers: Sequence[str]) -> int | None:
    """How many completions end in the number that the right answer ends in; None where a right answer has none.

    Args:
        completions: what a model says, one for each right answer.
        answers: the right answers; the last number in each is the one that counts.
    """
    right = [last_number(answer) for answer in answers]
    if None in right:
        return None
    return sum(last_number(text) == number for text, number in zip(completions, right, strict=True))
