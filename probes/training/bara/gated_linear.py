"""A linear layer with gated rank-one terms."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from probes.training.bara.config import BaraConfig


class BaraLayer(BaseTunerLayer):
    """What a module with BaRA adapters holds, by adapter's name.

    Attributes:
        kl: divergence of the gates from their prior in the last pass of training; None where there was none.
        gates: where a list, every pass appends its gates [..., term]; None elsewhere.
    """

    adapter_layer_names = ("bara_A", "bara_B", "bara_global", "bara_local", "bara_offset")
    other_param_names = ("r", "bara_settings", "bara_dropout")

    def __init__(self, base_layer: nn.Module) -> None:
        self.base_layer = base_layer
        self.r: dict[str, int] = {}
        self.bara_settings: dict[str, BaraConfig] = {}
        self.bara_dropout = nn.ModuleDict()
        self.bara_A, self.bara_B = nn.ParameterDict(), nn.ParameterDict()
        self.bara_global, self.bara_local, self.bara_offset = (nn.ParameterDict() for _ in range(3))
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.kl: torch.Tensor | None = None
        self.gates: list[torch.Tensor] | None = None
        base = self.get_base_layer()
        self.in_features, self.out_features = int(base.in_features), int(base.out_features)  # type: ignore[arg-type]

    def update_layer(self, adapter_name: str, r: int, config: BaraConfig) -> None:
        """Give the layer another adapter."""
        self.r[adapter_name], self.bara_settings[adapter_name] = r, config
        self.bara_dropout[adapter_name] = nn.Dropout(config.bara_dropout)
        logit = math.log(config.initial / (1 - config.initial))
        self.bara_A[adapter_name] = nn.Parameter(torch.empty(r, self.in_features))
        self.bara_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features, r))
        self.bara_global[adapter_name] = nn.Parameter(torch.full((r,), logit))
        self.bara_local[adapter_name] = nn.Parameter(torch.zeros(r, r))
        self.bara_offset[adapter_name] = nn.Parameter(torch.full((r,), logit))
        nn.init.kaiming_uniform_(self.bara_A[adapter_name], a=math.sqrt(5))
        if not config.init_weights:
            nn.init.kaiming_uniform_(self.bara_B[adapter_name], a=math.sqrt(5))
            nn.init.normal_(self.bara_local[adapter_name], std=1 / math.sqrt(r))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)


class BaraLinear(nn.Module, BaraLayer):
    """BaRA on a linear layer."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, r: int, config: BaraConfig) -> None:
        super().__init__()
        BaraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, config)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base layer's output, and what the active adapters add."""
        result = self.base_layer(x, *args, **kwargs)
        if not self.disable_adapters:
            for adapter in self.active_adapters:
                if adapter in self.bara_A:
                    result = result + self.terms(adapter, x.to(self.bara_A[adapter].dtype)).to(result.dtype)
        return result

    def terms(self, adapter: str, x: torch.Tensor) -> torch.Tensor:
        """What the adapter adds to the layer's output for inputs [..., in_features]."""
        config = self.bara_settings[adapter]
        inner = functional.linear(self.bara_dropout[adapter](x), self.bara_A[adapter])
        whole, local = self.bara_global[adapter], self._local_logits(adapter, inner)
        if self.training:
            gate = _draw_gate(whole, config.temperature) * _draw_gate(local, config.temperature)
            self.kl = _divergence(whole, config.prior).sum() + _divergence(local, config.prior).sum(-1).mean()
        else:
            gate = whole.sigmoid() * local.sigmoid()
        if self.gates is not None:
            self.gates.append(gate.detach())
        return functional.linear(gate * inner, self.bara_B[adapter]) * (config.bara_alpha / self.r[adapter])

    def _local_logits(self, adapter: str, inner: torch.Tensor) -> torch.Tensor:
        scaled = functional.rms_norm(inner, inner.shape[-1:], eps=1e-6)
        return functional.linear(scaled, self.bara_local[adapter], self.bara_offset[adapter])

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused: the gate is another one for each token, so no change of the weights does the same."""
        raise NotImplementedError("BaRA cannot be merged: its gate depends on the input")

    def unmerge(self) -> None:
        """Nothing to undo, as nothing is ever merged."""


def _draw_gate(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """A draw of the binary Concrete relaxation, with a gradient to its logits."""
    uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    return ((logits + uniform.logit()) / temperature).sigmoid()


def _divergence(logits: torch.Tensor, prior: float) -> torch.Tensor:
    """KL in nats from Bernoulli(prior) to Bernoulli(sigmoid(logits)), entry by entry."""
    is_open, log_open, log_shut = logits.sigmoid(), functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return is_open * (log_open - math.log(prior)) + (1 - is_open) * (log_shut - math.log(1 - prior))
