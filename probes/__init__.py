"""Gravity Probe: measure, map and stop the fall of a fine-tuned model back towards its unaligned past.

    import probes

    run = probes.open("runs/mine")
    run.drift(arm="baseline", statistic="return_fraction")

Importing this package loads neither torch nor transformers; each name below loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from probes.directions import METHODS
    from probes.guard import ReversionGuard
    from probes.lineage import Lineage
    from probes.notebook import measure, open, steer
    from probes.prompts import PromptSet
    from probes.run import Run
    from probes.verdict.assess import assess

_HOMES = {
    "METHODS": "probes.directions",
    "Lineage": "probes.lineage",
    "PromptSet": "probes.prompts",
    "ReversionGuard": "probes.guard",
    "Run": "probes.run",
    "assess": "probes.verdict.assess",
    "measure": "probes.notebook",
    "open": "probes.notebook",
    "steer": "probes.notebook",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that is its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = ["METHODS", "Lineage", "PromptSet", "ReversionGuard", "Run", "assess", "measure", "open", "steer"]
