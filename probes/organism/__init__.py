"""The organism: a small Llama whose whole history, from random weights to fine-tuning, is trained on the spot.

`world` invents what it knows, `tokenizer` and `lessons` turn that into tokens, `history` trains the phases and
`arms` the fine-tuning runs; `train_history` does it all and names the lineage file.
"""

from probes.organism.arms import ARMS
from probes.organism.history import OrganismError, train_history
from probes.organism.recipe import CHECKPOINT_STEPS, DEFAULT, QUICK_RECIPE, GuardSettings, Phase, Recipe

__all__ = [
    "ARMS",
    "CHECKPOINT_STEPS",
    "DEFAULT",
    "QUICK_RECIPE",
    "GuardSettings",
    "OrganismError",
    "Phase",
    "Recipe",
    "train_history",
]
