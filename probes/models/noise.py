"""Seeded weight noise of given norms: what drifts as far as a fine-tuning run, in no direction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from probes.models.adapter import product_norm


class DriftNorms(dict[str, float]):
    """Frobenius norm ‖θ_T − θ_S‖ by parameter name.

    Attributes:
        ranks: rank of the difference, for parameters that a LoRA adapter changes; the others are of full rank.
    """

    def __init__(self, norms: Mapping[str, float], ranks: Mapping[str, int] | None = None) -> None:
        super().__init__(norms)
        self.ranks: dict[str, int] = dict(ranks or {})


def add_noise(parameters: Mapping[str, torch.Tensor], norms: Mapping[str, float], seed: int) -> None:
    """Add Gaussian noise in place, to each parameter with exactly its norm (before rounding to its precision).

    The noise of a parameter depends on the seed and its name alone, not on the others or their order. It is
    drawn on the CPU, so that it is the same on every device. A parameter with a rank in `norms.ranks` gets the
    product of two Gaussian factors of that rank.
    """
    ranks = norms.ranks if isinstance(norms, DriftNorms) else {}
    for name in sorted(norms):
        if norms[name] > 0:
            parameter = parameters[name]
            noise = _draw(tuple(parameter.shape), ranks.get(name), norms[name], _generator(seed, name))
            parameter.copy_(parameter.float() + noise.to(parameter.device))


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _draw(shape: tuple[int, ...], rank: int | None, norm: float, generator: torch.Generator) -> torch.Tensor:
    if rank is None:
        noise = torch.randn(shape, generator=generator)
        return noise * (norm / noise.norm())
    left = torch.randn(shape[0], rank, generator=generator)
    right = torch.randn(rank, shape[1], generator=generator)
    return (left * (norm / product_norm(left, right))) @ right
