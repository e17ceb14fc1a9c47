"""What the folder of a PEFT adapter says before it is attached: whether it can be read, and how it begins."""

from __future__ import annotations

import importlib
from pathlib import Path

from probes.errors import CheckpointError
from probes.lineage import ADAPTER_CONFIG, ADAPTER_TASKS
from probes.models.source import read_json

# Values of `init_lora_weights` that draw the factors alone; the others (PiSSA, OLoRA, LoftQ, …) rewrite the base.
_LEAVE_THE_BASE = ("true", "false", "gaussian", "orthogonal", "eva")
# What peft runs in its own wrapper around the model, so that the blocks alone would compute something else.
BOUND_TO_WRAPPER = {
    "POLY": "mixes its parts by the id of a task",
    "XLORA": "weighs its parts by a first pass of its own",
    "SHADOW": "passes a second stream from block to block",
}

# Tuners of ours, by peft's name of the type: the package that makes peft know it.
_OURS = {"BARA": "probes.training.bara"}


def check_adapter(folder: Path) -> None:
    """Refuse what is no adapter of a language model's weights, before its base is looked for.

    Raises:
        CheckpointError: it is of a classifier, puts tokens before the prompt, or runs only in peft's own wrapper.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    task = config.get("task_type")
    if task not in ADAPTER_TASKS:
        raise CheckpointError(
            f"The adapter {folder} is not of a language model", got=f"task_type {task}", expected="CAUSAL_LM"
        )
    kind = str(config.get("peft_type"))
    reason = BOUND_TO_WRAPPER.get(kind)
    if config.get("alora_invocation_tokens"):
        kind, reason = "aLoRA", "begins at its invocation tokens"
    if reason:
        raise CheckpointError(
            f"The adapter {folder} is more than weights",
            got=f"{kind}, which {reason}",
            expected="an adapter of the weights, such as LoRA",
        )


def introduce(folder: Path) -> None:
    """Make peft know the tuner of the adapter in `folder`, where it is one of ours."""
    package = _OURS.get(str(read_json(folder / ADAPTER_CONFIG).get("peft_type")))
    if package is not None:
        importlib.import_module(package)


def leaves_the_base(folder: Path) -> bool:
    """Whether its initialisation draws the factors alone, and writes over no weight of the base."""
    return _initialisation(folder).startswith(_LEAVE_THE_BASE)


def drawn_anew(folder: Path) -> str | None:
    """A word on an adapter whose base is made by a randomised decomposition whenever it is attached."""
    if "_niter_" not in _initialisation(folder):
        return None
    return (
        f"The adapter {folder.name} starts from a randomised decomposition of its base, which peft draws anew at each "
        "loading: it is drawn with seed 0 here, which need not be how it was trained."
    )


def _initialisation(folder: Path) -> str:
    return str(read_json(folder / ADAPTER_CONFIG).get("init_lora_weights", True)).lower()
