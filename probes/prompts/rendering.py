"""Prompts as token ids: rendered once, with the aligned model's chat template, for every checkpoint."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probes.errors import PromptError, UsageError
from probes.prompts.chat import Chat, Job, apply_chat_template
from probes.prompts.chat_template import read_template
from probes.prompts.sets import LeftOut, Prompt, PromptSet, name_of

_OPEN_THINKING = re.compile(r"<think>\s*$")


@dataclass(frozen=True)
class Rendering:
    """How a prompt becomes what a model reads; as it stands, the aligned model's own way.

    Attributes:
        template: a chat template in place of the tokenizer's own.
        system_prompt: said before every prompt, by the system.
        add_generation_prompt: whether the assistant's reply is opened, so that the last token is where it begins.
        thinking: whether the model is to think first, for templates that ask (`enable_thinking`); None leaves it to the
            template. False also takes off a thinking block that the template opens at the end.
    """

    template: str | None = None
    system_prompt: str | None = None
    add_generation_prompt: bool = True
    thinking: bool | None = None

    @classmethod
    def with_template_of(cls, place: Path | str, **options: Any) -> Rendering:
        """With the chat template of a model's folder, or of a file.

        Raises:
            UsageError: there is none.
        """
        template = read_template(Path(place))
        if template is None:
            raise UsageError(f"{place} has no chat template", expected="a model's folder, or a .jinja file")
        return cls(template=template, **options)

    @classmethod
    def of(cls, about: Mapping[str, Any], template: str | None) -> Rendering:
        """As `about` describes it, with the template whose hash is there."""
        options = {
            name: about[name] for name in ("system_prompt", "add_generation_prompt", "thinking") if name in about
        }
        return cls(template=template, **options)

    @property
    def about(self) -> dict[str, Any]:
        """What was chosen, for a manifest; a template by its hash."""
        digest = None if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()
        return {
            "template_sha256": digest,
            "system_prompt": self.system_prompt,
            "add_generation_prompt": self.add_generation_prompt,
            "thinking": self.thinking,
        }

    def job(self, text: str, **changes: Any) -> Job:
        """The chat of a prompt, and the options of `apply_chat_template`."""
        system: Chat = [{"role": "system", "content": self.system_prompt}] if self.system_prompt is not None else []
        options: dict[str, Any] = {"add_generation_prompt": self.add_generation_prompt}
        if self.thinking is not None:
            options["enable_thinking"] = self.thinking
        return [*system, {"role": "user", "content": text}], {**options, **changes}


OWN = Rendering()


@dataclass(frozen=True)
class Rendered:
    """The token ids of a set of prompts.

    Attributes:
        token_ids: one tuple of ids a prompt, without padding, in the order of the set.
        sha256: hash of all of them; equal hashes mean that two checkpoints saw the very same input.
        template: the chat template that was used; None where the tokenizer has none and raw text was taken.
        left_out: (id, number of tokens) of each prompt that `fit_to_context` left out of the set.
        notices: what a user should know of how files were read and of the last token's place, in sentences.
    """

    token_ids: tuple[tuple[int, ...], ...]
    sha256: str
    template: str | None
    left_out: LeftOut = ()
    notices: tuple[str, ...] = ()

    @property
    def tokens_sha256(self) -> tuple[str, ...]:
        """Hash of each prompt's token ids."""
        return tuple(_sha256(ids) for ids in self.token_ids)


def render(prompts: PromptSet, tokenizer: Any, max_length: int | None, rendering: Rendering = OWN) -> Rendered:
    """Turn prompts into the token ids that every checkpoint of the lineage gets.

    With a chat template each prompt becomes one turn of the user with the opening of the assistant's reply
    behind it, so that the last token is where the model decides how to answer. Without one it is the raw
    text, with the special tokens that the tokenizer sets of itself.

    Args:
        prompts: the set; `fit_to_context` leaves out those that are too long.
        tokenizer: the aligned model's transformers tokenizer.
        max_length: the model's context in tokens, None if it has no limit.
        rendering: another template, a system prompt, and the like.

    Raises:
        PromptError: the chat template or the tokenizer fails or does not end, a prompt gives no tokens or more than
            the context holds (it is named), or all give the same.
    """
    template, texts, notices = prompt_texts(prompts, tokenizer, rendering)
    token_ids = tuple(_tokenise(prompts, texts, tokenizer, template))
    for prompt, ids in zip(prompts.prompts, token_ids, strict=True):
        if max_length is not None and len(ids) > max_length:
            raise PromptError(
                f"Prompt {name_of(prompt)} is longer than the model's context",
                got=f"{len(ids)} tokens",
                expected=f"at most {max_length}",
                next_step="Shorten it or take it out of the file.",
            )
    return Rendered(token_ids, _sha256(token_ids), template, prompts.left_out, notices)


def fit_to_context(
    prompts: PromptSet, tokenizer: Any, max_length: int | None, rendering: Rendering = OWN
) -> tuple[PromptSet, LeftOut]:
    """The prompts that the model's context holds, and (id, number of tokens) of each that it does not.

    Args:
        prompts: the set.
        tokenizer: the aligned model's transformers tokenizer.
        max_length: the context in tokens; None leaves nothing out.
        rendering: as for `render`.

    Raises:
        PromptError: no prompt of a label is left; or as `render`.
    """
    fitting, rendered = render_fitting(prompts, tokenizer, max_length, rendering)
    return fitting, rendered.left_out[len(prompts.left_out) :]


def render_fitting(
    prompts: PromptSet, tokenizer: Any, max_length: int | None, rendering: Rendering = OWN
) -> tuple[PromptSet, Rendered]:
    """The prompts that the model's context holds, and their token ids, from one rendering of all; as `render`.

    Raises:
        PromptError: as `fit_to_context`.
    """
    template, texts, notices = prompt_texts(prompts, tokenizer, rendering)
    token_ids = list(_tokenise(prompts, texts, tokenizer, template))
    fitting = _leave_out(prompts, [len(ids) for ids in token_ids], max_length)
    chosen = tuple(ids for ids in token_ids if max_length is None or len(ids) <= max_length)
    return fitting, Rendered(chosen, _sha256(chosen), template, fitting.left_out, notices)


def _leave_out(prompts: PromptSet, lengths: Sequence[int], max_length: int | None) -> PromptSet:
    limit = max(lengths) if max_length is None else max_length
    sized = list(zip(prompts.prompts, lengths, strict=True))
    left_out = tuple((prompt.id, length) for prompt, length in sized if length > limit)
    fitting = tuple(prompt for prompt, length in sized if length <= limit)
    for label in dict.fromkeys(prompt.label for prompt in prompts.prompts):
        if not any(prompt.label == label for prompt in fitting):
            shortest = min(length for prompt, length in sized if prompt.label == label)
            raise PromptError(
                f"No {label} prompt fits into the model's context",
                got=f"{shortest} tokens in the shortest",
                expected=f"at most {limit}",
            )
    return replace(prompts, prompts=fitting, left_out=prompts.left_out + left_out)


def prompt_texts(
    prompts: PromptSet, tokenizer: Any, rendering: Rendering = OWN
) -> tuple[str | None, list[str], tuple[str, ...]]:
    """The template that is used, the text of each prompt, and what is to be said of them; raises as `render`."""
    template = rendering.template if rendering.template is not None else own_template(tokenizer)
    if template is None:
        if rendering != OWN:
            raise PromptError(
                "The model has no chat template, so that a prompt is read as raw text",
                got="a system prompt, or another choice that only a template can follow",
                next_step="Name a chat template too.",
            )
        return None, [prompt.text for prompt in prompts.prompts], prompts.notices
    # The last job is the first prompt again, with the reply opened or not, which tells whether the template opens it.
    jobs = [rendering.job(prompt.text) for prompt in prompts.prompts]
    jobs.append(rendering.job(prompts.prompts[0].text, add_generation_prompt=not rendering.add_generation_prompt))

    def name(number: int) -> str:
        return f"prompt {name_of(prompts.prompts[number % len(prompts)])}"

    *texts, turned = apply_chat_template(jobs, tokenizer, template, name)
    if rendering.system_prompt is not None and rendering.system_prompt.strip() not in texts[0]:
        raise PromptError("The chat template leaves the system prompt out", next_step="Give none, or another template.")
    thoughts = _OPEN_THINKING.search(texts[0]) is not None
    if rendering.thinking is False:
        texts = [_OPEN_THINKING.sub("", text) for text in texts]
    return template, texts, prompts.notices + _notices(rendering, opened=texts[0] != turned, thoughts=thoughts)


def _notices(rendering: Rendering, *, opened: bool, thoughts: bool) -> tuple[str, ...]:
    notices = []
    if rendering.add_generation_prompt and not opened:
        notices.append(
            "The chat template does not open the assistant's reply: the last token is the end of the user's turn."
        )
    if thoughts and rendering.thinking is not False:
        notices.append("The chat template opens a thinking block: the last token is where the thoughts begin.")
    if thoughts and rendering.thinking is False:
        notices.append("The thinking block that the chat template opens at the end was taken off.")
    return tuple(notices)


def own_template(tokenizer: Any) -> str | None:
    """The chat template that a tokenizer uses for a plain chat; None where it has none.

    Raises:
        PromptError: it has several, and none is the default.
    """
    if not tokenizer.chat_template:
        return None
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        raise PromptError("The tokenizer has several chat templates", got=str(error).split("\n")[0]) from error


def _tokenise(prompts: PromptSet, texts: Sequence[str], tokenizer: Any, template: str | None) -> list[tuple[int, ...]]:
    # A chat template sets its special tokens itself; raw text needs those that the tokenizer adds.
    token_ids = [
        _ids(prompt, text, tokenizer, special=template is None)
        for prompt, text in zip(prompts.prompts, texts, strict=True)
    ]
    if len(set(prompts.texts)) > 1 == len(set(token_ids)):
        raise PromptError(
            f"All {len(token_ids)} prompts become the same {len(token_ids[0])} tokens",
            got=repr(texts[0][:60]),
            next_step="The chat template leaves the prompts out, or the tokenizer does not know their alphabet.",
        )
    return token_ids


def _ids(prompt: Prompt, text: str, tokenizer: Any, *, special: bool) -> tuple[int, ...]:
    try:
        ids = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
    except Exception as error:
        raise PromptError(f"The tokenizer fails on prompt {name_of(prompt)}", got=str(error).split("\n")[0]) from error
    if not ids:
        raise PromptError(f"Prompt {name_of(prompt)} becomes no tokens at all")
    return tuple(map(int, ids))


def _sha256(ids: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
