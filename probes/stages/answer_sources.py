"""Where checkpoints answer that do not answer here: behind a server, or in a file that another tool wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from probes.behaviour.evaluation import Done, Evaluation
from probes.behaviour.ready_answers import match_answers
from probes.behaviour.served import answer_questions_served, open_server
from probes.errors import UsageError
from probes.exchange.answer_files import read_answers
from probes.prompts.records import split_part
from probes.run import Run
from probes.store.atomic import file_sha256

if TYPE_CHECKING:
    import pandas as pd

Tables = tuple["pd.DataFrame", "pd.DataFrame"]


@dataclass(frozen=True)
class AnswerSource:
    """One checkpoint's answers, to be had elsewhere.

    Attributes:
        place: where, in words that the record of the answers keeps.
        identity: what the answers hang on beside the questions.
        answer: gives the answers and losses of `evaluation.answer_questions`, told where it is.
    """

    place: str
    identity: tuple[str, ...]
    answer: Callable[[Evaluation, Done], Tables]


def names_elsewhere(run: Run, evaluation: Evaluation) -> set[str]:
    """The checkpoints that do not answer here."""
    return {*run.settings.served, *dict(evaluation.served), *(name for name, _, _ in evaluation.answers)}


def open_sources(run: Run, evaluation: Evaluation) -> dict[str, AnswerSource]:
    """The sources of answers by checkpoint; a file goes before a server.

    Raises:
        UsageError: the run has no such checkpoint.
        EndpointError: as `served.open_server`.
    """
    known = [member.id for member in run.members]
    unknown = sorted(names_elsewhere(run, evaluation).difference(known))
    if unknown:
        raise UsageError(f"The run has no checkpoint {unknown[0]!r} to answer elsewhere", expected=", ".join(known))
    addresses = {**run.settings.served, **dict(evaluation.served)}
    files = {name: _file_source(Path(path), digest) for name, path, digest in evaluation.answers}
    return {**{name: _server_source(address) for name, address in addresses.items() if name not in files}, **files}


def _server_source(address: str) -> AnswerSource:
    server = open_server(address)
    return AnswerSource(address, (server.model, server.url), partial(answer_questions_served, server))


def _file_source(path: Path, digest: str) -> AnswerSource:
    return AnswerSource(f"file {path}", ("answers of a file", digest), partial(_read, path, digest))


def _read(path: Path, digest: str, evaluation: Evaluation, done: Done) -> Tables:
    """The answers of a file.

    Raises:
        UsageError: it is gone, or no longer what it was.
        PromptError: it cannot be read, or answers nothing that is asked.
    """
    file, _ = split_part(path)
    if not file.is_file() or file_sha256(file) != digest:
        fault = "other content" if file.is_file() else "no file"
        raise UsageError(
            f"The answers in {path} are no longer those that were named",
            got=fault,
            next_step="Name the file again: --answers CHECKPOINT=FILE.",
        )
    tables = match_answers(read_answers(path), evaluation, str(path))
    done(len(tables[0]), len(tables[0]))
    return tables
