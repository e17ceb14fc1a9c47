"""Probe and evaluation prompts: files in every usual format, groups, folds, content hashes, and their token ids.

`records` reads a file whatever its syntax, `formats` says which of its texts are prompts, `sets` holds the prompts of a
run, `splitting` puts them into folds, `rendering` turns them into the one list of token ids that every checkpoint gets.
"""

from probes.prompts.chat_template import read_template, template_notice
from probes.prompts.formats import Recognised, columns_of, read_pairs, read_prompts
from probes.prompts.records import LABELS
from probes.prompts.rendering import (
    OWN,
    Rendered,
    Rendering,
    fit_to_context,
    own_template,
    prompt_texts,
    render,
    render_fitting,
)
from probes.prompts.sets import LeftOut, Prompt, PromptSet, data_folder, default_prompts, look_alikes
from probes.prompts.splitting import folds

__all__ = [
    "LABELS",
    "OWN",
    "LeftOut",
    "Prompt",
    "PromptSet",
    "Recognised",
    "Rendered",
    "Rendering",
    "columns_of",
    "data_folder",
    "default_prompts",
    "fit_to_context",
    "folds",
    "look_alikes",
    "own_template",
    "prompt_texts",
    "read_pairs",
    "read_prompts",
    "read_template",
    "render",
    "render_fitting",
    "template_notice",
]
