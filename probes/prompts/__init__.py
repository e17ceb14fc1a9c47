"""Probe and evaluation prompts: files in every usual format, folds, content hashes, and their token ids.

`formats` reads a file and says what it recognised, `sets` holds the prompts of a run, `rendering` turns them
into the one list of token ids that every checkpoint gets.
"""

from probes.prompts.formats import LABELS, Recognised, read_prompts
from probes.prompts.rendering import Rendered, render
from probes.prompts.sets import Prompt, PromptSet, data_folder, default_prompts, folds, look_alikes

__all__ = [
    "LABELS",
    "Prompt",
    "PromptSet",
    "Recognised",
    "Rendered",
    "data_folder",
    "default_prompts",
    "folds",
    "look_alikes",
    "read_prompts",
    "render",
]
