"""What a person can set about BaRA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig, PeftType


@dataclass
class BaraConfig(PeftConfig):
    """Configuration of a BaRA adapter.

    Attributes:
        r: rank-one terms of a module, the most that can be active.
        bara_alpha: the terms' sum is multiplied by bara_alpha / r.
        bara_dropout: of the input of the terms.
        prior: probability, before training, that either gate of a term is open.
        initial: probability with which either gate is open when training begins.
        temperature: of the relaxed draw; lower is nearer to 0 and 1, and has gradients of higher variance.
        kl_weight: weight of `kl_penalty` beside a loss in nats a token.
        target_modules: modules to adapt, as in any configuration of peft.
        exclude_modules: modules to leave as they are.
        rank_pattern: other ranks by name or pattern of a module.
        layers_to_transform: only these blocks.
        layers_pattern: name of the list of blocks, for `layers_to_transform`.
        modules_to_save: modules that are trained whole.
        bias: which biases are trained as well: `none`, `all` or `bara_only`.
        init_weights: begin with no change at all (B = 0); otherwise with a random one.
    """

    r: int = 8
    bara_alpha: float = 16.0
    bara_dropout: float = 0.0
    prior: float = 0.25
    initial: float = 0.9
    temperature: float = 0.5
    kl_weight: float = 1e-2
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    init_weights: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type: Any = PeftType("BARA")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        for name in ("prior", "initial"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` is a probability between 0 and 1, got {getattr(self, name)}")
        for name in ("r", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}")
