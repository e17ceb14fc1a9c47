"""Where chat templates are kept: a model's folder, a file; and what to say where two models have different ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import PromptError
from probes.store.documents import parse_json, read_text

_OWN_FILE = "chat_template.jinja"
_JSON_FILES = ("chat_template.json", "tokenizer_config.json")
_MAX_BYTES = 1 << 24
_DEFAULT = "default"


def read_template(place: Path) -> str | None:
    """The chat template in a model's folder (for a plain chat), or in a file; None where there is none.

    Raises:
        UsageError: the file is not there.
        PromptError: it is damaged.
    """
    if not place.is_dir():
        text = read_text(place, kind="chat template", limit=_MAX_BYTES, error=PromptError)
        return _of_config(parse_json(text, str(place), error=PromptError)) if place.suffix == ".json" else text
    if (place / _OWN_FILE).is_file():
        return read_text(place / _OWN_FILE, limit=_MAX_BYTES, error=PromptError)
    for name in _JSON_FILES:
        template = read_template(place / name) if (place / name).is_file() else None
        if template is not None:
            return template
    return None


def template_notice(name: str, own: str | None, used: str | None, used_of: str = "the aligned model") -> str | None:
    """A sentence where a checkpoint's own chat template is not the one that every prompt is rendered with.

    Args:
        name: of the checkpoint.
        own: its chat template; None where it has none, which is no difference: an adapter or a bare checkpoint.
        used: the one that is used.
        used_of: whose it is.
    """
    if own is None or used is None or own.strip() == used.strip():
        return None
    return f"{name} has a chat template of its own; its prompts are rendered with that of {used_of} all the same."


def _of_config(config: Any) -> str | None:
    template = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get(_DEFAULT)
    return template if isinstance(template, str) else None
