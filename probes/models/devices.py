"""Where a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from probes.errors import UsageError


def find_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA if it is there, else MPS, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UsageError(
                f"There is no device {name} here", got=str(error).splitlines()[0], expected="auto, cpu, cuda or mps"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def input_device(model: nn.Module) -> torch.device:
    """Where a model's first module computes, which is where token ids have to be.

    That is where its weights are, but for those that accelerate holds elsewhere and brings in as they are needed.
    """
    module = next(module for module in model.modules() if next(module.parameters(recurse=False), None) is not None)
    own = next(module.parameters(recurse=False)).device
    if own.type != "meta":
        return own
    place = next((hook.execution_device for hook in accelerate_hooks(module)), None)
    return own if place is None else torch.device(place)


def accelerate_hooks(model: nn.Module) -> Iterator[Any]:
    """The hooks by which accelerate brings inputs and weights to where a module computes."""
    for module in model.modules():
        hook: Any = getattr(module, "_hf_hook", None)
        for single in getattr(hook, "hooks", () if hook is None else (hook,)):
            if hasattr(single, "execution_device"):
                yield single
