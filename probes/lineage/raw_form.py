"""A lineage as files hold it, and the folders in it: written from the file's own folder, or absolute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_absolute(raw: Any, folder: Path) -> Any:
    """Relative folders of a lineage file, made absolute; hub ids stay as they are."""

    def anchor(place: str) -> str:
        path = folder / Path(place).expanduser()
        return str(path) if path.exists() or place.startswith((".", "/", "~")) else place

    return rewrite_places(raw, anchor)


def from_home(place: str, home: Path) -> str:
    """A folder inside `home`, written from there; any other place as it is."""
    folder = Path(place)
    inside = folder.is_absolute() and folder.resolve().is_relative_to(home)
    return f"./{folder.resolve().relative_to(home).as_posix()}" if inside else place


def written_from(value: Any, home: Path) -> Any:
    """A JSON value, every place inside `home` in it written from there, so that `home` can be moved or sent."""
    if isinstance(value, dict):
        return {name: written_from(inner, home) for name, inner in value.items()}
    if isinstance(value, list):
        return [written_from(inner, home) for inner in value]
    return from_home(value, home.resolve()) if isinstance(value, str) else value


def rewrite_places(value: Any, change: Callable[[str], str], key: str = "") -> Any:
    """A lineage's raw form with every place changed."""
    if isinstance(value, dict):
        return {name: rewrite_places(inner, change, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rewrite_places(inner, change, key) for inner in value]
    return change(value) if key in {"model", "adapter", "folder", "base"} and isinstance(value, str) else value
