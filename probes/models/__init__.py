"""The one seam to transformers and transformer-lens: load a model, check it, swap its weights."""

from probes.models.host import ModelHost
from probes.models.kinship import Kinship
from probes.models.noise import DriftNorms

__all__ = ["DriftNorms", "Kinship", "ModelHost"]
