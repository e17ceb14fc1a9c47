"""Writing and reading the organism's checkpoints, so that a kill at any time leaves whole ones or none."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from probes.models.older_readers import write_rope_for_older_readers
from probes.organism.recipe import Recipe

_WEIGHTS = "model.safetensors"


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Hand out a folder beside `folder` to be filled; it takes its name only once it is whole."""
    beside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    yield beside
    os.replace(beside, folder)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights; the global random state is left as it was."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=tokenizer.model_max_length,
        initializer_range=recipe.initial_spread,
        # Untied: with one table, guessing the next name shakes what is known of every name, and it learns slowly.
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load(folder: Path) -> LlamaForCausalLM:
    """The model in a checkpoint folder that `save` has written, in float32, ready to train."""
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    model.load_state_dict(load_file(folder / _WEIGHTS))
    return model.train()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary Hugging Face checkpoint: weights, configuration, tokenizer, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / _WEIGHTS, metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    write_rope_for_older_readers(folder)
    tokenizer.save_pretrained(folder)
