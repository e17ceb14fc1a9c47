"""Judgements kept by content, so that a stopped evaluation goes on and the same exchange is never paid for twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from probes.behaviour.answer_form import without_thinking
from probes.behaviour.judges.judgement import UNJUDGED, Exchange, Judge, Judgement
from probes.errors import GravityError
from probes.store.documents import parse_json

_CUT_OFF = Judgement(UNJUDGED, "cut off while thinking")


class JudgementCache:
    """One judgement a line in a JSONL file, appended as it comes; without a path, nothing is kept."""

    def __init__(self, path: Path | None = None) -> None:
        """Read what is there; a last line that a killed process left half-written is passed over."""
        self._path = path
        self._known: dict[str, Judgement] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(GravityError, ValueError, KeyError, TypeError):
                    row = parse_json(line, str(path))
                    self._known[row["key"]] = Judgement(row["label"], row["reason"])

    def ask(
        self, judge: Judge, exchanges: Sequence[Exchange], done: Callable[[int, int], None] | None = None
    ) -> list[Judgement]:
        """One judgement for each exchange, in order; only what is not known is asked, each content once.

        No judge sees a model's thinking; an answer that ends inside it is unjudged without asking. Unjudged exchanges
        are not kept, so that they are asked again next time.

        Args:
            judge: who is asked.
            exchanges: what is judged.
            done: told (judged, in all) after each.
        """
        answers = [_without_thinking(exchange) for exchange in exchanges]
        keys = [_key(judge, answer) if answer else None for answer in answers]
        questions = {key: answer for key, answer in zip(keys, answers, strict=True) if key and answer}
        unknown = {key: answer for key, answer in questions.items() if key not in self._known}
        judgements = {key: self._known[key] for key in questions if key in self._known}
        with contextlib.ExitStack() as stack:
            file = None
            if self._path is not None and judge.identity is not None and unknown:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(self._path, "a", encoding="utf-8"))
                if file.tell():
                    file.write("\n")  # closes a line that a killed process left open; blank lines are passed over
            for key, judgement in zip(unknown, judge.label(list(unknown.values())), strict=True):
                judgements[key] = judgement
                if judgement.judged and judge.identity is not None:
                    self._known[key] = judgement
                    if file is not None:
                        row = {"key": key, "judge": judge.name, **vars(judgement)}
                        file.write(json.dumps(row, ensure_ascii=True) + "\n")
                        file.flush()
                if done is not None:
                    done(len(judgements), len(questions))
        return [judgements[key] if key else _CUT_OFF for key in keys]


def _without_thinking(exchange: Exchange) -> Exchange | None:
    answer = without_thinking(exchange.completion)
    return None if answer is None else Exchange(exchange.prompt, answer)


def _key(judge: Judge, exchange: Exchange) -> str:
    text = json.dumps([judge.identity or judge.name, exchange.prompt, exchange.completion])
    return hashlib.sha256(text.encode()).hexdigest()
