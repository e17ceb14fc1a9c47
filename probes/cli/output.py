"""What verbs print where `--json` is given."""

from __future__ import annotations

import json
import math
from typing import Any

import typer


def print_json(value: Any) -> None:
    """One document on the output stream; a number that is not finite is null, since JSON has no word for it."""
    typer.echo(json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
