"""Asking a server without giving anything away: deadlines, redirects and credentials, against real local servers."""

import json
import sys
import time

import pytest

from probes.behaviour.chat_client import ChatClient, EndpointError, safe_url, without_credentials
from probes.behaviour.evaluation import Evaluation
from probes.behaviour.judges import JudgeError, open_judge
from probes.prompts import PromptSet
from tests.behaviour.servers import openai_server

KEY = "sk-very-secret"
QUESTION = [[{"role": "user", "content": "hello"}]]


def client_of(url, **options):
    options = {"key": KEY, "timeout": 5.0, "attempts": 2, "pause": 0.0, "sleep": lambda _: None, **options}
    return ChatClient("small", url=url, **options)


def ask(client, **options):
    ((text, reply),) = client.ask(QUESTION, lambda reply: reply.text, **options)
    return text, reply


def trickle():
    """A document whose end never comes: a byte now and then, each well within any read timeout."""
    yield b'{"choices": [{"message": {"content": "'
    while True:
        time.sleep(0.02)
        yield b"x"


def test_a_server_that_streams_for_ever_ends_at_the_deadline():
    with openai_server(lambda *_: trickle()) as server:
        start = time.monotonic()
        text, reply = ask(client_of(server.url, timeout=1.0))
        seconds = time.monotonic() - start
    assert text is None
    assert "not whole after 1 s" in reply.fault
    assert seconds >= 2.0  # two attempts of one deadline each; without a deadline this never ends
    assert 1 <= len(server.requests) <= 2  # a busy machine may reach the deadline before the server has the question


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_that_no_key_reaches_another_host(status):
    with openai_server(lambda *_: "stolen") as thief:
        moved = (status, {"Location": f"{thief.url}/chat/completions"})
        with openai_server(lambda *_: moved) as server, pytest.raises(EndpointError, match=f"status {status}"):
            ask(client_of(server.url))
        assert thief.requests == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 500])
def test_a_key_that_the_server_repeats_is_in_no_message(status):
    with openai_server(lambda *_: (status, {}, f"bad key {KEY} given")) as server:
        try:
            message = ask(client_of(server.url))[1].fault
        except EndpointError as error:
            message = str(error)
    assert f"status {status}" in message
    assert "bad key [key] given" in message
    assert KEY not in message


def test_a_key_that_the_model_repeats_is_in_no_answer():
    with openai_server(lambda *_: f"compliance {KEY}") as server:
        assert ask(client_of(server.url))[0] == "compliance [key]"


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with openai_server(lambda *_: "yes") as server:
        assert ask(client_of(server.url, key=None))[0] == "yes"
        assert server.headers[0]["Authorization"] is None
        ask(client_of(server.url))
        assert server.headers[1]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-ü", "sk-a\nb"])
def test_a_key_that_no_header_holds_is_refused_unseen(key):
    with pytest.raises(EndpointError) as caught:
        client_of("http://127.0.0.1:9/v1", key=key)
    assert "sk-" not in str(caught.value)


ADDRESSES = [
    "http://me:hunter2@127.0.0.1:9/v1",
    "http://hunter2@127.0.0.1:9/v1",
    "http://127.0.0.1:9/v1?key=hunter2",
    "http://127.0.0.1:9/v1#hunter2",
    "http://me:hun/ter2@127.0.0.1:9/v1",
    "http://me:hunter2@evil@127.0.0.1:9/v1?x=hunter2",
]


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_with_credentials_is_refused_and_shown_without_them(url):
    for make in (
        lambda: safe_url(url),
        lambda: open_judge(f"endpoint:small@{url}"),
        lambda: open_judge(f"endpont:small@{url}"),
        lambda: Evaluation(PromptSet.of(["a"], ["harmful"]), judges=("builtin", f"endpoint:small@{url}")),
    ):
        with pytest.raises((EndpointError, JudgeError)) as caught:
            make()
        assert "ter2" not in str(caught.value)
    assert "ter2" not in without_credentials(url)


def test_an_address_from_the_environment_is_held_to_the_same(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", ADDRESSES[0])
    with pytest.raises(JudgeError, match="must not hold credentials") as caught:
        open_judge("endpoint:small")
    assert "hunter2" not in str(caught.value)


def test_a_plain_address_is_kept_as_it_is():
    assert safe_url("https://host.example:8443/v1/") == "https://host.example:8443/v1"
    judges = ("endpoint:small@https://host.example:8443/v1",)
    evaluation = Evaluation(PromptSet.of(["a"], ["harmful"]), judges=judges)
    assert json.loads(json.dumps(evaluation.document()))["judges"] == list(judges)


def test_attempts_are_bounded_and_pauses_too():
    waits = []
    with openai_server(lambda *_: (429, {"Retry-After": "86400"})) as server:
        ask(client_of(server.url, attempts=3, sleep=waits.append))
        assert len(server.requests) == 3
    assert waits == [60.0, 60.0]


@pytest.mark.parametrize("body", ["{}", "[]", "no json", '{"choices": []}', '{"choices": [{"message": {}}]}', "null"])
def test_what_is_no_chat_completion_is_a_fault_and_no_crash(body):
    with openai_server(lambda *_: (200, {}, body)) as server:
        text, reply = ask(client_of(server.url))
    assert text is None
    assert reply.fault.startswith("no chat completion")


def test_text_that_is_no_unicode_can_be_asked_about():
    with openai_server(lambda text, _: text) as server:
        client = client_of(server.url)
        ((text, _),) = client.ask([[{"role": "user", "content": "a\ud800b"}]], lambda reply: reply.text)
    assert text == "a?b"


def test_answers_come_in_order_and_options_are_sent():
    with openai_server(lambda text, _: 0.05 if text == "0" else text) as server:
        conversations = [[{"role": "user", "content": str(number)}] for number in range(8)]
        texts = [text for text, _ in client_of(server.url).ask(conversations, lambda reply: reply.text, max_tokens=7)]
    assert texts == ["compliance", *map(str, range(1, 8))]
    assert all(question["max_tokens"] == 7 for question in server.requests)


def test_the_extra_is_named_where_the_client_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)  # what Python makes of a package that is not there
    with pytest.raises(JudgeError, match=r"gravity-probe\[judges\]"):
        open_judge("endpoint:small@http://127.0.0.1:9/v1")


@pytest.mark.parametrize("name", ["endpoint:", "endpoint:@http://127.0.0.1:9"])
def test_a_model_without_a_name_is_refused(name):
    with pytest.raises(JudgeError):
        open_judge(name)
