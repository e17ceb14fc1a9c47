"""Optimisers by name: one seam for ours, torch's classes, transformers' `optim=` names and `pytorch_optimizer`.

A name is looked for in that order: ours; then as torch names its class (`AdamW`, `NAdam`, `Muon`); then as transformers
writes it (`adamw_torch`, `sgd`, `adafactor`); then in `pytorch_optimizer` (`adamp`, `soap`, `muon`, `lorarite`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from probes.errors import UsageError, did_you_mean
from probes.training.options import check_options, parameter_types

ADAM = "Adam"


def _ddc() -> type[torch.optim.Optimizer]:
    from probes.training.ddc import DDC

    return DDC


# Our own optimisers: what gives the class when it is asked for. One with `of(model, params, …)` is made by that.
OWN: dict[str, Callable[[], type[torch.optim.Optimizer]]] = {"ddc": _ddc}
# Those that step a model's own weights alone, and no adapter's.
_FULL_ONLY = ("ddc",)

Parameters = Mapping[str, nn.Parameter]
_EXTRA = "pip install 'gravity-probe[optimizers]'"
_ON_MATRICES = ("muon", "muonclip", "adamuon", "adago", "normuon")  # of pytorch_optimizer, with AdamW for all else
_NEEDS_MODEL = ("lomo", "adalomo", "adammini")
_LOW_RANK = ("galore", "apollo")
_NOT_BY_GRADIENT = "takes its steps within the backward pass, where no guard can act"
_FAULTS = (ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError, AssertionError)


def optimizer(
    parameters: Parameters,
    name: str,
    learning_rate: float,
    weight_decay: float = 0.0,
    *,
    model: nn.Module | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """What steps these weights.

    Args:
        parameters: the trained weights by name.
        name: of the optimiser; see the module.
        learning_rate: its peak; a schedule multiplies it.
        weight_decay: of matrices; vectors (norms, biases) have none.
        model: that the weights are of; optimisers of ours may need it.
        options: its own.

    Raises:
        UsageError: there is no such optimiser or option (the nearest are named), a package is missing, or it cannot
            take the steps of a training under a guard.
    """
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if name not in (*OWN, *_torch_names()) and name in _transformers_names():
        make, preset, groups = _of_transformers(parameters, name, learning_rate, weight_decay, options)
    else:
        make, preset, groups = _class_of(name), {}, None
    known = parameter_types(make.__init__)
    settings = {**preset, **_rates(name, make, known, learning_rate), **check_options(name, options, _settable(known))}
    if "weight_decay" in known:
        settings["weight_decay"] = weight_decay  # where it is not told one, it has a default of its own
    if name in _torch_names() and "fused" in known and not options.get("foreach"):
        settings.setdefault("fused", True)
    _refuse(name, make)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights = groups or _groups(parameters, name, weight_decay, known)
            return make.of(model, weights, **settings) if hasattr(make, "of") else make(weights, **settings)
    except _FAULTS as error:
        raise UsageError(f"The optimiser {name} cannot be made", got=str(error)) from error


def check_optimizer(name: str, options: Mapping[str, Any], *, method: str = "full") -> None:
    """Refuse what cannot be made, or not for this tuner, before a model is loaded; errors as `optimizer`."""
    if name in _FULL_ONLY and method != "full":
        raise UsageError(
            f"{name} steps a model's own weights",
            got=f"--method {method}",
            expected="--method full",
            next_step="For an adapter choose another optimiser, such as lorarite.",
        )
    some = {"matrix.weight": nn.Parameter(torch.zeros(2, 2)), "norm.weight": nn.Parameter(torch.zeros(2))}
    if name in OWN:
        known = parameter_types(OWN[name]().__init__)
        check_options(name, options, _settable(known))
        return
    if name.startswith(_LOW_RANK) and name in _transformers_names() and not name.endswith("layerwise"):
        return  # these look for the linear layers of a model
    optimizer({"matrix.weight": some["matrix.weight"]} if name == "Muon" else some, name, 1e-3, **options)


def optimizer_names() -> tuple[str, ...]:
    """Every name that can be made here, whatever else its package is missing."""
    return (*OWN, *_transformers_names(), *_torch_names(), *_others())


def _transformers_names() -> tuple[str, ...]:
    from transformers.training_args import OptimizerNames

    return tuple(name.value for name in OptimizerNames)


def _torch_names() -> tuple[str, ...]:
    classes = {name: getattr(torch.optim, name) for name in dir(torch.optim) if not name.startswith("_")}
    base = torch.optim.Optimizer
    return tuple(
        name for name, kind in classes.items() if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    )


def _others() -> tuple[str, ...]:
    """The names of `pytorch_optimizer`; none where it is not installed."""
    try:
        from pytorch_optimizer.optimizer import OPTIMIZERS
    except ImportError:
        return ()
    return tuple(OPTIMIZERS)


def _class_of(name: str) -> Any:
    if name in OWN:
        return OWN[name]()
    if name in _torch_names():
        return getattr(torch.optim, name)
    foreign = _others()
    if name in foreign and name not in _NEEDS_MODEL:
        from pytorch_optimizer import load_optimizer

        return load_optimizer(name)
    if name in foreign:
        raise UsageError("This optimiser is not used", got=f"{name}, which {_NOT_BY_GRADIENT}, or takes a whole model")
    raise UsageError(
        "There is no such optimiser" + did_you_mean(name, optimizer_names(), most=3),
        got=repr(name),
        expected="a name of transformers' optim=, a class of torch.optim, or one of pytorch_optimizer",
        next_step=None if foreign else f"pytorch_optimizer is not installed: {_EXTRA}.",
    )


def _of_transformers(
    parameters: Parameters, name: str, learning_rate: float, weight_decay: float, options: dict[str, Any]
) -> tuple[Any, dict[str, Any], Any]:
    """Class, settings and groups of a name of transformers, as its Trainer makes them."""
    if name.endswith("layerwise") or name in _NEEDS_MODEL:
        raise UsageError("This optimiser is not used", got=f"{name}, which {_NOT_BY_GRADIENT}")
    from transformers import Trainer, TrainingArguments

    low_rank: dict[str, Any] = {"optim_target_modules": "all-linear"} if name.startswith(_LOW_RANK) else {}
    words = [f"{key}={options.pop(key)}" for key in list(options)] if low_rank else []
    arguments = TrainingArguments(
        output_dir="unused",
        optim=name,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        optim_args=",".join(words) or None,
        use_cpu=True,
        **low_rank,
    )
    try:
        make, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, _as_modules(parameters))
    except (ImportError, *_FAULTS) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"transformers cannot make the optimiser {name} here", got=message) from error
    return make, settings, settings.pop("params", None)


def _as_modules(parameters: Parameters) -> Any:
    """Matrices as the linear layers that GaLore and APOLLO look for; the weights are the very same."""
    modules = nn.ModuleDict()
    for number, weight in enumerate(parameters.values()):
        linear = weight.ndim == 2
        module = nn.Linear(1, 1, bias=False, device="meta") if linear else nn.Module()
        module.weight = weight  # type: ignore[assignment]
        modules[str(number)] = module
    return modules


def _settable(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a person may set; weights, gauges, learning rate and decay come from elsewhere."""
    fixed = ("self", "params", "lr", "weight_decay", "adamw_wd", "weights", "gauges")
    return {name: annotation for name, annotation in known.items() if name not in fixed}


def _rates(name: str, make: Any, known: Mapping[str, Any], learning_rate: float) -> dict[str, float]:
    """The learning rate, and that of the weights which AdamW steps: in the ratio in which the class has the two."""
    if "lr" not in known:
        raise UsageError("This optimiser takes no learning rate", got=name)
    if name not in _ON_MATRICES or "adamw_lr" not in known:
        return {"lr": learning_rate}
    defaults = inspect.signature(make.__init__).parameters
    return {"adamw_lr": learning_rate * defaults["adamw_lr"].default / defaults["lr"].default, "lr": learning_rate}


def _groups(parameters: Parameters, name: str, weight_decay: float, known: Mapping[str, Any]) -> Any:
    """The weights as groups: matrices apart where something holds for them alone."""
    if name in _ON_MATRICES and name not in OWN:
        return _muon_groups(parameters, weight_decay)
    if not weight_decay:
        return list(parameters.values())
    if "weight_decay" not in known:
        raise UsageError("This optimiser knows no weight decay", got=name, next_step="Leave --weight-decay out.")
    decaying = [weight for weight in parameters.values() if weight.ndim >= 2]
    vectors = [weight for weight in parameters.values() if weight.ndim < 2]
    groups = ({"params": decaying, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _muon_groups(parameters: Parameters, weight_decay: float) -> list[dict[str, Any]]:
    """Maps of hidden states for Muon; AdamW steps tables, which decay too, and vectors, which do not.

    The decay stands in each group: the class has one of its own for what AdamW steps, of tables and vectors alike.
    """
    matrices = {place: weight for place, weight in parameters.items() if weight.ndim >= 2}
    groups: tuple[dict[str, Any], ...] = (
        {"params": [weight for place, weight in matrices.items() if not _is_table(place)], "use_muon": True},
        {"params": [weight for place, weight in matrices.items() if _is_table(place)], "use_muon": False},
        {"params": [weight for weight in parameters.values() if weight.ndim < 2], "use_muon": False},
    )
    decays = (weight_decay, weight_decay, 0.0)
    return [{**group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True) if group["params"]]


def _is_table(name: str) -> bool:
    """Whether a weight is an embedding or the unembedding, which are no maps of hidden states to hidden states."""
    return any(part in name for part in ("embed", "lm_head", "wte", "wpe"))


def _refuse(name: str, make: Any) -> None:
    """Refuse what cannot step by the gradients that are there."""
    closure = inspect.signature(make.step).parameters.get("closure") if hasattr(make, "step") else None
    reason = None
    if closure is not None and closure.default is inspect.Parameter.empty:
        reason = "asks for the loss several times in a step"
    elif make is torch.optim.SparseAdam:
        reason = "takes sparse gradients alone"
    elif callable(getattr(make, "eval", None)) and callable(getattr(make, "train", None)):
        reason = "holds other weights while it trains than those that are to be measured and saved"
    if reason:
        raise UsageError("This optimiser is not used", got=f"{name}, which {reason}")
