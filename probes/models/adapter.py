"""PEFT adapters: attached to a base that stays in memory, and taken off again without a trace."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from probes.errors import CheckpointError
from probes.lineage import ADAPTER_CONFIG
from probes.models.adapter_folder import check_adapter, drawn_anew, introduce, leaves_the_base
from probes.models.pristine import Pristine
from probes.models.source import read_json
from probes.models.weights import WeightFiles

_NAME = "default"
_PREFIX = "base_model.model."
_NO_SHAM = "A sham drift cannot be drawn for this adapter"
_FAULTS = (
    *(OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ArithmeticError, AssertionError),
    ImportError,
)


class Attached:
    """An adapter on a model; `detach()` gives the model its own modules and weights back.

    Attributes:
        notice: a sentence on how it is measured, where that needs saying; None otherwise.
    """

    def __init__(self, model: nn.Module, folder: Path, device: torch.device, *, allow_pickle: bool = False) -> None:
        """Attach the adapter in `folder` to `model`, in place.

        Raises:
            CheckpointError: it is damaged, does not fit this base, or is no adapter of the weights.
        """
        shapes = WeightFiles.of_adapter(folder, allow_pickle=allow_pickle).shapes()
        self._model = model
        self._own = Pristine(model, {_own_name(name) for name in shapes})
        try:
            check_adapter(folder)
            introduce(folder)
            self._resize(shapes)
            self._give_memory(folder)
            _attach(model, folder, device, shapes.keys())
        except BaseException as error:
            self.detach()
            if isinstance(error, _FAULTS):
                raise CheckpointError(
                    f"The adapter {folder} cannot be attached",
                    got=(str(error).splitlines() or [type(error).__name__])[0],
                    next_step="Check that it was trained on this base.",
                ) from error
            raise
        model.eval().requires_grad_(False)
        self.notice = self._unmergeable(folder) or drawn_anew(folder)

    def detach(self) -> None:
        """Put every module and every weight of the model back. (peft's own `unload` keeps much of its own.)"""
        self._own.restore()

    def changes(self) -> Iterator[Change]:
        """What the adapter adds to each base parameter: the merged weight less the one before. The adapter is spent.

        Raises:
            CheckpointError: it cannot be merged into the weights.
        """
        for path, own in self._own.modules.items():
            try:
                module: Any = self._model.get_submodule(path)
            except AttributeError as error:
                raise CheckpointError(_NO_SHAM, got=str(error), expected="one that can be merged") from error
            if module is not own:
                yield from self._changes_of(path, own, module)
        yield from self._overwritten()

    def factors(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]] | None:
        """By the base's parameter, two factors whose product the adapter adds; None where it does more."""
        paths = [path for path in self._own.modules if self._is_wrapped(path)]
        modules = {f"{path}.weight": self._model.get_submodule(path) for path in paths}
        plain = all(_is_plain_lora(module) and not self._own.is_replaced(name) for name, module in modules.items())
        if not plain or any(self._written_over(self._own.copied)):
            return None
        changes = {name: _low_rank(name, module) for name, module in modules.items()}
        return {name: (change.left, change.right) for name, change in changes.items() if change.right is not None}

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give the vocabulary as many rows as an adapter has that was saved with its embeddings."""
        model: Any = self._model
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        weights = [id(end.weight) for end in ends if end is not None]
        vocabulary = {
            name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in weights
        }
        rows = {shape[0] for name, shape in shapes.items() if _own_name(name) in vocabulary}
        if len(rows) == 1 and rows != {ends[0].weight.shape[0]}:
            model.resize_token_embeddings(rows.pop(), mean_resizing=False)

    def _give_memory(self, folder: Path) -> None:
        """Let an initialisation that writes over the base's weights do so in a copy of those that it targets."""
        from peft import PeftConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        if leaves_the_base(folder):
            return
        config = PeftConfig.from_pretrained(str(folder))
        for path in self._own.modules:
            name = f"{path}.weight"
            if name in self._own.parameters and check_target_module_exists(config, path):
                self._own.parameters[name].data = self._own.parameters[name].data.clone()

    def _changes_of(self, path: str, own: nn.Module, module: Any) -> Iterator[Change]:
        weight = f"{path}.weight"
        if _is_plain_lora(module) and not self._own.is_replaced(weight):
            yield _low_rank(weight, module)
            yield from self._written_over(f"{path}.{name}" for name, _ in own.named_parameters(recurse=False))
            return
        held = self._own.parameters.get(weight)
        if held is not None and not held.is_floating_point():
            raise CheckpointError(
                _NO_SHAM, got=f"{type(module).__name__} on quantised weights", expected="plain LoRA, or whole weights"
            )
        rank = 2 * module.r[_NAME] if _is_plain_lora(module) else _rank_left(module)
        names = [name for name, _ in own.named_parameters(recurse=False)]
        for name in names:
            parameter = self._own.parameters.get(f"{path}.{name}")
            if parameter is not None:
                parameter.data = parameter.data.float().clone()
        try:
            merged = module if type(module) is type(own) else _merge(module)
        except (*_FAULTS, NotImplementedError) as error:
            raise CheckpointError(
                _NO_SHAM, got=f"{type(module).__name__}: {error}", expected="one that can be merged into the weights"
            ) from error
        weights = dict(merged.named_parameters())
        if weights.keys() - set(names):
            raise CheckpointError(
                _NO_SHAM, got=f"{path} with {sorted(weights.keys() - set(names))[0]}", expected="the base's parameters"
            )
        for name, trained in weights.items():
            whole = f"{path}.{name}"
            if whole in self._own.parameters:  # a tied head is the embedding's and comes with it
                before = self._own.data(whole)
                # Of a vocabulary that has grown, the rows that both have.
                difference = trained.detach()[: before.shape[0]].float() - before.float()
                yield Change(whole, difference, None, rank if name == "weight" else None)

    def _overwritten(self) -> Iterator[Change]:
        """Parameters outside of all tuners that came with the adapter, such as biases."""
        places = ((name, name.rpartition(".")[0]) for name in self._own.copied)
        yield from self._written_over(
            name for name, path in places if self._model.get_submodule(path) is self._own.modules[path]
        )

    def _written_over(self, names: Iterable[str]) -> Iterator[Change]:
        """What has changed in place, among the named parameters of which there is a copy."""
        for name in sorted(set(names).intersection(self._own.copied)):
            before = self._own.data(name)
            difference = self._own.parameters[name].detach()[: before.shape[0]].float() - before.float()
            if difference.any():
                yield Change(name, difference, None, None)

    def _unmergeable(self, folder: Path) -> str | None:
        """Whether one of its layers refuses to be merged, tried on a copy of it."""
        layers = [self._model.get_submodule(path) for path in self._own.modules if self._is_wrapped(path)]
        layers = [layer for layer in layers if not isinstance(layer, nn.Embedding | nn.Linear)]
        try:
            if layers:
                _merge(copy.deepcopy(min(layers, key=_n_numbers)))
        except (*_FAULTS, NotImplementedError):
            kind = read_json(folder / ADAPTER_CONFIG).get("peft_type")
            return (
                f"The adapter {folder.name} ({kind}) cannot be merged into the weights: it is measured as peft runs "
                "it, and there is no weight difference of it, nor a sham drift of its size."
            )
        return None

    def _is_wrapped(self, path: str) -> bool:
        parent, _, child = path.rpartition(".")
        own = self._own.modules
        return bool(path) and getattr(own[parent], child) is not own[path]


class Change(NamedTuple):
    """What an adapter adds to the parameter `name`: `left @ right`, or `left` alone; its rank where that is known."""

    name: str
    left: torch.Tensor
    right: torch.Tensor | None
    rank: int | None

    @property
    def full(self) -> torch.Tensor:
        """The difference itself, in the parameter's shape."""
        return self.left if self.right is None else self.left @ self.right


def product_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Frobenius norm of `left @ right`, from the two small Gram matrices: ‖AB‖² = tr(AᵀA BBᵀ)."""
    left, right = left.double(), right.double()
    return float(((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt())


def _attach(model: nn.Module, folder: Path, device: torch.device, names: Collection[str]) -> None:
    from peft import PeftConfig, PeftModel

    class Recording(PeftModel):
        """Keeps what peft's loading says of tensors that have no place, which `from_pretrained` drops."""

        unexpected: tuple[str, ...] = ()

        def load_adapter(self, *args: Any, **kwargs: Any) -> Any:
            result = super().load_adapter(*args, **kwargs)
            self.unexpected = tuple(result.unexpected_keys)
            return result

    config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise CheckpointError(
            f"The adapter {folder} puts trained tokens before the prompt",
            got=str(config.peft_type),
            expected="an adapter of the weights, such as LoRA",
        )
    config.task_type = None  # has peft take the class given here; it matters to generation alone
    with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng():
        warnings.simplefilter("always")
        torch.manual_seed(0)
        wrapper = Recording.from_pretrained(model, str(folder), config=config, torch_device=str(device))
    absent = [str(warning.message) for warning in caught if "missing adapter keys" in str(warning.message)]
    if absent:
        raise CheckpointError(f"The adapter {folder} does not fit its base", got=absent[0][:200])
    left = [name for name in wrapper.unexpected if _trained_name(name) == name or _trained_name(name) not in names]
    if left:
        raise CheckpointError(
            f"The adapter {folder} holds tensors that have no place in its base",
            got=", ".join(left[:5]),
            expected="an adapter of this very architecture",
        )


def _trained_name(name: str) -> str:
    """The name under which peft writes what it also writes as a copy, where embeddings were resized and trained."""
    return re.sub(r"\.(modules_to_save|original_module)\.", ".", name)


def _own_name(name: str) -> str:
    """The base's name of a tensor in an adapter's file, if it is one of the base's own."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _merge(module: Any) -> nn.Module:
    """The base's module with an adapter merged into it, as peft's own `merge_and_unload` does it."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    module.merge()
    return module.get_base_layer()


def _n_numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_plain_lora(module: Any) -> bool:
    """Whether a layer adds the product of two factors, and that alone."""
    from peft.tuners import lora

    quantised = (getattr(lora, name, None) for name in ("Linear4bit", "Linear8bitLt"))  # with bitsandbytes alone
    return (
        type(module) in (lora.Linear, lora.Embedding, *quantised)
        and _NAME not in module.lora_variant
        and not module.lora_bias.get(_NAME)
    )


def _rank_left(module: Any) -> int | None:
    """The rank that AdaLoRA's budget has left a matrix; None of any other tuner, whose change may be of full rank."""
    from peft.tuners.adalora import AdaLoraLayer

    return len(module.lora_E[_NAME]) if isinstance(module, AdaLoraLayer) else None


def _low_rank(name: str, module: Any) -> Change:
    scale = module.scaling[_NAME]
    if _NAME in module.lora_embedding_A:
        left, right = module.lora_embedding_A[_NAME].T, module.lora_embedding_B[_NAME].T
    else:
        left, right = module.lora_B[_NAME].weight, module.lora_A[_NAME].weight
        if module.fan_in_fan_out:  # GPT-2 keeps its matrices the other way round
            left, right = right.T, left.T
    return Change(name, (left * scale).detach().float(), right.detach().float(), right.shape[0])
