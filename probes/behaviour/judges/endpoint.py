"""Any OpenAI-compatible endpoint as a judge.

What cannot be had, or names no label, after every attempt is `unjudged`, never safe. Requests and completions leave
this machine: that is what an endpoint is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from probes.behaviour.chat_client import ChatClient, EndpointError, Reply, safe_url
from probes.behaviour.judges.judgement import UNJUDGED, Exchange, JudgeError, Judgement
from probes.behaviour.judges.replies import QUESTION_VERSION, question, read_reply

_REASON = 200  # characters of a reply that are kept


class EndpointJudge:
    """Judges by asking for one label."""

    def __init__(self, model: str, **options: Any) -> None:
        """Nothing is sent yet; `options` are those of `ChatClient`.

        Raises:
            JudgeError: an address that is no plain URL, no model, or no `openai` package.
        """
        with _judge_errors():
            self.client = ChatClient(model, **options)
        self.name = f"endpoint:{model}"
        self.identity: str | None = f"{self.name} {self.client.url} question {QUESTION_VERSION}"

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order.

        Raises:
            JudgeError: the server refuses the question as such (no such model, a bad key, another API).
        """
        conversations = [[{"role": "user", "content": question(exchange)}] for exchange in exchanges]
        with _judge_errors():
            for judgement, reply in self.client.ask(conversations, _read_judgement, temperature=0):
                yield judgement or Judgement(UNJUDGED, reply.fault or f"replied {(reply.text or '')[:_REASON]!r}")


def check_judge_name(text: str) -> None:
    """Refuse the name of a judge that holds credentials, so that names can be kept with the results.

    Raises:
        JudgeError: its address holds a user, a password, a query or a fragment, or is none.
    """
    kind, _, place = text.partition(":")
    url = place.partition("@")[2]
    if kind == "endpoint" and url:
        with _judge_errors():
            safe_url(url)


def _read_judgement(reply: Reply) -> Judgement | None:
    text = reply.text or ""
    label = read_reply(text)
    return Judgement(label, text.strip()[:_REASON]) if label else None


@contextmanager
def _judge_errors() -> Iterator[None]:
    try:
        yield
    except EndpointError as error:
        raise JudgeError(error.what, got=error.got, expected=error.expected, next_step=error.next_step) from error
