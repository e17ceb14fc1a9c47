"""Names of directions: as files, in tables, and as runs of earlier versions have them; old runs are read by today's."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from probes.errors import RunFolderError

if TYPE_CHECKING:
    import pandas as pd

# What runs of earlier versions call a direction, and what it is called now. `control:shuffled` is an arm alone: the
# training on answers dealt out at random.
RENAMED = {"control:isotropic": "control:random", "control:shuffled": "control:permuted-labels"}
_COLUMNS = ("direction", "one", "other")  # of any table, where directions are named


def direction_file(name: str) -> str:
    """A direction's name as that of its file: `control:drift` is `control-drift`.

    Raises:
        RunFolderError: nothing is left of it.
    """
    safe = re.sub(r"[^\w.-]+", "-", name)
    if not safe.strip("-."):
        raise RunFolderError("A direction needs a name", got=repr(name), expected="letters, digits, - and _")
    return safe


def current_name(name: str) -> str:
    """A direction's name today, with a notice where a former one was given."""
    if name not in RENAMED:
        return name
    message = f"The direction {name} is called {RENAMED[name]} now; the old name goes with the next version."
    warnings.warn(message, FutureWarning, stacklevel=3)
    return RENAMED[name]


def names_of(name: str) -> list[str]:
    """A direction's name, and those that it had."""
    return [name, *(former for former, current in RENAMED.items() if current == name)]


def files_of(name: str) -> set[str]:
    """Stems of the files that a direction may lie in."""
    return {direction_file(known) for known in names_of(name)}


def filters_as_kept(filters: Any) -> Any:
    """Filters of `read_table` by today's names, so that rows under former names pass too."""
    if not isinstance(filters, list):
        return filters
    return [filters_as_kept(part) if isinstance(part, list) else _as_kept(*part) for part in filters]


def _as_kept(column: str, test: str, value: Any) -> tuple[str, str, Any]:
    if column not in _COLUMNS or test not in ("==", "in"):
        return column, test, value
    names = [known for name in ([value] if test == "==" else value) for known in names_of(name)]
    return column, "in", names


def by_current_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table with directions by today's names."""
    for column in _COLUMNS:
        if column in frame and frame[column].isin(list(RENAMED)).any():
            frame[column] = frame[column].replace(RENAMED)
    return frame


def document_by_current_names(document: Any) -> Any:
    """What `directions.json` says, by today's names."""
    described = document.get("directions") if isinstance(document, dict) else None
    if not isinstance(described, dict):
        return document
    return {**document, "directions": {RENAMED.get(name, name): about for name, about in described.items()}}
