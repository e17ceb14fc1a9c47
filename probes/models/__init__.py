"""The one seam to transformers and transformer-lens: load a model, check it, swap its weights.

Each name below loads torch when it is first used; `probes.models.source`, which finds folders, does without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.models.host import ModelHost
    from probes.models.kinship import Kinship
    from probes.models.noise import DriftNorms
    from probes.models.placement import Placement
    from probes.models.unopened import UnopenedModel

_HOMES = {
    "DriftNorms": "noise",
    "Kinship": "kinship",
    "ModelHost": "host",
    "Placement": "placement",
    "UnopenedModel": "unopened",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that is its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.models' has no attribute {name!r}")
    return getattr(import_module(f"probes.models.{_HOMES[name]}"), name)


__all__ = ["DriftNorms", "Kinship", "ModelHost", "Placement", "UnopenedModel"]
