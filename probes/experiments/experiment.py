"""What an experiment is: arms, the draws of its controls, seeds, and how each of them is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from probes.errors import UsageError
from probes.experiments.trained_controls import CONTINUED, HELPFUL, MIRROR, TRAINED_CONTROLS
from probes.guard.modes import MODES, WATCH, Options

BASELINE = "baseline"
DEFAULT_ARMS = (BASELINE, "block", "push", "control:random")
DEMO_CONTROLS = (CONTINUED, MIRROR, HELPFUL)
RESTORED = {"restore": "scaled", "restore:exact": "exact", "restore:along": "along"}
EVERY_ARM = (BASELINE, *(mode for mode in MODES if mode != WATCH), *TRAINED_CONTROLS, *RESTORED)
DRAWN = ("control:random", "control:covariance", "control:sham")  # controls that draw their direction
# Names under which earlier versions have written settings into a run.
_OLD_NAMES = {
    "rows": "batch_size",
    "strength": "penalty_weight",
    "match": "gradient_ratio",
    "last": "final_step_only",
}


@dataclass(frozen=True)
class Experiment:
    """What is trained.

    Attributes:
        arms: names from `EVERY_ARM`, or `all`; `control:random:3` is draw 3 of a drawn control.
        seeds: trainings of each arm, from seed 0.
        draws: directions of each drawn control; from two on they are `control:random:0`, `control:random:1` and so
            on, and a control alone takes the direction of its training's seed.
        steps: optimiser steps; None is the organism's own, or 100.
        learning_rate: its peak; None is the organism's own, or the method's.
        batch_size: examples in a batch; None likewise.
        method: full or LoRA; the organism is always trained in full.
        layers: guarded layers.
        penalty_weight: λ of every arm; None is each one's own.
        max_return: budget of `block:budget`.
        gradient_ratio: ‖g_penalty‖ / ‖g_task‖ in every arm; None leaves the penalty's gradient as it is.
        final_step_only: save and measure the last step alone.
        screened: leave out of the data what the aligned model refuses.
        record_path: keep what every step of every arm was made from, for `attribute`.
        arm_data: of a lineage, files for the trained controls that need data of their own, by arm.
    """

    arms: tuple[str, ...] = DEFAULT_ARMS
    seeds: int = 1
    draws: int = 1
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    method: Literal["full", "lora"] = "full"
    layers: tuple[int, ...] | None = None
    penalty_weight: float | None = None
    max_return: float | None = None
    gradient_ratio: float | None = None
    final_step_only: bool = False
    screened: bool = False
    record_path: bool = False
    arm_data: Mapping[str, str] = field(default_factory=dict)

    @property
    def arms_in_order(self) -> tuple[str, ...]:
        """The arms, draw by draw, in the order of `EVERY_ARM`; the baseline is always among them.

        Raises:
            UsageError: there is no such arm.
        """
        named = {name for arm in self.arms for name in ((arm,) if arm != "all" else EVERY_ARM)} | {BASELINE}
        unknown = sorted(arm for arm in named if mode_and_draw(arm)[0] not in EVERY_ARM)
        if unknown:
            raise UsageError("There is no such arm", got=unknown[0], expected=", ".join(EVERY_ARM))
        return tuple(sorted({draw for arm in named for draw in self._draws_of(arm)}, key=arm_order))

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Every (arm, seed), in the order in which they are trained."""
        return tuple((arm, seed) for arm in self.arms_in_order for seed in range(self.seeds))

    def _draws_of(self, arm: str) -> tuple[str, ...]:
        if arm in DRAWN and self.draws > 1:
            return tuple(f"{arm}:{draw}" for draw in range(self.draws))
        return (arm,)

    def options(self, arm: str, seed: int) -> Options:
        """Options of an arm's effect; its data keep the order of the seed, whatever direction it draws."""
        draw = mode_and_draw(arm)[1]
        return Options(
            penalty_weight=self.penalty_weight, seed=seed if draw is None else draw, max_return=self.max_return or 0.0
        )


def mode_and_draw(arm: str) -> tuple[str, int | None]:
    """`control:random:3` is draw 3 of `control:random`; other arms have no draw."""
    mode, _, draw = arm.rpartition(":")
    return (mode, int(draw)) if mode in DRAWN and draw.isdecimal() else (arm, None)


def arm_order(arm: str) -> tuple[int, int]:
    """Sorts arms as `EVERY_ARM` does, and draws of one control by their number."""
    mode, draw = mode_and_draw(arm)
    return EVERY_ARM.index(mode), -1 if draw is None else draw


def arm_folder(parent: Path, arm: str, seed: int) -> Path:
    """Where the checkpoints of one training lie."""
    return parent / f"{arm.replace(':', '-')}-s{seed}"


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under today's names, whatever version of the program has written them."""
    return {
        _OLD_NAMES.get(name, name): current_names(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }
