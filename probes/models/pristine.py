"""Whether a model's weights are still those that were loaded, and how to bring them back after something was attached.

peft puts modules of its own into the model, and some initialisations (PiSSA, OLoRA, LoftQ, …) give the base other
weights as well. Taking the modules out again leaves those weights behind. So everything is remembered before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Marks = Mapping[str, tuple[int, int]]


def marks(model: nn.Module) -> Marks:
    """Where each tensor lies and how often it was written: equal marks, and no in-place change past autograd's count.

    Costs nothing. Of weights that accelerate holds elsewhere it says nothing. What peft writes through `.data` does not
    count; for that there is `checksums`.
    """
    tensors = _own_tensors(model)
    return {name: (tensor.data_ptr(), tensor._version) for name, tensor in tensors.items() if not tensor.is_meta}


def checksums(model: nn.Module) -> dict[str, int]:
    """Sum of the bits of each tensor, as integers of 64 bits: one pass through memory.

    Weights that accelerate holds elsewhere are left out: nothing that is attached to the model reaches them.
    """
    tensors = _own_tensors(model)
    sums = {name: _bit_sum(tensor) for name, tensor in tensors.items() if not tensor.is_meta}
    return {name: int(total) for name, total in sums.items()}


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What is saved of a model. (Of one in 4 bits, `state_dict` would write over the weights as it reads them.)"""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        buffers = ((name, buffer) for name, buffer in module._buffers.items() if buffer is not None)
        saved = ((name, buffer) for name, buffer in buffers if name not in module._non_persistent_buffers_set)
        tensors.update((f"{path}.{name}" if path else name, buffer) for name, buffer in saved)
    return tensors


class Pristine:
    """A model as it was: its modules with all that they hold, and its parameters.

    No weights are copied, but for vectors (biases, norms), which are small, and for the parameters named as going to
    be overwritten. Where a parameter is given other memory meanwhile, its own is held on to.
    """

    def __init__(self, model: nn.Module, overwritten: Collection[str] = ()) -> None:
        """Remember `model`; `overwritten` names parameters that are about to be written over in place."""
        self.model = model
        self.modules: dict[str, nn.Module] = dict(model.named_modules())
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        self._data = {name: parameter.data for name, parameter in self.parameters.items()}
        self._copies = {name: data.clone() for name, data in self._data.items() if data.ndim < 2 or name in overwritten}
        self._insides = [(module, type(module), _inside(module)) for module in self.modules.values()]
        config: Any = getattr(model, "config", None)
        text = None if config is None else config.get_text_config()
        self._vocabulary = None if text is None else (text, text.vocab_size)

    def data(self, name: str) -> Tensor:
        """The parameter `name` as it was."""
        return self._copies.get(name, self._data[name])

    @property
    def copied(self) -> tuple[str, ...]:
        """Names of the parameters that may have been written over in place."""
        return tuple(self._copies)

    def is_replaced(self, name: str) -> bool:
        """Whether the parameter `name` has other memory now.

        What bitsandbytes has packed it packs otherwise as it goes, and keeps beside it how: that is left to it. Where
        its bits are others afterwards, `checksums` tell.
        """
        parameter = self.parameters[name]
        return parameter.is_floating_point() and parameter.data_ptr() != self._data[name].data_ptr()

    def restore(self) -> None:
        """Put everything back: classes, attributes, submodules, hooks, parameters and the memory they had."""
        for module, kind, inside in self._insides:
            module.__class__ = kind
            _refill(module.__dict__, inside)
        for name, parameter in self.parameters.items():
            if self.is_replaced(name):
                parameter.data = self._data[name]
            if name in self._copies:
                parameter.data.copy_(self._copies[name])
            parameter.grad = None
            parameter.requires_grad_(False)
        if self._vocabulary is not None:
            text, size = self._vocabulary
            text.vocab_size = size


def _inside(module: nn.Module) -> dict[str, Any]:
    """A module's attributes; its registers (submodules, parameters, hooks) are copied: they change in place."""
    return {name: _Register(value) if isinstance(value, dict) else value for name, value in vars(module).items()}


class _Register:
    """A dictionary and what was in it. It is refill, not exchanged: handles of hooks point at the very object."""

    def __init__(self, register: dict[Any, Any]) -> None:
        self.register, self.content = register, dict(register)

    def refill(self) -> dict[Any, Any]:
        self.register.clear()
        self.register.update(self.content)
        return self.register


def _refill(attributes: dict[str, Any], inside: Mapping[str, Any]) -> None:
    for name in attributes.keys() - inside.keys():
        del attributes[name]
    for name, value in inside.items():
        attributes[name] = value.refill() if isinstance(value, _Register) else value


def _bit_sum(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().reshape(-1)
    whole = flat.numel() * flat.element_size() % 8 == 0 and flat.storage_offset() * flat.element_size() % 8 == 0
    return flat.view(torch.int64 if whole else torch.uint8).sum(dtype=torch.int64)
