"""Where a model runs."""

from __future__ import annotations

import torch

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
