"""Checkpoints that answer behind an OpenAI-compatible server (vLLM, llama.cpp, Ollama, a hosted model).

Nothing is loaded here: the server renders the prompt with its own chat template and answers greedily. What it does not
answer after every attempt has no completion, and is unjudged. Neither refusal scores nor task losses can be had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from probes.behaviour.chat_client import ChatClient, EndpointError, Reply
from probes.behaviour.evaluation import ANSWER_COLUMNS, Evaluation

if TYPE_CHECKING:
    import pandas as pd

_LENGTH = "length"  # the protocol's word for an answer that was cut off


def open_server(name: str, *, timeout: float = 60.0, attempts: int = 4) -> ChatClient:
    """The server of a checkpoint that is named `MODEL@URL`; `MODEL` alone takes `OPENAI_BASE_URL`.

    Raises:
        EndpointError: an address that is no plain URL or holds credentials, no model, or no `openai` package.
    """
    model, _, url = name.partition("@")
    return ChatClient(model, url=url or None, timeout=timeout, attempts=attempts)


def answer_questions_served(
    server: ChatClient, evaluation: Evaluation, done: Callable[[int, int], None] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the checkpoint behind `server` answers, as `evaluation.answer_questions` returns it.

    Raises:
        EndpointError: the server refuses every question, or answers none.
    """
    import pandas as pd

    questions = evaluation.questions
    system = evaluation.rendering.system_prompt
    opening = [] if system is None else [{"role": "system", "content": system}]
    conversations = [[*opening, {"role": "user", "content": text}] for text in questions.texts]
    options = {"temperature": 0, "max_tokens": evaluation.max_new_tokens}
    completions, cut_off, fault = [], [], ""
    for number, (text, reply) in enumerate(server.ask(conversations, _text_of, **options), start=1):
        completions.append(text)
        cut_off.append(reply.finish_reason == _LENGTH)
        fault = fault or reply.fault
        if done is not None:
            done(number, len(conversations))
    if all(text is None for text in completions):
        raise EndpointError(f"The server at {server.url} answered nothing", got=fault or "no text")
    columns = (questions.ids, completions, cut_off, np.full(len(questions.ids), np.nan))
    return pd.DataFrame(dict(zip(ANSWER_COLUMNS, columns, strict=True))), pd.DataFrame(
        columns=["item", "loss", "tokens"]
    )


def _text_of(reply: Reply) -> str | None:
    """The text; an empty one is an answer too."""
    return reply.text
