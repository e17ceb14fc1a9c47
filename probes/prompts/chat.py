"""A tokenizer's chat template applied to chats, so that no template can hang us or fill the memory.

A plain template (`template_shape`) is run here. Any other is run in a process of its own, forked from this one, which
is stopped when a chat takes longer than `SECONDS` or more memory than `MEMORY`. Either way an output that is far longer
than the chat is refused, and any error of the template is one sentence.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from probes.errors import PromptError

SECONDS = 5.0  # of a chat; an ordinary template takes a ten-thousandth of one
MEMORY = 1 << 29  # bytes beyond those of this process
_LONGEST = 1 << 16  # characters beyond eight times those of the chat

Chat = list[dict[str, Any]]  # turns with `role` and `content`
Job = tuple[Chat, dict[str, Any]]  # a chat, and the options of `apply_chat_template`
Answer = tuple[bool, str]  # whether a chat could be rendered, and its text, or why not


def apply_chat_template(jobs: Sequence[Job], tokenizer: Any, template: str, name: Callable[[int], str]) -> list[str]:
    """The text of each chat, as the tokenizer's own `apply_chat_template` makes it.

    A template that finds no text where a turn's content is one (those of many models that also see) gets it as a list
    of parts, of which one is a text.

    Args:
        jobs: chats, each with its options.
        tokenizer: of transformers.
        template: the chat template.
        name: what the chat with a number is called in messages.

    Raises:
        PromptError: the template fails, does not end, or writes far more than the chat; the chat is named.
    """
    texts = _render(jobs, tokenizer, template, name)
    if _leaves_out(jobs, texts):
        texts = _render([(_in_parts(chat), options) for chat, options in jobs], tokenizer, template, name)
    return texts


def _render(jobs: Sequence[Job], tokenizer: Any, template: str, name: Callable[[int], str]) -> list[str]:
    from probes.prompts.template_shape import is_plain

    if not jobs:
        return []
    plain = is_plain(template)
    answers = list(_render_here(jobs, tokenizer, template)) if plain else _render_apart(jobs, tokenizer, template)
    if not answers[-1][0]:
        raise PromptError(f"The chat template fails on {name(len(answers) - 1)}", got=answers[-1][1])
    return [text for _, text in answers]


def _leaves_out(jobs: Sequence[Job], texts: Sequence[str]) -> bool:
    """Whether chats that say different things became the same text, or a lone one lacks what it says.

    Chats are held against those with the same options; it must be so with all options.
    """
    groups: dict[str, list[tuple[Chat, str]]] = {}
    for (chat, options), text in zip(jobs, texts, strict=True):
        groups.setdefault(str(options), []).append((chat, text))
    return bool(groups) and all(map(_lacks_contents, groups.values()))


def _lacks_contents(rendered: Sequence[tuple[Chat, str]]) -> bool:
    contents = {tuple(turn["content"].strip() for turn in chat) for chat, _ in rendered}
    if len(contents) > 1:
        return len({text for _, text in rendered}) == 1
    return any(turn["content"].strip() not in text for chat, text in rendered for turn in chat)


def _in_parts(chat: Chat) -> Chat:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in chat]


def _render_here(jobs: Sequence[Job], tokenizer: Any, template: str) -> Iterator[Answer]:
    for chat, options in jobs:
        try:
            text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, **options)
        except Exception as error:  # noqa: BLE001 - a template is a program, which may raise anything
            yield False, " ".join(f"{type(error).__name__} {error}".split())[:300]
            return
        longest = _LONGEST + 8 * sum(len(str(turn["content"])) for turn in chat)
        if len(text) > longest:
            yield False, f"an output of {len(text):,} characters, where at most {longest:,} are taken"
            return
        yield True, text


def _render_apart(jobs: Sequence[Job], tokenizer: Any, template: str) -> list[Answer]:
    """The same from a process of its own, which needs nothing of this one but Python and memory."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(_render_here(jobs, tokenizer, template), sender))
    process.start()
    sender.close()
    answers: list[Answer] = []
    try:
        while len(answers) < len(jobs) and (not answers or answers[-1][0]):
            answers.append(receiver.recv() if receiver.poll(SECONDS) else (False, f"no end within {SECONDS:g} seconds"))
    except EOFError:
        answers.append((False, f"more than {MEMORY >> 20} MiB of memory, or no end"))
    finally:
        process.kill()
        process.join()
        receiver.close()
    return answers


def _send_all(answers: Iterator[Answer], sender: Connection) -> None:
    """In the forked process: send every text as it comes. The system ends the process where nobody else does."""
    import resource

    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - what kills this process is said by the other one
    statm = Path("/proc/self/statm")
    if statm.is_file():
        _limit(resource.RLIMIT_AS, int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY)
    _limit(resource.RLIMIT_CPU, int(time.process_time() + 2 * SECONDS))
    for answer in answers:
        sender.send(answer)
        _limit(resource.RLIMIT_CPU, int(time.process_time() + 2 * SECONDS))


def _limit(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
