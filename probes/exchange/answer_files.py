"""Files of answers that other tools wrote, told apart by their content.

Inspect's eval logs (`.eval`, `.json`), samples of lm-eval-harness (`samples_*.jsonl`), and records of request and
answer (CSV, JSONL, JSON), among which are refusal_direction's evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.behaviour.ready_answers import ReadyAnswer
from probes.errors import GravityError, PromptError
from probes.exchange.inspect_answers import is_eval_log, read_eval_log
from probes.prompts.records import Record, read_table
from probes.store.documents import parse_json

REQUEST_COLUMNS = ("prompt", "request", "question", "instruction", "text", "goal")
ANSWER_COLUMNS = ("completion", "response", "answer", "output", "generation")
_LM_EVAL = {"doc", "resps", "arguments"}
_KIND = "file of answers"


def read_answers(path: Path) -> tuple[ReadyAnswer, ...]:
    """The answers of a file, in its order; `file.json#completions` is that list of a JSON file.

    Raises:
        UsageError: it is not there, or cannot be read.
        PromptError: it is in no known format, damaged, or holds no generated answers.
    """
    if is_eval_log(path):
        return read_eval_log(path)
    file = read_table(path, lambda columns: reader_of(columns) is not None, kind=_KIND)
    if not file.records:
        raise PromptError(f"{path} holds no answers")
    reader = reader_of(file.columns)
    if reader is None:
        raise PromptError(
            f"{path} is no known file of answers",
            got=", ".join(map(repr, file.columns[:8])),
            expected="an Inspect log, lm-eval samples, or columns such as prompt and completion",
        )
    return tuple(reader(record) for record in file.records)


def reader_of(columns: Sequence[str]) -> Callable[[Record], ReadyAnswer] | None:
    """What reads records with these names; None where nothing does."""
    if set(columns) >= _LM_EVAL:
        return _of_lm_eval
    request = next((name for name in REQUEST_COLUMNS if name in columns), None)
    completion = next((name for name in ANSWER_COLUMNS if name in columns), None)
    if request is None or completion is None:
        return None
    return lambda record: ReadyAnswer((record.text(request),), _text_or_none(record, completion))


def _text_or_none(record: Record, column: str) -> str | None:
    """The text of a cell, blanks and all; None where there is none.

    Raises:
        PromptError: it is no text.
    """
    value = record.fields.get(column)
    if value is None or isinstance(value, str):
        return value
    raise PromptError(f"{record.place} has no text under {column!r}", got=type(value).__name__, expected="text")


# lm-eval-harness ----------------------------------------------------------------------------------------------------


def _of_lm_eval(record: Record) -> ReadyAnswer:
    """A sample: the request is a field of its document, or the prompt, bare or as the turns of a chat."""
    document = record.fields["doc"]
    fields = document.values() if isinstance(document, Mapping) else [document]
    texts = [*(value for value in fields if isinstance(value, str)), *_prompts(record.fields["arguments"])]
    return ReadyAnswer(tuple(texts), _first_response(record))


def _first_response(record: Record) -> str:
    """The first response as it was generated, before the harness's filters.

    Raises:
        PromptError: it is a likelihood, so that nothing was generated.
    """
    response = record.fields["resps"]
    while isinstance(response, list) and response:
        response = response[0]
    if isinstance(response, str):
        return response
    raise PromptError(
        f"{record.place} holds no generated answer",
        got=f"a response of type {type(response).__name__}",
        expected="samples of a task that generates (output_type: generate_until)",
    )


def _prompts(arguments: Any) -> Iterator[str]:
    """The prompt of the first request, and the user's last turn where it is a chat."""
    requests = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    first = requests[0] if isinstance(requests, list) and requests else None
    prompt = first.get("arg_0") if isinstance(first, Mapping) else first
    while isinstance(prompt, list) and prompt:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        return
    yield prompt
    if prompt.lstrip().startswith("[{"):
        yield from _user_turns(prompt)


def _user_turns(prompt: str) -> Iterator[str]:
    """The user's last turn, where a prompt is a chat in JSON."""
    try:
        turns = parse_json(prompt, "prompt")
    except GravityError:
        return  # a prompt that only begins like one
    users = [turn.get("content") for turn in turns if isinstance(turn, Mapping) and turn.get("role") == "user"]
    yield from (content for content in users[-1:] if isinstance(content, str))
