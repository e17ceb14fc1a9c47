"""PEFT adapters: attached to a base that stays in memory, and taken off again without a trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from probes.errors import CheckpointError

_NAME = "default"
_NO_SHAM = "A sham drift cannot be drawn for this adapter"


class Attached:
    """An adapter on a model; `detach()` gives the model its own modules back."""

    def __init__(self, model: nn.Module, folder: Path, device: torch.device) -> None:
        """Attach the adapter in `folder` to `model`, in place.

        Raises:
            CheckpointError: it is damaged, does not fit this base, or changes the prompt and not the weights.
        """
        from peft import PeftConfig, PeftModel

        self._model = model
        self._own = dict(model.named_modules())
        try:
            config = PeftConfig.from_pretrained(str(folder))
            if config.is_prompt_learning:
                raise CheckpointError(
                    f"The adapter {folder} puts trained tokens before the prompt",
                    got=str(config.peft_type),
                    expected="an adapter of the weights, such as LoRA",
                )
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                PeftModel.from_pretrained(model, str(folder), config=config, torch_device=str(device))
            absent = [str(each.message) for each in caught if "missing adapter keys" in str(each.message)]
            if absent:
                raise CheckpointError(f"The adapter {folder} does not fit its base", got=absent[0][:200])
        except BaseException as error:
            self.detach()
            if isinstance(error, ValueError | RuntimeError | OSError | KeyError | TypeError):
                raise CheckpointError(
                    f"The adapter {folder} cannot be attached",
                    got=str(error).splitlines()[0],
                    next_step="Check that it was trained on this base.",
                ) from error
            raise
        model.eval().requires_grad_(False)

    def detach(self) -> None:
        """Put every module of the model back where it was. (peft's own `unload` keeps `modules_to_save`.)"""
        for path, module in self._own.items():
            parent, _, child = path.rpartition(".")
            if path and getattr(self._own[parent], child) is not module:
                setattr(self._own[parent], child, module)
        for left_over in ("peft_config", "_hf_peft_config_loaded"):
            if left_over in vars(self._model):
                delattr(self._model, left_over)

    def changes(self) -> Iterator[Change]:
        """What the adapter adds to each base parameter.

        Raises:
            CheckpointError: it is no plain LoRA, so that its change is no product of two factors.
        """
        from peft.tuners.lora import LoraLayer
        from peft.utils import ModulesToSaveWrapper

        for path in list(self._own):
            module: Any = self._model.get_submodule(path)
            if isinstance(module, ModulesToSaveWrapper):
                yield from _replaced(path, module)
            elif isinstance(module, LoraLayer):
                yield _low_rank(path, module)
            elif hasattr(module, "base_layer"):
                raise CheckpointError(_NO_SHAM, got=type(module).__name__, expected="LoRA layers")


class Change(NamedTuple):
    """What an adapter adds to the parameter `name`: `left @ right`, or `left` alone if it is of full rank."""

    name: str
    left: torch.Tensor
    right: torch.Tensor | None


def product_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Frobenius norm of `left @ right`, from the two small Gram matrices: ‖AB‖² = tr(AᵀA BBᵀ)."""
    left, right = left.double(), right.double()
    return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())


def _low_rank(path: str, module: Any) -> Change:
    if module.use_dora.get(_NAME):
        raise CheckpointError(_NO_SHAM, got="DoRA", expected="plain LoRA")
    scale = module.scaling[_NAME]
    if _NAME in module.lora_embedding_A:
        left, right = module.lora_embedding_A[_NAME].T, module.lora_embedding_B[_NAME].T
    else:
        left, right = module.lora_B[_NAME].weight, module.lora_A[_NAME].weight
    return Change(f"{path}.weight", (left * scale).detach().float(), right.detach().float())


def _replaced(path: str, module: Any) -> Iterator[Change]:
    trained = dict(module.modules_to_save[_NAME].named_parameters())
    for name, original in module.original_module.named_parameters():
        yield Change(f"{path}.{name}", (trained[name] - original).detach().float(), None)
