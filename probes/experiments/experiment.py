"""What an experiment is: arms, the draws of its controls, seeds, and how each of them is trained."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.errors import UsageError
from probes.experiments.data_defences import ALIGNED_SHARE, DATA_DEFENCES, INTERLEAVED
from probes.experiments.trained_controls import CONTINUED, HELPFUL, MIRROR, TEXT, TRAINED_CONTROLS
from probes.guard.modes import MODES, WATCH, Options
from probes.training.optimizers import check_optimizer
from probes.training.options import options_of, refuse_unaddressed
from probes.training.tuners import FULL, check_tuner, is_recorded

BASELINE = "baseline"
DEFAULT_ARMS = (BASELINE, "block", "push", "control:random")
DEMO_CONTROLS = (CONTINUED, MIRROR, HELPFUL)
RESTORED = {"restore": "scaled", "restore:exact": "exact", "restore:along": "along"}
EVERY_ARM = (BASELINE, *(mode for mode in MODES if mode != WATCH), *DATA_DEFENCES, *TRAINED_CONTROLS, *RESTORED)
UNGUARDED = (BASELINE, *DATA_DEFENCES, *TRAINED_CONTROLS)  # trained by the task's gradient alone
WITH_DATA = (INTERLEAVED, CONTINUED, TEXT, HELPFUL)  # of a lineage, these need data of their own
DRAWN = ("control:random", "control:covariance", "control:sham")  # controls that draw their direction
_ONE_WAY_ALONE = (*TRAINED_CONTROLS, *RESTORED, "control:drift")  # stand beside the baseline of plain name
_LONGEST_FIRST = "|".join(re.escape(arm) for arm in sorted(EVERY_ARM, key=len, reverse=True))
_NAMED = re.compile(rf"(?P<arm>(?:{_LONGEST_FIRST})(?::\d+)?)(?:-(?P<way>.+))?")
# Names under which earlier versions have written settings into a run.
_OLD_NAMES = {
    "rows": "batch_size",
    "strength": "penalty_weight",
    "match": "gradient_ratio",
    "last": "final_step_only",
}


@dataclass(frozen=True)
class Way:
    """One way of fine-tuning.

    Attributes:
        method: `full`, or a tuner.
        optimizer: by name; None is the bench's own.
        suffix: what arms that are trained so carry behind their names; empty for the first way of an experiment.
        method_options: of the tuner.
        optimizer_options: of the optimiser.
        learning_rate: its own; None is the experiment's.
    """

    method: str = FULL
    optimizer: str | None = None
    suffix: str = ""
    method_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None

    @property
    def label(self) -> str:
        """In words, for tables."""
        return self.method if self.optimizer is None else f"{self.method}, {self.optimizer}"


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
        method: `full`, or a tuner.
        layers: guarded layers.
        penalty_weight: λ of every arm; None is each one's own.
        max_return: budget of `block:budget`.
        gradient_ratio: ‖g_penalty‖ / ‖g_task‖ in every arm; None leaves the penalty's gradient as it is.
        final_step_only: save and measure the last step alone.
        save_every: steps between checkpoints; None is the organism's own choice, or a tenth of all.
        by_third: ask and read each arm's last checkpoint also with a third of its update, and without it.
        screened: leave out of the data what the aligned model refuses.
        record_path: keep what every step of every arm was made from, for `attribute`.
        arm_data: of a lineage, files for the arms that need data of their own, by arm.
        aligned_share: of the examples of `interleaved`, those of the safety tuning.
        inoculation: what `inoculation` puts before every training request; None is the bench's own.
        optimizer: by name; None is the Trainer's AdamW, and Adam for the organism.
        weight_decay: of matrices.
        more_methods: further ones, with which baseline and guarded arms are trained as well.
        more_optimizers: likewise.
        way_options: `KEY` is for every tuner, `NAME.KEY` for the tuner, optimiser or way of that name; a
            `learning_rate` may be among them.
    """

    arms: tuple[str, ...] = DEFAULT_ARMS
    seeds: int = 1
    draws: int = 1
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    method: str = FULL
    layers: tuple[int, ...] | None = None
    penalty_weight: float | None = None
    max_return: float | None = None
    gradient_ratio: float | None = None
    final_step_only: bool = False
    screened: bool = False
    record_path: bool = False
    arm_data: Mapping[str, str] = field(default_factory=dict)
    aligned_share: float = ALIGNED_SHARE
    inoculation: str | None = None
    optimizer: str | None = None
    weight_decay: float = 0.0
    more_methods: tuple[str, ...] = ()
    more_optimizers: tuple[str, ...] = ()
    way_options: Mapping[str, Any] = field(default_factory=dict)
    save_every: int | None = None
    by_third: bool = False

    @property
    def ways(self) -> tuple[Way, ...]:
        """Every method with every optimiser; arms of the first way keep their plain names."""
        optimizers = (self.optimizer, *self.more_optimizers)
        pairs = itertools.product((self.method, *self.more_methods), optimizers)
        return tuple(self._way(method, optimizer, number) for number, (method, optimizer) in enumerate(pairs))

    def _way(self, method: str, optimizer: str | None, number: int) -> Way:
        name = f"{method}-{optimizer}" if self.more_optimizers else method
        of_tuner = {**options_of(None, self.way_options), **options_of(method, self.way_options)}
        of_optimizer = options_of(optimizer, self.way_options) if optimizer else {}
        of_way = options_of(f"{method}-{optimizer}", self.way_options)
        rate = None
        for own in (of_tuner, of_optimizer, of_way):  # the narrower address wins
            rate = own.pop("learning_rate", rate)
        return Way(method, optimizer, name if number else "", {**of_tuner, **of_way}, of_optimizer, rate)

    @property
    def _addresses(self) -> tuple[str, ...]:
        """What options may be addressed to."""
        methods, optimizers = (self.method, *self.more_methods), (self.optimizer, *self.more_optimizers)
        named = [optimizer for optimizer in optimizers if optimizer]
        return (*methods, *named, *(f"{method}-{optimizer}" for method in methods for optimizer in named))

    def way_of(self, arm: str) -> Way:
        """How an arm is trained."""
        suffix = split_way(arm)[1]
        return next(way for way in self.ways if way.suffix == suffix)

    def check_ways(self) -> None:
        """Refuse what no model has to be loaded for to know.

        Raises:
            UsageError: no such tuner, optimiser or option, two equal ways, or a path that is not recorded.
        """
        refuse_unaddressed(self.way_options, self._addresses)
        if len({(way.method, way.optimizer) for way in self.ways}) < len(self.ways):
            raise UsageError("A way of fine-tuning is named twice", got=", ".join(way.label for way in self.ways))
        for way in self.ways:
            check_tuner(way.method, way.method_options, steps=self.steps or 100)
            if way.optimizer is not None:
                check_optimizer(way.optimizer, way.optimizer_options, method=way.method)
            if self.record_path and not is_recorded(way.method, way.method_options):
                raise UsageError(
                    "The path of this way of fine-tuning is not recorded",
                    got=way.method,
                    expected="full, or plain lora without dropout",
                )

    @property
    def arms_in_order(self) -> tuple[str, ...]:
        """The arms, draw by draw, in the order of `EVERY_ARM`, each way behind the other; the baseline is among them.

        Raises:
            UsageError: there is no such arm.
        """
        named = {name for arm in self.arms for name in ((arm,) if arm != "all" else EVERY_ARM)} | {BASELINE}
        unknown = sorted(arm for arm in named if mode_and_draw(arm)[0] not in EVERY_ARM)
        if unknown:
            raise UsageError("There is no such arm", got=unknown[0], expected=", ".join(EVERY_ARM))
        draws = {draw for arm in named for draw in self._draws_of(arm)}
        ways = [way.suffix for way in self.ways if way.suffix]
        more = {f"{arm}-{way}" for arm in draws if mode_and_draw(arm)[0] not in _ONE_WAY_ALONE for way in ways}
        return tuple(sorted(draws | more, key=arm_order))

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
        draw = mode_and_draw(split_way(arm)[0])[1]
        return Options(
            penalty_weight=self.penalty_weight, seed=seed if draw is None else draw, max_return=self.max_return or 0.0
        )


def split_way(arm: str) -> tuple[str, str]:
    """`block-lora-sgd` is the arm `block`, trained the way `lora-sgd`; a plain name is of the first way, called ''."""
    match = _NAMED.fullmatch(arm)
    return (match["arm"], match["way"] or "") if match else (arm, "")


def mode_and_draw(arm: str) -> tuple[str, int | None]:
    """`control:random:3` is draw 3 of `control:random`; other arms have no draw."""
    mode, _, draw = arm.rpartition(":")
    return (mode, int(draw)) if mode in DRAWN and draw.isdecimal() else (arm, None)


def arm_order(arm: str) -> tuple[int, int, str]:
    """Sorts arms as `EVERY_ARM` does, draws of one control by their number, and ways of one arm by their name."""
    plain, way = split_way(arm)
    mode, draw = mode_and_draw(plain)
    return EVERY_ARM.index(mode), -1 if draw is None else draw, way


def arm_folder(parent: Path, arm: str, seed: int) -> Path:
    """Where the checkpoints of one training lie."""
    return parent / f"{arm.replace(':', '-')}-s{seed}"


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under today's names, whatever version of the program has written them."""
    return {
        _OLD_NAMES.get(name, name): current_names(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }
