"""What is known of one trajectory, and how far up the ladder that leads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from probes.nulls import PROFILE, OffRefusalAxis
from probes.nulls.power import ALIGNMENT, ENOUGH
from probes.statistics import ALPHA, Estimate, NullResult
from probes.verdict.causality import Causal
from probes.verdict.comparisons import Comparison

CAUSAL = "causal"
NO_ARMS = "block, push and matched controls are another test"
NO_MIRROR = Comparison("not_tested", reason="no mirror was run")
NO_ABLATED_MIRROR = Comparison("not_defined", reason="an ablated witness has no weights to train")
NO_CONTINUED = Comparison("not_tested", reason="no continued alignment training was run")
NO_AXIS = OffRefusalAxis("not_defined", reason="it was not tested")


@dataclass(frozen=True)
class Evidence:
    """All that is known of one trajectory at the layer declared in advance.

    Attributes:
        arm: of the trajectory.
        seed: of its run.
        layer: the declared layer; None where activations came without one.
        estimates: `drift.measure`'s at the last checkpoint.
        nulls: every test and every line of the profile that was made for that checkpoint, with its power.
        power_together: that all tests of level 4 reject at once at the declared alternative.
        runs: how many runs of this arm there are; below 5 the text says "prompt-level only".
        witness: what the witness is called in the text, e.g. "witness (base model stands in)".
        off_refusal_axis: whether the return is more than motion along the refusal axis.
        mirror: whether the return exceeds the mirror's.
        continued: whether it exceeds that of continued alignment training.
        equal_loss: the same two at the same loss on the task, `mirror` and `continued`.
        sensitive: whether a positive control of the run reached level 4; None where none was run.
        causal: what the last step asks for, or why it was not tested.
        trajectory: the mean alignment over the trajectory's steps, for a second line; it decides nothing.
        alpha: the level of every test.
        power_alignment: the declared alternative of every power.
    """

    arm: str
    seed: int
    layer: int | None
    estimates: Mapping[str, Estimate]
    nulls: Sequence[NullResult] = field(default=())
    power_together: float | None = None
    runs: int = 1
    witness: str = "witness"
    off_refusal_axis: OffRefusalAxis = NO_AXIS
    mirror: Comparison = NO_MIRROR
    continued: Comparison = NO_CONTINUED
    equal_loss: Mapping[str, Comparison] = field(default_factory=dict)
    sensitive: bool | None = None
    causal: Causal | str = NO_ARMS
    trajectory: Estimate | None = None
    alpha: float = ALPHA
    power_alignment: float = ALIGNMENT

    @property
    def tests(self) -> dict[str, NullResult]:
        """The tests of level 4 and of level 5 by name, without the profile."""
        return {null.name: null for null in self.nulls if null.name not in PROFILE}

    def could_reject(self, null: NullResult | None) -> bool:
        """Whether a test was made with draws enough to reach alpha."""
        return null is not None and null.p is not None and (null.draws == 0 or 1 / (null.draws + 1) <= self.alpha)

    def rejects(self, null: NullResult | None) -> bool:
        """Whether a test was made and is beaten."""
        return self.could_reject(null) and (null.p if null and null.p is not None else 1.0) <= self.alpha

    def missing(self, names: Sequence[str]) -> dict[str, str]:
        """Of the tests of these names, those that could have been made and do not count, with why."""
        missing = {}
        for name in names:
            null = self.tests.get(name)
            if null is None:
                missing[name] = "not run"
            elif null.p is None and null.defined:
                missing[name] = str(null.reason)
            elif null.p is not None and not self.could_reject(null):
                needed = math.ceil(1 / self.alpha - 1e-9) - 1
                missing[name] = f"{null.draws} draws are too few, {needed} or more are needed"
        return missing

    @property
    def undefined(self) -> list[NullResult]:
        """Tests that have no reference here, and lines of the profile that cannot be computed: they cap nothing."""
        return [null for null in self.nulls if null.p is None and (not null.defined or null.name in PROFILE)]


@dataclass(frozen=True)
class Step:
    """How far the ladder was climbed.

    Attributes:
        level: 1 to 6.
        decided_by: the statistic or test that decided: at 3 the test with the greatest p-value (of equal ones that of
            least power), or the first that was not run; from 4 on the hardest test that was beaten.
        p: its p-value; None where no test decided.
        power: its power.
        failed: tests of the next step that are not beaten, the deciding one first.
        missing: why tests that the next step needs do not count, by name; the tests that cap the level.
        beaten: the tests of level 4 that are beaten.
    """

    level: int
    decided_by: str
    p: float | None = None
    power: float | None = None
    failed: tuple[NullResult, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    beaten: tuple[NullResult, ...] = ()

    @property
    def decidable(self) -> bool:
        """Whether the deciding test could have told the declared alternative apart."""
        return self.power is not None and self.power >= ENOUGH
