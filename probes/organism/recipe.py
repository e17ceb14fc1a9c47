"""How large the organism is and how long each phase of its history trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from probes.organism.world import FULL, QUICK, Size

CHECKPOINT_STEPS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Phase:
    """One stretch of training: Adam, from the state that the phase before has left."""

    steps: int
    learning_rate: float
    rows: int = 32
    warmup: int = 10
    floor: float = 0.1


@dataclass(frozen=True)
class GuardSettings:
    """What the guarded arms do; see `probes.guard.penalty`."""

    layers: tuple[int, ...] = (1, 2, 3)
    rows: int = 16
    block: float = 10.0
    push: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an organism besides its seed."""

    size: Size = FULL
    width: int = 64
    inner_width: int = 224
    layers: int = 4
    heads: int = 4
    initial_spread: float = 0.06
    passes: int = 12
    pretraining: Phase = field(default_factory=lambda: Phase(steps=900, learning_rate=6e-3, warmup=20))
    helpful: Phase = field(default_factory=lambda: Phase(steps=150, learning_rate=3e-3))
    alignment: Phase = field(default_factory=lambda: Phase(steps=250, learning_rate=2e-3))
    benign: Phase = field(default_factory=lambda: Phase(steps=100, learning_rate=5e-4, warmup=0, floor=1.0))
    checkpoints: tuple[int, ...] = CHECKPOINT_STEPS
    guard: GuardSettings = field(default_factory=GuardSettings)

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The phases before the arms, in order, by the role of the checkpoint each ends in."""
        return {"pretrained": self.pretraining, "witness": self.helpful, "aligned": self.alignment}


DEFAULT = Recipe()
QUICK_RECIPE = Recipe(
    size=QUICK,
    pretraining=Phase(steps=300, learning_rate=8e-3, warmup=20),
    helpful=Phase(steps=70, learning_rate=3e-3),
    alignment=Phase(steps=80, learning_rate=2e-3),
)
