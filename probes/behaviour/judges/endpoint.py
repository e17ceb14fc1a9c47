"""Any OpenAI-compatible endpoint as a judge.

A question that times out, is turned away for load, or is answered with nonsense is asked again, a little later each
time; then it is `unjudged`, never safe. What the server says is wrong with every question (a bad key, no such model)
stops the work with one sentence. Requests and completions leave this machine: that is what an endpoint is.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from probes.behaviour.judges.judgement import UNJUDGED, Exchange, JudgeError, Judgement
from probes.behaviour.judges.replies import QUESTION_VERSION, question, read_reply

DEFAULT_URL = "https://api.openai.com/v1"
_HOPELESS = {401, 403, 404, 405}  # wrong with every question
_FINAL = {400, 413, 422}  # wrong with this one: a content filter, or too long
_LONGEST_PAUSE = 60.0
_NEVER = float("inf")
_PATIENCE = 8  # failures in a row after which each question gets one attempt, until one succeeds


class EndpointJudge:
    """Judges by `POST URL/chat/completions`."""

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        key: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        pause: float = 1.0,
        parallel: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            model: as the server calls it.
            url: the API's root; None takes `OPENAI_BASE_URL`, else OpenAI's own.
            key: bearer token; None takes `OPENAI_API_KEY`, and none is sent where there is none.
            timeout: seconds without an answer after which a question has failed.
            attempts: how often a question is asked.
            pause: seconds before the second attempt; doubled for each further one, and never less than the server's
                own Retry-After.
            parallel: questions under way at once.
            sleep: how to wait.
        """
        self._url = (url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL).rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise JudgeError("The judge's address is no URL", got=self._url, expected="http://… or https://…")
        self._key = key if key is not None else os.environ.get("OPENAI_API_KEY")
        self._model, self._timeout, self._attempts = model, timeout, attempts
        self._pause, self._parallel, self._sleep = pause, parallel, sleep
        self._failures = 0
        self.name = f"endpoint:{model}"
        self.identity: str | None = f"{self.name} {self._url} question {QUESTION_VERSION}"

    def label(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement for each exchange, in order.

        Raises:
            JudgeError: the server refuses the question as such (no such model, a bad key, another API).
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            try:
                yield from pool.map(self._judged, exchanges)
            finally:
                pool.shutdown(cancel_futures=True)

    def _judged(self, exchange: Exchange) -> Judgement:
        fault, wait = "not asked", 0.0
        for attempt in range(1 if self._failures >= _PATIENCE else self._attempts):
            if attempt:
                self._sleep(max(self._pause * 2 ** (attempt - 1), wait))
            reply, fault, wait = self._asked(exchange)
            label = read_reply(reply) if reply is not None else None
            if label:
                self._failures = 0
                return Judgement(label, reply.strip()[:200] if reply else "")
            fault = fault or f"replied {reply[:200] if reply else ''!r}"
            if wait == _NEVER:
                break
        self._failures += 1
        return Judgement(UNJUDGED, fault)

    def _asked(self, exchange: Exchange) -> tuple[str | None, str, float]:
        """The reply, or what went wrong and how many seconds the server asks to wait."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question(exchange)}],
            "temperature": 0,
        }
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        data = json.dumps(body, ensure_ascii=True).encode()
        request = urllib.request.Request(f"{self._url}/chat/completions", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return _content(json.loads(answer.read())), "", 0.0
        except urllib.error.HTTPError as error:
            if error.code in _HOPELESS:
                raise self._refused(error) from error
            if error.code in _FINAL:
                return None, f"status {error.code}: {_said(error)}", _NEVER
            return None, f"status {error.code}", _retry_after(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            return None, f"no answer: {str(error) or type(error).__name__}", 0.0
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return None, f"no chat completion: {type(error).__name__}", 0.0

    def _refused(self, error: urllib.error.HTTPError) -> JudgeError:
        said = _said(error)
        steps = {401: "Set OPENAI_API_KEY.", 403: "Check the key's rights.", 404: "Check the URL and the model's name."}
        return JudgeError(
            f"The judge at {self._url} refuses the question",
            got=f"status {error.code}: {said}" if said else f"status {error.code}",
            next_step=steps.get(error.code, "Check that it is OpenAI-compatible and knows the model."),
        )


def _said(error: urllib.error.HTTPError) -> str:
    return error.read()[:300].decode("utf-8", "replace").strip()


def _content(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError("content is no text")
    return content


def _retry_after(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return 0.0
