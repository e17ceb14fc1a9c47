"""The model that is being trained: found inside its wrappers, read without a trace, refused where it is in pieces."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from probes.guard.guarded_direction import GuardError
from probes.models.view import ModelView, unwrap

_RATES = ("attention_dropout", "layerdrop", "router_jitter_noise")  # that no module of its own stands for


class LiveModel(ModelView):
    """A model in training, adapters in their places; it holds whatever training has made of the weights."""

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        """Find the parts of `model`, which may be wrapped by data parallelism or peft.

        Raises:
            GuardError: its parameters are sharded, or in 4 bits on a CPU.
            CheckpointError: its architecture is not supported.
        """
        refuse_sharded(model)
        refuse_packed(model)
        with undisturbed(unwrap(model)):
            super().__init__(model, tokenizer)


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a model of which this process holds only pieces of parameters.

    Raises:
        GuardError: it is wrapped by FSDP, its parameters are distributed tensors, or DeepSpeed ZeRO-3 has them.
    """
    sharding = None
    if any(type(module).__name__ in ("FullyShardedDataParallel", "FSDPModule") for module in model.modules()):
        sharding = "FSDP"
    for parameter in model.parameters():
        if hasattr(parameter, "ds_id") or hasattr(parameter, "ds_shape"):
            sharding = "DeepSpeed ZeRO-3"
        elif hasattr(parameter, "device_mesh") and hasattr(parameter, "placements"):
            sharding = "FSDP or tensor parallelism (distributed tensors)"
    if sharding is not None:
        raise GuardError(
            "The guard does not support sharded parameters",
            got=sharding,
            expected="whole parameters on every process: one device, or DistributedDataParallel",
            next_step="Train with LoRA under DistributedDataParallel, or measure the checkpoints afterwards.",
        )


def refuse_packed(model: nn.Module) -> None:
    """Refuse a model in 4 bits on a CPU.

    For speed, bitsandbytes packs such weights at the first pass without gradients, as a guard makes them, and then
    hands no gradient on to the blocks before: adapters there would be left untrained, without a word. On accelerators
    a quantised base is trained as peft does it, and held against the run that it is guarded by like any other.

    Raises:
        GuardError: it is one.
    """
    packed = (parameter for parameter in model.parameters() if type(parameter).__name__ == "Params4bit")
    if any(parameter.device.type == "cpu" for parameter in packed):
        raise GuardError(
            "The guard does not train on a base in 4 bits on a CPU, where bitsandbytes loses gradients after a reading",
            expected="the base as it is stored, or an accelerator",
            next_step="Load the base without load_in_4bit.",
        )


def dropout_rate(model: nn.Module) -> float:
    """The largest share of anything that training leaves out at random; 0 where every pass is like the next."""
    config: Any = getattr(model, "config", None)
    rates = [float(getattr(config, name, 0.0) or 0.0) for name in _RATES]
    return max([*rates, *(module.p for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd))])


@torch.no_grad()
def draws_numbers(model: nn.Module) -> bool:
    """Whether a pass of the model as it stands takes random numbers, as dropout, PVeRA and BaRA do in training.

    The random states of the processor and of the model's device are put back.
    """
    device = next(model.parameters()).device
    generators: list[Any] = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    states = [generator.get_rng_state() for generator in generators]
    try:
        model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=device), use_cache=False)
        return any(
            not torch.equal(generator.get_rng_state(), state)
            for generator, state in zip(generators, states, strict=True)
        )
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_rng_state(state)


@contextlib.contextmanager
def undisturbed(model: nn.Module, tokenizer: Any = None) -> Iterator[None]:
    """Read the model in evaluation mode; on leaving, also by an exception, everything is as it was.

    Put back: training mode module by module, `use_cache`, the tokenizer's padding side, and the random states of
    Python, numpy and torch on every device. Evaluation mode also leaves out dropout and gradient checkpointing.
    """
    modes = [(module, module.training) for module in model.modules() if module.training]
    config: Any = getattr(model, "config", None)
    cache, side = getattr(config, "use_cache", None), getattr(tokenizer, "padding_side", None)
    states = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            model.eval()
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            if cache is not None:
                config.use_cache = cache
            if side is not None:
                tokenizer.padding_side = side
            random.setstate(states[0])
            np.random.set_state(states[1])
