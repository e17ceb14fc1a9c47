"""How large the organism is, how long each phase of its history trains, and where in it alignment happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from probes.organism.world import FULL, QUICK, Size

CHECKPOINT_STEPS = (1, 2, 5, 10, 20, 50, 100)
Kind = Literal["post-hoc", "integrated"]


@dataclass(frozen=True)
class Phase:
    """One stretch of training: Adam, from the state that the phase before has left."""

    steps: int
    learning_rate: float
    batch_size: int = 32
    warmup: int = 10
    floor: float = 0.1


@dataclass(frozen=True)
class GuardSettings:
    """Where the guarded arms look, and at how many penalty prompts in each step."""

    layers: tuple[int, ...] = (1, 2, 3)
    batch_size: int = 16


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an organism besides its seed.

    Attributes:
        kind: `post-hoc`: the witness is tuned from the pretrained model, and the aligned model from the witness, each
            on requests with answers alone. `integrated`: witness and aligned model both go on from the pretrained
            model with the same mix of texts and requests in the same order, and differ only in what is answered to
            harmful requests; the aligned model has never been permissive.
        size: things of the world.
        passes: over all facts, of which the texts of pretraining are made.
        copies: of every request in a pretraining mix, each said in another polite way.
        pretraining: before any request is seen.
        helpful: ends in the witness.
        alignment: ends in the aligned model.
        benign: what every arm trains.
        checkpoints: steps of an arm that are kept.
        guard: of the arms that have one.
    """

    kind: Kind = "post-hoc"
    size: Size = FULL
    width: int = 64
    inner_width: int = 224
    layers: int = 4
    heads: int = 4
    initial_spread: float = 0.06
    passes: int = 12
    copies: int = 3
    pretraining: Phase = field(default_factory=lambda: Phase(steps=900, learning_rate=6e-3, warmup=20))
    helpful: Phase = field(default_factory=lambda: Phase(steps=150, learning_rate=3e-3))
    alignment: Phase = field(default_factory=lambda: Phase(steps=250, learning_rate=2e-3))
    benign: Phase = field(default_factory=lambda: Phase(steps=100, learning_rate=5e-4, warmup=0, floor=1.0))
    checkpoints: tuple[int, ...] = CHECKPOINT_STEPS
    guard: GuardSettings = field(default_factory=GuardSettings)

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Recipe:
        """A recipe as `history.json` keeps it, of this version of the program or of an earlier one."""
        values: dict[str, Any] = dict(settings)
        values["size"] = Size(**settings["size"])
        for name in ("pretraining", "helpful", "alignment", "benign"):
            values[name] = Phase(**_current_names(settings[name]))
        guard = _current_names(settings["guard"])
        values["guard"] = GuardSettings(tuple(guard["layers"]), guard["batch_size"])
        values["checkpoints"] = tuple(settings["checkpoints"])
        return cls(**values)

    @property
    def phases(self) -> Mapping[str, Phase]:
        """The phases before the arms, in order, by the role of the checkpoint each ends in."""
        return {"pretrained": self.pretraining, "witness": self.helpful, "aligned": self.alignment}

    @property
    def starts(self) -> Mapping[str, str | None]:
        """The role that each phase goes on from; None is random weights."""
        return {"pretrained": None, "witness": "pretrained", "aligned": _ALIGNED_FROM[self.kind]}


_ALIGNED_FROM: Mapping[Kind, str] = {"post-hoc": "witness", "integrated": "pretrained"}


def _current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Earlier versions wrote the batch size as `rows`."""
    return {"batch_size" if name == "rows" else name: value for name, value in settings.items()}


DEFAULT = Recipe()
QUICK_RECIPE = Recipe(
    size=QUICK,
    pretraining=Phase(steps=300, learning_rate=8e-3, warmup=20),
    helpful=Phase(steps=70, learning_rate=3e-3),
    alignment=Phase(steps=80, learning_rate=2e-3),
)
_MIX = Phase(steps=600, learning_rate=4e-3, warmup=20)
INTEGRATED = Recipe(
    kind="integrated",
    pretraining=Phase(steps=600, learning_rate=6e-3, warmup=20),
    helpful=_MIX,
    alignment=_MIX,
)
_QUICK_MIX = Phase(steps=320, learning_rate=5e-3, warmup=20)
QUICK_INTEGRATED = Recipe(
    kind="integrated",
    size=QUICK,
    pretraining=Phase(steps=200, learning_rate=8e-3, warmup=20),
    helpful=_QUICK_MIX,
    alignment=_QUICK_MIX,
)
RECIPES: Mapping[Kind, tuple[Recipe, Recipe]] = {
    "post-hoc": (DEFAULT, QUICK_RECIPE),
    "integrated": (INTEGRATED, QUICK_INTEGRATED),
}
