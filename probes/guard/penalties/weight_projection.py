"""A defence among weights: after every step the drift is put back into the span of alignment's own weight change."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardError
from probes.guard.penalties.effect import Effect
from probes.guard.reading import Reader

_LORA = ".lora_B.default.weight"


class SafeLora(Effect):
    """θ ← θ_S + PΔ for every matrix, P the exact projector onto the leading columns of V = θ_S − θ_H.

    After Safe LoRA (arXiv 2405.16833), with two changes: its VVᵀ/‖V‖ is no projector, and all of V's columns span
    everything after full fine-tuning, so the leading ones are taken that hold `share` of ‖V‖². Of an adapter BA the
    factor B is projected, which is the same. Tensors with one axis, and those that alignment left alone, are free.
    """

    def __init__(self, back: Mapping[str, Tensor], *, share: float = 0.9) -> None:
        """Find the spans.

        Args:
            back: θ_H − θ_S by the base model's parameter names.
            share: of ‖V‖² that the span holds, in (0, 1].
        """
        super().__init__()
        self._spans = {
            name: _span(tensor, share) for name, tensor in back.items() if tensor.ndim == 2 and bool(tensor.any())
        }

    def prepare(self, reader: Reader) -> None:
        """Keep θ_S of the trained matrices."""
        trained = {_base_name(name) for name, tensor in reader.model.named_parameters() if tensor.requires_grad}
        if not trained & set(self._spans):
            raise GuardError("None of the trained weights was moved by alignment", expected="matrices that were")
        for name, parameter in reader.model.named_parameters():
            if parameter.requires_grad and name in self._spans:
                self.tensors[name] = parameter.detach().clone()

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Project every trained matrix's drift."""
        for name, parameter in model.named_parameters():
            span = self._spans.get(_base_name(name))
            if span is None or not parameter.requires_grad:
                continue
            span = span.to(parameter)
            if name.endswith(_LORA):
                parameter.copy_(span @ (span.T @ parameter))
            elif name in self.tensors:
                base = self.tensors[name].to(parameter)
                parameter.copy_(base + span @ (span.T @ (parameter - base)))


def _span(tensor: Tensor, share: float) -> Tensor:
    """Orthonormal leading left singular vectors that hold `share` of the squared norm, [row, rank]."""
    axes, sizes, _ = torch.linalg.svd(tensor.double(), full_matrices=False)
    held = sizes.square().cumsum(0) / sizes.square().sum()
    return axes[:, : int((held < share).sum()) + 1].float()


def _base_name(name: str) -> str:
    """The base model's name of a parameter: peft puts `base_layer` and its factors behind the module's name."""
    return name.removesuffix(_LORA) + ".weight" if name.endswith(_LORA) else name
