"""What transformers loads for us: configuration, tokenizer and model; its complaints become sentences."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from probes.errors import CheckpointError
from probes.models.source import CONFIG, read_json
from probes.models.weights import WeightFiles

# What architectures raise over a configuration that cannot be: of all kinds, torch's own assertions among them.
_FAULTS = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, AssertionError),
    *(ImportError, SafetensorError),
)


# Buffers that old versions saved and that no version reads.
_PASSED_OVER = (r"rotary_emb\.inv_freq$", r"\.attn\.(masked_)?bias$", r"position_ids$")


def load_config(folder: Path) -> Any:
    """The model's configuration.

    Raises:
        CheckpointError: the folder is no checkpoint, or transformers does not know the model type.
    """
    if folder.is_file():  # transformers goes through all words of a GGUF file's vocabulary, in seconds
        state = folder.stat()
        return copy.deepcopy(_config_of_gguf(folder, state.st_mtime_ns, state.st_size))
    read_json(folder / CONFIG)
    return _read_config(folder)


@functools.lru_cache(maxsize=4)
def _config_of_gguf(file: Path, _changed: int, _size: int) -> Any:
    return _read_config(file)


def _read_config(folder: Path) -> Any:
    # transformers takes seconds to import, so only what loads a model does it.
    from transformers import AutoConfig

    place, more = _place(folder)
    try:
        return AutoConfig.from_pretrained(place, **more, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _refusal(f"The configuration of {folder} is not understood", error) from error


def context_length(config: Any) -> int | None:
    """Tokens that a model with this configuration can read; None where it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    place, more = _place(folder)
    try:
        return AutoTokenizer.from_pretrained(place, **more, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _refusal(f"The aligned model {folder} has no tokenizer that can be read", error) from error


def load_model(folder: Path, dtype: str | torch.dtype, *, pickled: bool, **more: Any) -> Any:
    """The language model, in evaluation mode and without gradients; on the CPU where `more` does not say otherwise.

    Args:
        folder: a Hugging Face folder, or a GGUF file.
        dtype: `auto` for as stored, else a precision.
        pickled: whether its weights are pickled (the caller has decided that this is allowed).
        more: as of transformers' `from_pretrained`.

    Raises:
        CheckpointError: it cannot be read, lacks weights, which would be left at random numbers, or has weights that
            find no place.
    """
    files = WeightFiles.of_model(folder, allow_pickle=pickled)
    place, gguf = _place(folder)
    config = load_config(folder)
    fixed = {"dtype": dtype, "weights_only": True, "trust_remote_code": False, "output_loading_info": True}
    options = {**more, **fixed, **({"config": config} if gguf else {})}
    try:
        with no_progress_bar():
            if files.wrapped:
                # The names must be cleaned before transformers sees them.
                tensors = dict(files.tensors())
                model_class = _auto_class(config)._model_mapping[type(config)]
                if dtype == "auto":
                    options["dtype"] = config.dtype or next(iter(tensors.values())).dtype
                del options["trust_remote_code"]
                loaded: Any = model_class.from_pretrained(None, config=config, state_dict=tensors, **options)
            else:
                loaded = _auto_class(config).from_pretrained(
                    place, **gguf, use_safetensors=not pickled, local_files_only=True, **options
                )
    except _FAULTS as error:
        raise _refusal(f"{folder} cannot be loaded", error) from error
    model, info = loaded
    missing = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if missing:
        raise CheckpointError(
            f"{folder} is an incomplete checkpoint",
            got=f"no usable weights for {missing[0]}, {len(missing)} in all",
            expected="weights for every parameter",
        )
    check_all_placed(folder, map(str, info["unexpected_keys"]), model)
    return model.eval().requires_grad_(False)


def move_parameters(fresh: Any, model: Any) -> None:
    """Give `model` the very parameters of `fresh`, so that embedding and head are one where the checkpoint has one."""
    for name, parameter in list(fresh.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = parameter
    for name, buffer in model.named_buffers():
        buffer.copy_(fresh.get_buffer(name))
    model.config.tie_word_embeddings = fresh.config.tie_word_embeddings


def check_all_placed(folder: Path, names: Iterable[str], model: Any) -> None:
    """Refuse weights that have no place in the model, but for what transformers passes over itself.

    Args:
        folder: the checkpoint.
        names: of its tensors that found no place.
        model: the model.

    Raises:
        CheckpointError: names them.
    """
    patterns = (*_PASSED_OVER, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()))
    left = sorted(name for name in names if not any(re.search(pattern, name) for pattern in patterns))
    if left:
        raise CheckpointError(
            f"{folder} holds weights that have no place in {type(model).__name__}",
            got=", ".join(left[:5]) + (f", … {len(left)} in all" if len(left) > 5 else ""),
            expected="a language model of this architecture, and nothing on top",
            next_step="A head of another task, or an adapter that was not merged, would be dropped unsaid.",
        )


def _place(folder: Path) -> tuple[str, dict[str, str]]:
    """What transformers' loaders take for a folder, or for a GGUF file."""
    return (str(folder.parent), {"gguf_file": folder.name}) if folder.is_file() else (str(folder), {})


def _auto_class(config: Any) -> Any:
    """The family of loaders for a configuration: language models, or wrappers that also see."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    causal = type(config) in AutoModelForCausalLM._model_mapping
    seeing = type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if seeing and not causal else AutoModelForCausalLM


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


def _refusal(summary: str, error: Exception) -> CheckpointError:
    text = str(error).strip().splitlines()
    return CheckpointError(summary, got=text[0][:300] if text else type(error).__name__)
