"""Ways of fine-tuning by name: `full`, every tuner of peft's registry whose result can be measured, and our own.

`attach_tuner` puts one on a model; `end_step` tells those that reallocate their ranks that a step has been taken, which
neither peft nor transformers does; `auxiliary_loss` is what a tuner adds to the task's loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import UsageError, did_you_mean
from probes.models.adapter_folder import BOUND_TO_WRAPPER
from probes.training.options import check_options, types_of

FULL, LORA, DORA, ADALORA = "full", "lora", "dora", "adalora"


@dataclasses.dataclass(frozen=True)
class OwnTuner:
    """A tuner of ours.

    Attributes:
        config: gives the class of its configuration, registered with peft, when it is asked for.
        loss: what it adds to the task's loss, from the model that it is on, once a pass; None is nothing.
        ranks: the rank that it has on each module.
    """

    config: Callable[[], type]
    loss: Callable[[nn.Module], Tensor] | None = None
    ranks: Callable[[nn.Module], dict[str, int | float]] | None = None


def _bara_config() -> type:
    from probes.training.bara import BaraConfig

    return BaraConfig


def _bara_loss(model: nn.Module) -> Tensor:
    from probes.training.bara import kl_penalty

    return kl_penalty(model)


def _bara_ranks(model: nn.Module) -> dict[str, int | float]:
    from probes.training.bara import rank_by_module

    return {**rank_by_module(model)}


OWN: dict[str, OwnTuner] = {"bara": OwnTuner(_bara_config, loss=_bara_loss, ranks=_bara_ranks)}

_NAME = "default"
_ALL_LINEAR = "all-linear"
# peft puts these on other places than every linear layer, by its own table of architectures.
_OWN_PLACES = ("ia3", "ln_tuning", "trainable_tokens", "adaption_prompt", "beft", "vblora")
_LOOKS_AHEAD = {"LILY": "weighs its parts by a mean over all tokens, those to come among them"}
_BEFORE_THE_PROMPT = "puts trained tokens before the prompt, and leaves the weights as they are"
# What `init_lora_weights` may be: the base is left alone, or written over in a way that every loading repeats.
_INITIALISATIONS = ("true", "false", "gaussian", "orthogonal", "pissa", "olora")
_ATTACHING = (ValueError, TypeError, LookupError, RuntimeError, AttributeError, NotImplementedError, ArithmeticError)


def tuner_names() -> tuple[str, ...]:
    """Every name that `--method` takes, `full` first."""
    return (FULL, *sorted(_configurations()))


def _configurations() -> dict[str, Callable[[], type]]:
    """What gives the class of a tuner's configuration, by name."""
    from peft import LoraConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    measured: dict[str, Any] = {name: config for name, config in classes.items() if _reason_against(name) is None}
    own: dict[str, Callable[[], type]] = {name: tuner.config for name, tuner in OWN.items()}
    return {name: lambda config=config: config for name, config in (measured | {DORA: LoraConfig}).items()} | own


def _reason_against(name: str) -> str | None:
    """Why a tuner of peft's is none of ours."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = name.upper()
    classes = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind in classes and (issubclass(classes[kind], PromptLearningConfig) or kind == "CARTRIDGE"):
        return _BEFORE_THE_PROMPT
    return {**BOUND_TO_WRAPPER, **_LOOKS_AHEAD}.get(kind)


def check_tuner(name: str, options: Mapping[str, Any], *, steps: int, rank: int = 16) -> Any:
    """The configuration that a way of fine-tuning is attached by; None for `full`.

    Args:
        name: from `tuner_names`.
        options: of its configuration; what is left out is peft's own default, but that LoRA's scale is twice its
            rank and that linear layers are all adapted.
        steps: of the training, which AdaLoRA shares its ranks out over.
        rank: of LoRA and DoRA where the options say none.

    Raises:
        UsageError: there is no such tuner or option (the nearest are named), or it cannot be measured.
    """
    if name == FULL:
        check_options(FULL, options, {})
        return None
    configurations = _configurations()
    if name not in configurations:
        raise _no_such_tuner(name)
    config = configurations[name]()
    _refuse_rewriting(name, options)
    if name == ADALORA and "r" in options:
        raise UsageError(
            "adalora does not use r",
            got=f"r={options['r']}",
            expected="init_r, the rank that each module begins with, and target_r, their mean in the end",
        )
    checked = check_options(name, options, _option_types(config))
    try:
        return config(**_defaults(name, checked, steps, rank))
    except _ATTACHING as error:
        raise UsageError(f"{name} cannot be told this", got=str(error), expected="options that peft takes") from error


def _no_such_tuner(name: str) -> UsageError:
    names = tuner_names()
    reason = _reason_against(name)
    if reason:
        return UsageError("This tuner is not trained", got=f"{name}, which {reason}", expected=", ".join(names))
    hint = did_you_mean(name, names)
    return UsageError(f"There is no such way of fine-tuning{hint}", got=repr(name), expected=", ".join(names))


def _option_types(config: type) -> dict[str, Any]:
    """Type by name of a configuration's own fields; what peft keeps its books in is none of them."""
    from peft import PeftConfig

    books = {field.name for field in dataclasses.fields(PeftConfig)} | {"runtime_config"}
    hints = types_of(config)
    fields: Any = dataclasses.fields(config)
    return {field.name: hints.get(field.name, Any) for field in fields if field.init and field.name not in books}


def _defaults(name: str, options: Mapping[str, Any], steps: int, rank: int) -> dict[str, Any]:
    """The options, with what differs from peft's own defaults."""
    known = _option_types(_configurations()[name]())
    defaults: dict[str, Any] = {}
    if "target_modules" in known and name not in _OWN_PLACES:
        defaults["target_modules"] = _ALL_LINEAR
    if name in (LORA, DORA):
        defaults |= {"r": rank, "lora_alpha": 2 * options.get("r", rank)}
    if name == DORA:
        defaults["use_dora"] = True
    if name == ADALORA:
        defaults["total_step"] = steps
    return {**defaults, **options}


def _refuse_rewriting(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a start of LoRA that is drawn anew at each loading, or needs data or a quantised base."""
    start = str(options.get("init_lora_weights", True)).lower()
    if start not in _INITIALISATIONS:
        raise UsageError(
            f"{name} does not begin like this here",
            got=f"init_lora_weights={start}, which needs data or a quantised base, or is drawn anew at each loading",
            expected=", ".join(_INITIALISATIONS),
        )


def leaves_base_alone(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the base is the one on disk when the training begins: PiSSA and OLoRA write over it."""
    return str(options.get("init_lora_weights", True)).lower() not in ("pissa", "olora") and name not in ("osf",)


def is_recorded(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the path of such a training can be recorded: every weight, or LoRA's factors on the base as it is."""
    changed = any(options.get(option) for option in ("use_dora", "lora_dropout"))
    return name in (FULL, LORA) and leaves_base_alone(name, options) and not changed


def attach_tuner(model: nn.Module, name: str, config: Any, *, seed: int) -> nn.Module:
    """The model with the tuner on it, ready to train; `full` trains every weight.

    Args:
        model: of transformers; it is changed in place.
        name: from `tuner_names`.
        config: from `check_tuner`.
        seed: of the tuner's first weights, whatever the global random state is.

    Raises:
        UsageError: peft cannot put it on this model.
    """
    if config is None:
        return model.requires_grad_(True).train()
    from peft import get_peft_model

    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tuned = get_peft_model(model, config)  # type: ignore[arg-type]
    except _ATTACHING as error:
        raise UsageError(
            f"{name} cannot be put on this model",
            got=(str(error).splitlines() or [type(error).__name__])[0],
            next_step="Set its options: --set KEY=VALUE.",
        ) from error
    _sort_sets(tuned.peft_config[_NAME])
    return tuned.train()


def _sort_sets(config: Any) -> None:
    """Sets become lists: their order in a file would differ between processes."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, set):
            setattr(config, field.name, sorted(value))


def end_step(model: nn.Module, step: int) -> None:
    """Let a tuner share its ranks out again: call it behind the optimiser's step, with the gradients still there.

    Args:
        model: with its tuner.
        step: just taken, from 1.
    """
    tuner = tuner_on(model)
    if hasattr(tuner, "update_and_allocate"):
        tuner.update_and_allocate(step)


def _own_tuner_on(model: nn.Module) -> OwnTuner | None:
    config = getattr(tuner_on(model), "peft_config", {}).get(_NAME)
    return None if config is None else OWN.get(str(config.peft_type.value).lower())


def auxiliary_loss(model: nn.Module) -> Tensor | None:
    """What a tuner adds to the task's loss, to be read once a pass; None where that is nothing.

    Of AdaLoRA it is w · mean ‖PPᵀ − I‖ over its factors. peft's `AdaLoraModel.forward` adds it too, but a `PeftModel`
    without a task, as ours is, goes past that.
    """
    own = _own_tuner_on(model)
    if own is not None:
        return None if own.loss is None else own.loss(model)
    tuner = tuner_on(model)
    weight = getattr(getattr(tuner, "peft_config", {}).get(_NAME), "orth_reg_weight", None)
    if not weight:
        return None
    squares = []
    for name, factor in tuner.model.named_parameters():
        if f"lora_A.{_NAME}" in name or f"lora_B.{_NAME}" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
            squares.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)))
    return weight * torch.stack(squares).mean() if squares else None


def module_ranks(model: nn.Module) -> dict[str, int | float]:
    """The rank that LoRA, AdaLoRA or a tuner of ours has on each module; of AdaLoRA what its budget has left it.

    Empty for others.
    """
    own = _own_tuner_on(model)
    if own is not None:
        return {} if own.ranks is None else own.ranks(model)
    tuner = tuner_on(model)
    config = getattr(tuner, "peft_config", {}).get(_NAME)
    if config is None:
        return {}
    from peft.tuners.adalora import AdaLoraModel
    from peft.tuners.lora import LoraLayer

    modules = tuner.model.named_modules()
    ranks: dict[str, Any] = {path: module for path, module in modules if isinstance(module, LoraLayer)}
    by_name = getattr(config, "rank_pattern", None) or {}  # such as model.layers.0.mlp.up_proj.lora_E.default
    pattern = {name.partition(".lora_E")[0]: sum(parts) for name, parts in by_name.items()}
    if isinstance(tuner, AdaLoraModel):
        return {path: pattern.get(path, len(module.lora_E[_NAME])) for path, module in ranks.items()}
    return {path: module.r[_NAME] for path, module in ranks.items() if _NAME in module.r}


def tuner_on(model: nn.Module) -> Any:
    """The tuner that peft has put around a model; None where there is none."""
    inner: Any = model.module if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel) else model
    inner = getattr(inner, "_orig_mod", inner)
    return inner.base_model if hasattr(inner, "peft_config") else None
