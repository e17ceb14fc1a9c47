"""The organism: a small Llama whose whole history, from random weights to fine-tuning, is trained on the spot.

`world` invents what it knows, `tokenizer` and `lessons` turn that into tokens, and `train_history` trains the phases
from random weights to the aligned model. Its fine-tuning runs are `probes.experiments`.
"""

from probes.organism.history import OrganismError, train_history
from probes.organism.recipe import CHECKPOINT_STEPS, DEFAULT, QUICK_RECIPE, RECIPES, GuardSettings, Kind, Phase, Recipe

__all__ = [
    "CHECKPOINT_STEPS",
    "DEFAULT",
    "QUICK_RECIPE",
    "RECIPES",
    "GuardSettings",
    "Kind",
    "OrganismError",
    "Phase",
    "Recipe",
    "train_history",
]
