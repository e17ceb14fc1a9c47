"""What transformers loads for us: configuration, tokenizer and model; its complaints become sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from probes.errors import CheckpointError
from probes.models.source import CONFIG, read_json

_FAULTS = (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, SafetensorError)


def load_config(folder: Path) -> Any:
    """The model's configuration.

    Raises:
        CheckpointError: the folder is no checkpoint, or transformers does not know the model type.
    """
    # transformers takes seconds to import, so only what loads a model does it.
    from transformers import AutoConfig

    read_json(folder / CONFIG)
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise _refused(f"The configuration of {folder} is not understood", error) from error


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except _FAULTS as error:
        raise _refused(f"The aligned model {folder} has no tokenizer that can be read", error) from error


def load_model(folder: Path, dtype: str | torch.dtype, *, pickled: bool) -> Any:
    """The causal language model on the CPU, in evaluation mode and without gradients.

    Args:
        folder: a Hugging Face folder.
        dtype: `auto` for as stored, else a precision.
        pickled: whether its weights are pickled (the caller has decided that this is allowed).

    Raises:
        CheckpointError: it cannot be read, or lacks weights, which would be left at random numbers.
    """
    from transformers import AutoModelForCausalLM

    try:
        with no_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                use_safetensors=not pickled,
                weights_only=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except _FAULTS as error:
        raise _refused(f"{folder} cannot be loaded", error) from error
    model, info = loaded
    missing = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if missing:
        raise CheckpointError(
            f"{folder} is an incomplete checkpoint",
            got=f"no usable weights for {missing[0]}, {len(missing)} in all",
            expected="weights for every parameter",
        )
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Progress is drawn at the edge of the program, not by transformers in the middle of it."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _refused(what: str, error: Exception) -> CheckpointError:
    text = str(error).strip().splitlines()
    return CheckpointError(what, got=text[0][:300] if text else type(error).__name__)
