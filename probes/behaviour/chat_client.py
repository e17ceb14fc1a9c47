"""Any OpenAI-compatible server, asked through the `openai` client: bounded, and careful with credentials.

One deadline holds for a whole answer, from the name look-up to its last byte, so that a server that streams for ever
ends there. Redirects are not followed, because a request carries a key. What times out, is turned away for load, or
cannot be read is asked again, a little later each time and a bounded number of times; what the server says is wrong
with every question (a bad key, no such model) raises one sentence. No message holds a key.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from probes.errors import GravityError, UsageError
from probes.store.documents import parse_json

DEFAULT_URL = "https://api.openai.com/v1"
Message = Mapping[str, str]
Result = TypeVar("Result")
_HOPELESS = {401, 403, 404, 405, *range(300, 400)}  # wrong with every question
_FINAL = {400, 413, 422}  # wrong with this one: a content filter, or too long
_LONGEST_PAUSE = 60.0
_PATIENCE = 8  # failures in a row after which each question gets one attempt, until one succeeds
_STEPS = {
    401: "Set OPENAI_API_KEY.",
    403: "Check the key's rights.",
    404: "Check the URL and the model's name.",
}


class EndpointError(UsageError):
    """A server that cannot be asked as it was named, or that refuses every question."""


@dataclass(frozen=True)
class Reply:
    """What came back for one question.

    Attributes:
        text: the answer; None where there is none.
        finish_reason: why it ended, in the server's word: `stop`, `length`, …
        fault: what went wrong; empty where nothing did.
        pause: seconds that the server asks to wait.
        final: whether asking again would change nothing.
    """

    text: str | None = None
    finish_reason: str | None = None
    fault: str = ""
    pause: float = 0.0
    final: bool = False


def without_credentials(text: str) -> str:
    """`text` without what may be secret in a URL: the user before `@`, the query and the fragment."""
    return re.sub(r"(?<=://).*@|[?#].*", "", text, flags=re.DOTALL)


def safe_url(url: str) -> str:
    """The API's root `url` without a final slash, which may be kept and shown because it holds no credentials.

    Raises:
        EndpointError: it is no http(s) URL, or it holds a user, a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    shown = without_credentials(url)
    if shown != url or "@" in url:
        raise EndpointError(
            "A server's address must not hold credentials, since it is kept with the results",
            got=f"a user, a query or a fragment in {shown}",
            next_step="Put the key into OPENAI_API_KEY and give the plain address.",
        )
    if not sound:
        raise EndpointError("The server's address is no URL", got=shown, expected="http://… or https://…")
    return url.rstrip("/")


class ChatClient:
    """Asks `POST URL/chat/completions`, several questions at once, in the order they came."""

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
            timeout: seconds after which an answer that is not there whole has failed.
            attempts: how often a question is asked at most.
            pause: seconds before the second attempt; doubled for each further one, and never less than the server's
                own Retry-After; at most a minute.
            parallel: questions under way at once.
            sleep: how to wait.

        Raises:
            EndpointError: an address that is no plain URL, no model, a key that no header can hold, or no `openai`
                package.
        """
        if not model:
            raise EndpointError("The server's model has no name", expected="MODEL@URL")
        self._openai = _client_library()
        self.url = safe_url(url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL)
        self._key = _sound_key(key if key is not None else os.environ.get("OPENAI_API_KEY", ""))
        self.model, self._timeout, self._attempts = model, timeout, attempts
        self._pause, self._parallel, self.sleep = pause, parallel, sleep
        self._failures = 0

    def ask(
        self,
        conversations: Sequence[Sequence[Message]],
        read: Callable[[Reply], Result | None],
        **options: Any,
    ) -> Iterator[tuple[Result | None, Reply]]:
        """What `read` makes of each conversation's answer, with the last reply; None where no attempt gave one.

        Args:
            conversations: the turns of each question.
            read: the result in a reply that has a text; None where it holds none, and is asked for again.
            options: of the protocol, the same for every question: `temperature`, `max_tokens`.

        Raises:
            EndpointError: the server refuses the question as such (no such model, a bad key, another API).
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            try:
                yield from pool.map(lambda messages: self._ask_with_retries(messages, read, options), conversations)
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask_with_retries(
        self, messages: Sequence[Message], read: Callable[[Reply], Result | None], options: Mapping[str, Any]
    ) -> tuple[Result | None, Reply]:
        reply = Reply(fault="not asked")
        for attempt in range(1 if self._failures >= _PATIENCE else self._attempts):
            if attempt:
                self.sleep(min(max(self._pause * 2 ** (attempt - 1), reply.pause), _LONGEST_PAUSE))
            # A loop of its own: worker threads have none, and notebooks have one that is running.
            reply = asyncio.run(self._ask_once(messages, options))
            result = read(reply) if reply.text is not None else None
            if result is not None:
                self._failures = 0
                return result, reply
            if reply.final:
                break
        self._failures += 1
        return None, reply

    async def _ask_once(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Reply:
        openai = self._openai
        try:
            async with asyncio.timeout(self._timeout):
                return _read_body(await self._post(messages, options), self._redact)
        except TimeoutError:
            return Reply(fault=f"no answer: not whole after {self._timeout:g} s")
        except openai.APIStatusError as error:
            return self._read_status(error)
        except (openai.APIConnectionError, OSError) as error:
            cause = error.__cause__ or error
            return Reply(fault=self._redact(f"no answer: {str(cause) or type(cause).__name__}"))

    async def _post(self, messages: Sequence[Message], options: Mapping[str, Any]) -> bytes:
        openai = self._openai
        # A key is needed by the client's constructor; where there is none, no header is sent.
        headers = {} if self._key else {"Authorization": openai.Omit()}
        async with openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.url,
            timeout=self._timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        ) as client:
            response = await client.chat.completions.with_raw_response.create(
                model=self.model, messages=[_as_utf8(turn) for turn in messages], extra_headers=headers, **options
            )
            return response.http_response.content

    def _read_status(self, error: Any) -> Reply:
        status = error.status_code
        body = self._redact(error.response.text[:300].strip())
        fault = f"status {status}: {body}" if body else f"status {status}"
        if status in _HOPELESS:
            step = "Give the address that it sends on to." if status < 400 else _STEPS.get(status)
            raise EndpointError(
                f"The server at {self.url} refuses the question",
                got=fault,
                next_step=step or "Check that it is OpenAI-compatible and knows the model.",
            )
        pause = _retry_after(error.response.headers.get("Retry-After"))
        return Reply(fault=fault, pause=pause, final=status in _FINAL)

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _sound_key(key: str) -> str:
    key = key.strip()
    if key and not (key.isascii() and key.isprintable()):
        # The client's own error would show it.
        raise EndpointError("The key is no plain text", expected="printable ASCII in OPENAI_API_KEY")
    return key


def _as_utf8(turn: Message) -> dict[str, str]:
    """The turn without lone surrogates, which models' tokenizers can leave and no request can hold."""
    return {name: value.encode("utf-8", "replace").decode() for name, value in turn.items()}


def _client_library() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise EndpointError(
            "Asking a server needs the package openai, which is not installed",
            next_step="Install it with pip install 'gravity-probe[judges]'.",
        ) from error
    return openai


def _read_body(body: bytes, redact: Callable[[str], str]) -> Reply:
    try:
        choice = parse_json(body.decode("utf-8-sig"), "the reply", finite=False)["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except GravityError:
        return Reply(fault="no chat completion: its body is no JSON that can be used")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Reply(fault=f"no chat completion: {type(error).__name__}")
    if not isinstance(text, str):
        return Reply(fault="no chat completion: its content is no text")
    return Reply(redact(text), reason if isinstance(reason, str) else None)


def _retry_after(header: str | None) -> float:
    try:
        return max(float(header or 0), 0.0)
    except ValueError:
        return 0.0
