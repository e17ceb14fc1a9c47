"""Is the return more than a mirror's, or than that of continued alignment training? By interval, over paired runs.

The mirror is the witness, trained on the same data: its return is ⟨μ_W' - μ_W, -v_rev⟩ / ‖v_rev‖². What it moves
towards the aligned model, two models that are trained alike do by growing alike; the rest may be called reversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from probes.drift import Groups, bootstrap_weights, interval, split_weights, too_few_groups
from probes.statistics import decimal

MIN_RUNS = 3
Answer = Literal["exceeds", "does_not", "not_tested", "not_defined"]


@dataclass(frozen=True)
class ReturnPair:
    """Two checkpoints of one seed and data order, as inner products between harmful prompts.

    Attributes:
        own: displacements (rows) with reversions (columns) of the trajectory that is judged.
        reference: the same of the one it is held against; of a mirror, its displacements from the witness with the
            reversions turned round.
        back: reversions with reversions.
    """

    own: Float[np.ndarray, "harmful harmful"]
    reference: Float[np.ndarray, "harmful harmful"]
    back: Float[np.ndarray, "harmful harmful"]

    @classmethod
    def of(
        cls,
        back: Float[np.ndarray, "harmful d_model"],
        moved: Float[np.ndarray, "harmful d_model"],
        reference: Float[np.ndarray, "harmful d_model"],
        *,
        mirrored: bool = False,
    ) -> ReturnPair:
        """From activations of the harmful prompts.

        Args:
            back: witness - aligned.
            moved: displacements of the trajectory that is judged.
            reference: displacements of the other from its own start.
            mirrored: whether that start is the witness.
        """
        return cls(moved @ back.T, (-reference if mirrored else reference) @ back.T, back @ back.T)

    def difference(
        self, first: Float[np.ndarray, "split harmful"], second: Float[np.ndarray, "split harmful"]
    ) -> float:
        """Difference of the cross-fitted return fractions, products averaged over the splits before the division."""
        gap = self.own - self.reference
        shared = (_forms(first, gap, second) + _forms(second, gap, first)).mean() / 2
        return float(shared / _forms(first, self.back, second).mean())

    def draws(self, weights: Float[np.ndarray, "draw harmful"]) -> Float[np.ndarray, " draw"]:
        """Difference of the plain return fractions for the weights of prompts: its spread is what counts."""
        return _forms(weights, self.own - self.reference, weights) / _forms(weights, self.back, weights)


def _forms(left: np.ndarray, table: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", left @ table, right)


@dataclass(frozen=True)
class Comparison:
    """Whether one return exceeds another.

    Attributes:
        answer: `exceeds` where the interval lies above 0; `does_not` where it does not; `not_tested`; `not_defined`
            where no such run can be made.
        difference: of the return fractions, mean over the runs.
        low: lower end of its 95 % interval.
        high: upper end.
        runs: pairs of runs.
        reason: why it was not tested, or is not defined.
        steps: of each pair, the step of the one and of the other; empty where they are the last that both have.
    """

    answer: Answer
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    runs: int = 0
    reason: str | None = None
    steps: tuple[tuple[int, int], ...] = ()

    @property
    def places(self) -> str:
        """The steps in words: `step 1 of both`, `step 5 beside step 10`."""
        return " and ".join(
            f"step {own} of both" if own == beside else f"step {own} beside step {beside}"
            for own, beside in dict.fromkeys(self.steps)
        )

    def to_json(self) -> dict[str, object]:
        """As it stands in `verdict.json`."""
        names = ("answer", "difference", "low", "high", "runs", *(["reason"] if self.answer == "not_defined" else []))
        return {name: getattr(self, name) for name in names}

    def sentence(self, name: str) -> str:
        """In words; `name` is what it is held against."""
        if self.answer == "not_defined":
            return f"Whether its return exceeds that of {name} is not defined: {self.reason}."
        if self.difference is None or self.low is None or self.high is None:
            return f"Whether its return exceeds that of {name} was not tested: {self.reason}."
        scope = "prompt-level only, " if self.runs < MIN_RUNS else ""
        runs = f"{self.runs} pair{'s' if self.runs > 1 else ''} of runs"
        verb = "exceeds" if self.answer == "exceeds" else "is not shown to exceed"
        return (
            f"Its return {verb} that of {name}: difference {decimal(self.difference)}, 95 % interval "
            f"{decimal(self.low)} to {decimal(self.high)} ({scope}{runs})."
        )


def compare_returns(
    pairs: Sequence[ReturnPair],
    harmful: Bool[np.ndarray, " prompt"],
    *,
    groups: Groups | None = None,
    splits: int = 50,
    bootstraps: int = 2_000,
    seed: int = 0,
) -> Comparison:
    """Difference of two returns over runs of the same seeds, with a bootstrap over runs, groups and prompts.

    Args:
        pairs: one for every seed that both have; runs are drawn only where there are three or more.
        harmful: which of all prompts are harmful.
        groups: the topic of every prompt; they are then drawn whole.
        splits: halvings behind the difference itself.
        bootstraps: draws behind its interval.
        seed: of both.
    """
    few = too_few_groups(harmful, groups)
    if not pairs or few:
        return Comparison("not_tested", reason=few or "there are no two runs of one seed", runs=len(pairs))
    rng = np.random.default_rng([seed, 0x3188])
    halves = [half[:, harmful] for half in split_weights(harmful, splits, rng, groups)]
    value = float(np.mean([pair.difference(halves[0], halves[1]) for pair in pairs]))
    first, second = bootstrap_weights(harmful, bootstraps, rng, groups)
    draws = np.stack([pair.draws((first + second)[:, harmful] / 2) for pair in pairs])
    if len(pairs) >= MIN_RUNS:
        chosen = rng.integers(len(pairs), size=(len(pairs), bootstraps))
        draws = np.take_along_axis(draws, chosen, axis=0)
    low, high = interval(value, draws.mean(axis=0))
    if low is None:
        return Comparison("not_tested", reason="the reversion has no length in many draws of prompts", runs=len(pairs))
    return Comparison("exceeds" if low > 0 else "does_not", value, low, high, len(pairs))
