"""BaRA on a whole model, as peft puts its tuners on one."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from peft.utils.other import get_pattern_key
from torch import nn

from probes.errors import UsageError
from probes.training.bara.gated_linear import BaraLayer, BaraLinear


class BaraModel(BaseTuner):
    """A model whose targeted linear layers carry gated rank-one terms."""

    prefix = "bara_"
    tuner_layer_cls = BaraLayer
    target_module_mapping: Any = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,  # noqa: ARG002
    ) -> None:
        key = get_pattern_key(list(peft_config.rank_pattern), current_key)
        r = peft_config.rank_pattern.get(key, peft_config.r)
        if isinstance(target, BaraLayer):
            target.update_layer(adapter_name, r, peft_config)
            return
        if not isinstance(target, nn.Linear):
            raise TypeError(f"BaRA adapts linear layers, and {current_key} is a {type(target).__name__}")
        layer = BaraLinear(target, adapter_name, r, peft_config)
        if adapter_name != self.active_adapter:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def kl_penalty(model: nn.Module) -> torch.Tensor:
    """The weighted divergence of all gates from their prior in the last pass of training, to be added to its loss.

    For each adapted module the divergence of its global gate and the mean over tokens of that of its local one; of
    modules the mean. In nats, times `kl_weight`; 0 where no module was passed in training. It can be read once a pass.

    Raises:
        UsageError: the pass was made without a gradient, as reentrant gradient checkpointing makes it.
    """
    penalties = []
    for layer in (module for module in model.modules() if isinstance(module, BaraLayer)):
        if layer.kl is not None:
            if torch.is_grad_enabled() and not layer.kl.requires_grad and _is_trained(layer):
                raise UsageError(
                    "BaRA's penalty has no gradient",
                    got="a pass without gradients, as of gradient checkpointing with use_reentrant=True",
                    next_step="Set use_reentrant=False, or train without gradient checkpointing.",
                )
            penalties.append(layer.kl * layer.bara_settings[layer.active_adapters[0]].kl_weight)
            layer.kl = None
    return torch.stack(penalties).mean() if penalties else torch.zeros(())


def _is_trained(layer: BaraLayer) -> bool:
    return layer.bara_global[layer.active_adapters[0]].requires_grad
