"""Options of tuners and optimisers as a person writes them, `KEY=VALUE`: read as YAML, checked by name and by type."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from probes.errors import UsageError, did_you_mean

_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # YAML 1.1 takes 1e-3 for a text
_UNCHECKED = (PydanticSchemaGenerationError, PydanticUserError, NameError)


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` options, each value read as YAML: `r=8`, `target_modules=[q_proj, v_proj]`, `lora_dropout=null`.

    Raises:
        UsageError: one has no `=`.
    """
    options = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UsageError("--set takes KEY=VALUE", got=repr(text))
        options[key.strip()] = _parse_value(value)
    return options


def _parse_value(text: str) -> Any:
    import yaml

    if _EXPONENT.fullmatch(text.strip()):
        return float(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def options_of(name: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options addressed to a name, as `NAME.KEY`, under their keys; those addressed to nobody where it is None."""
    parts = {key: key.rpartition(".") for key in options}
    return {key: options[whole] for whole, (owner, _, key) in parts.items() if owner == (name or "")}


def refuse_unaddressed(options: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse `NAME.KEY` where nothing is called NAME.

    Raises:
        UsageError: names what there is.
    """
    for key in options:
        if key.rpartition(".")[0] not in ("", *names):
            raise UsageError(
                "This option is for nothing that is trained here", got=key, expected=f"KEY, or {', '.join(names)}.KEY"
            )


def check_options(owner: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The same options, each in the type that its owner declares.

    Args:
        owner: whose they are, for the message.
        options: by name.
        known: type by name of every option there is; `Any` where it declares none.

    Raises:
        UsageError: there is no such option (the nearest are named), or its value is of another type.
    """
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known, most=3)
            raise UsageError(
                f"{owner} has no option {key!r}{hint}", expected=None if hint else ", ".join(sorted(known)) or "none"
            )
    return {key: _check_type(f"{owner}: {key}", value, known[key]) for key, value in options.items()}


def _check_type(place: str, value: Any, annotation: Any) -> Any:
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except _UNCHECKED:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError:
        kind = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        raise UsageError(f"{place} is of another type", got=repr(value), expected=kind) from None


def parameter_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Type by name of what can be given to a function by name; `Any` where its types cannot be had."""
    hints = types_of(function)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters
    return {name: hints.get(name, Any) for name, parameter in parameters.items() if parameter.kind in named}


def types_of(owner: Any) -> dict[str, Any]:
    """The types that a class or function declares; none where a name in them is nowhere to be found."""
    try:
        return get_type_hints(owner)
    except (NameError, TypeError, AttributeError):
        return {}
