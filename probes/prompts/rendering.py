"""Prompts as token ids: rendered once, with the aligned model's chat template, for every checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.errors import PromptError
from probes.prompts.sets import Prompt, PromptSet, shown


@dataclass(frozen=True)
class Rendered:
    """The token ids of a set of prompts.

    Attributes:
        token_ids: one tuple of ids a prompt, without padding, in the order of the set.
        sha256: hash of all of them; equal hashes mean that two checkpoints saw the very same input.
        template: the chat template that was used; None where the tokenizer has none and raw text was taken.
    """

    token_ids: tuple[tuple[int, ...], ...]
    sha256: str
    template: str | None

    @property
    def tokens_sha256(self) -> tuple[str, ...]:
        """Hash of each prompt's token ids."""
        return tuple(_sha256(ids) for ids in self.token_ids)


def render(prompts: PromptSet, tokenizer: Any, max_length: int | None) -> Rendered:
    """Turn prompts into the token ids that every checkpoint of the lineage gets.

    With a chat template each prompt becomes one turn of the user with the opening of the assistant's reply
    behind it, so that the last token is where the model decides how to answer. Without one it is the raw
    text, with the special tokens that the tokenizer sets of itself.

    Args:
        prompts: the set.
        tokenizer: the aligned model's transformers tokenizer.
        max_length: the model's context in tokens, None if it has no limit.

    Raises:
        PromptError: the chat template fails, or a prompt gives no tokens or more than the context holds
            (it is named).
    """
    template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    token_ids = tuple(_ids(prompt, tokenizer, template, max_length) for prompt in prompts.prompts)
    return Rendered(token_ids, _sha256(token_ids), template)


def _ids(prompt: Prompt, tokenizer: Any, template: str | None, max_length: int | None) -> tuple[int, ...]:
    text = prompt.text if template is None else _as_chat(prompt, tokenizer, template)
    # A chat template sets its special tokens itself; raw text needs those that the tokenizer adds.
    found = tokenizer(text, add_special_tokens=template is None, verbose=False)["input_ids"]
    ids = tuple(int(token) for token in found)
    if not ids:
        raise PromptError(f"Prompt {shown(prompt)} becomes no tokens at all")
    if max_length is not None and len(ids) > max_length:
        raise PromptError(
            f"Prompt {shown(prompt)} is longer than the model's context",
            got=f"{len(ids)} tokens",
            expected=f"at most {max_length}",
            next_step="Shorten it or take it out of the file.",
        )
    return ids


def _as_chat(prompt: Prompt, tokenizer: Any, template: str) -> str:
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": prompt.text}]
    try:
        return tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        what = f"The tokenizer's chat template fails on prompt {shown(prompt)}"
        raise PromptError(what, got=str(error)) from error


def _sha256(ids: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
