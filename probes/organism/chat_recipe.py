"""How a history is made from a chat model that is there already: how long, how fast, on how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from probes.guard.fine_tuning import Training

# Parts of nine examples, on average: harmful requests with refusals, twins, ordinary requests.
_REFUSED, _TWINS, _ORDINARY, _PARTS = 5, 3, 1, 9


@dataclass(frozen=True)
class TuningPhase:
    """One stretch of fine-tuning.

    Attributes:
        steps: optimiser steps.
        learning_rate: its peak.
        batch_size: examples in a step.
        save_every: steps between checkpoints.
        warmup: steps of linear rise.
        decay: the rate then falls linearly to zero; else it stays.
    """

    steps: int
    learning_rate: float
    batch_size: int = 8
    save_every: int = 10
    warmup: int = 0
    decay: bool = False

    def training(self, method: str, *, seed: int, bf16: bool) -> Training:
        """The same for the Trainer."""
        return Training(
            method=method,
            steps=self.steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            save_every=self.save_every,
            warmup=self.warmup,
            decay=self.decay,
            seed=seed,
            bf16=bf16,
        )


@dataclass(frozen=True)
class ChatRecipe:
    """Everything that decides a history besides its model and its seed.

    Attributes:
        method: `full`, or the tuner of the adapters that are trained.
        alignment: the safety tuning.
        benign: the fine-tuning that every arm goes through.
        answer_tokens: most tokens of an answer that the model gives to a harmless request of its own training data.
        problems: arithmetic problems that are made up, those held out among them.
        prompts_a_topic: pairs of probe and of evaluation prompts of each topic; None is all.
        new_tokens: longest answer when a checkpoint is asked.
        held_out_problems: problems that count for the loss and the exact answers.
    """

    method: str = "lora"
    alignment: TuningPhase = field(
        default_factory=lambda: TuningPhase(steps=128, learning_rate=1e-3, save_every=16, warmup=5, decay=True)
    )
    benign: TuningPhase = field(default_factory=lambda: TuningPhase(steps=40, learning_rate=3e-4, save_every=10))
    answer_tokens: int = 24
    problems: int = 640
    prompts_a_topic: int | None = None
    new_tokens: int = 32
    held_out_problems: int = 64

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ChatRecipe:
        """A recipe as its folder keeps it."""
        phases = {name: TuningPhase(**document[name]) for name in ("alignment", "benign")}
        return cls(**{**document, **phases})

    @property
    def harmful(self) -> int:
        """Harmful requests that the safety tuning goes through once."""
        return self._share(_REFUSED)

    @property
    def twins(self) -> int:
        """Harmless twins that it goes through once."""
        return self._share(_TWINS)

    @property
    def ordinary(self) -> int:
        """Ordinary requests that it goes through once."""
        return self._share(_ORDINARY)

    def _share(self, parts: int) -> int:
        return self.alignment.steps * self.alignment.batch_size * parts // _PARTS


FULL_CHAT = ChatRecipe()
QUICK_CHAT = ChatRecipe(
    benign=TuningPhase(steps=10, learning_rate=5e-4, save_every=5),
    problems=160,
    prompts_a_topic=3,
    new_tokens=32,
    held_out_problems=16,
)


def chat_recipe(*, quick: bool, method: str) -> ChatRecipe:
    """The recipe of a demo; training every weight goes at a thirtieth of an adapter's learning rate."""
    recipe = QUICK_CHAT if quick else FULL_CHAT
    if method != "full":
        return replace(recipe, method=method)
    phases = {
        name: replace(phase, learning_rate=phase.learning_rate / 30)
        for name, phase in (("alignment", recipe.alignment), ("benign", recipe.benign))
    }
    return replace(recipe, method=method, **phases)  # type: ignore[arg-type]
