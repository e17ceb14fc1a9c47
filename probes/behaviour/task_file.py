"""Requests with their right answers, from the files that people fine-tune on."""

from __future__ import annotations

from pathlib import Path

from probes.prompts import read_pairs


def read_task(path: Path, limit: int | None = None) -> tuple[tuple[str, str], ...]:
    """(request, answer) of each row: `prompt,completion`, `question,answer`, Alpaca, Dolly, or chat messages.

    Of a chat the first turn of the user and of the assistant count, what the system says first stands before the
    request. `file.json#train` is the list `train` of a JSON file.

    Raises:
        UsageError: no such file, its columns are in none of these formats, or one of them may belong to the request
            and is not known.
        PromptError: the file is damaged, or a row has no request or no answer (it is numbered).
    """
    return read_pairs(path, limit)
