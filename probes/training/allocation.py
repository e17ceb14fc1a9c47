"""What a checkpoint of AdaLoRA lacks to go on from: peft cuts its factors to their ranks, and keeps no sensitivities.

The whole factors, the running means that ranks are shared out by, and the ranks themselves lie in a file beside the
adapter's, so that a training that was interrupted ends with the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from probes.training.tuners import ADALORA, tuner_on

ALLOCATION = "allocation.safetensors"
_MEANS = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # as peft's allocator calls sensitivities and what it smooths of them


def save_allocation(model: nn.Module, folder: Path) -> None:
    """Write the file into a checkpoint, where the model's tuner shares ranks out; else nothing."""
    tuner = tuner_on(model)
    if not hasattr(tuner, "rankallocator"):
        return
    pattern = _config(tuner).rank_pattern or {}
    parts: dict[str, dict[str, Tensor]] = {
        "weight": {name: weight.detach() for name, weight in tuner.model.named_parameters() if weight.requires_grad},
        "rank_pattern": {name: torch.tensor(mask) for name, mask in pattern.items()},
        **{mean: getattr(tuner.rankallocator, mean) for mean in _MEANS},
    }
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / ALLOCATION)


def restore_allocation(model: nn.Module, folder: Path) -> bool:
    """Put weights, ranks and running means of a checkpoint back, in place; False where it holds no such file."""
    if not (folder / ALLOCATION).is_file():
        return False
    tuner, parts = tuner_on(model), dict[str, dict[str, Tensor]]()
    for key, tensor in load_file(folder / ALLOCATION).items():
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = tensor
    weights = dict(tuner.model.named_parameters())
    with torch.no_grad():
        for name, tensor in parts["weight"].items():
            weights[name].copy_(tensor)
    for mean in _MEANS:
        values = {name: tensor.to(weights[name].device) for name, tensor in parts.get(mean, {}).items()}
        setattr(tuner.rankallocator, mean, values)
    _config(tuner).rank_pattern = {name: mask.tolist() for name, mask in parts.get("rank_pattern", {}).items()} or None
    return True


def begins_anew(name: str, folder: Path | None = None) -> bool:
    """Whether a training by this tuner that is interrupted, behind a checkpoint in a folder, cannot go on from there.

    No checkpoint of AdaMSS holds what its ranks came from, and none of AdaLoRA that an earlier version wrote.
    """
    lost = folder is not None and not (folder / ALLOCATION).is_file()
    return name == "adamss" or (name == ADALORA and lost)


def _config(tuner: Any) -> Any:
    return tuner.peft_config[tuner.trainable_adapter_name]
