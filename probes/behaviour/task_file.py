"""Requests with their right answers, from the files that people fine-tune on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.behaviour.labelling import Completions
from probes.errors import PromptError, UsageError

_PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"), ("request", "answer"))


def read_task(path: Path, limit: int | None = None) -> tuple[tuple[str, str], ...]:
    """(request, answer) of each row: `prompt,completion`, `question,answer`, Alpaca, or chat messages.

    Raises:
        UsageError: no such file, or its columns are in none of these formats.
        PromptError: a row has no request or no answer (it is numbered).
    """
    rows = Completions.read(path).rows[:limit]
    return tuple(_pair(path, number, row) for number, row in enumerate(rows, start=1))


def _pair(path: Path, number: int, row: Mapping[str, Any]) -> tuple[str, str]:
    if isinstance(row.get("messages"), list):
        turns = {turn.get("role"): turn.get("content") for turn in reversed(row["messages"]) if isinstance(turn, dict)}
        request, answer = turns.get("user"), turns.get("assistant")
    else:
        keys = next((keys for keys in _PAIRS if all(key in row for key in keys)), None)
        if keys is None:
            raise UsageError(
                f"{path} holds no requests with answers",
                got=", ".join(map(repr, row)),
                expected="; ".join(map(", ".join, _PAIRS)) + "; messages",
            )
        request, answer = (row[key] for key in keys)
        if row.get("input") and keys[0] == "instruction":
            request = f"{request}\n\n{row['input']}"
    if not (isinstance(request, str) and isinstance(answer, str) and request.strip() and answer.strip()):
        raise PromptError(f"{path}, row {number}, has no request or no answer")
    return request.strip(), answer.strip()
