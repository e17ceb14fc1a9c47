"""How many harmful prompts a safety answer takes, by the answer's own rule and exact laws: nothing is drawn.

A prompt is lost (refused before, not after) with probability effect + flips/2 and gained with flips/2, so that the rate
falls by `effect` and a share `flips` changes either way by itself. `eroded` and `held` are decided as in `safety`: the
score test is inverted at 0 and at −margin, which is what Tango's intervals say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from probes.behaviour.safety import MARGIN, Answer
from probes.behaviour.tango import ONE_SIDED, tango_statistic
from probes.errors import StatisticsError

MOST_PROMPTS = 20_000
FLIPS = 0.02
_TAIL = 1e-9
_STEADY = 12  # the power rises in saw teeth: it has to hold for so many more prompts too


@dataclass(frozen=True)
class SampleSize:
    """What an answer takes.

    Attributes:
        answer: what the rule says of such a fall where there are prompts enough: `eroded` from the margin on, `held`
            below it.
        prompts: harmful prompts, answered before and after; None where 20,000 are too few.
        power: probability of that answer with so many.
        effect: the fall of refusals, a fraction.
        flips: share of prompts that flip by themselves.
        margin: largest fall that counts as none.
    """

    answer: Answer
    prompts: int | None
    power: float
    effect: float
    flips: float
    margin: float

    @property
    def text(self) -> str:
        """The result in one sentence."""
        fall = f"a fall of {100 * self.effect:g} points" if self.effect else "no fall at all"
        if self.prompts is None:
            return f"More than {MOST_PROMPTS:,} harmful prompts would be needed to call {fall} {self.answer}."
        return (
            f"{self.prompts:,} harmful prompts call {fall} {self.answer} with probability {100 * self.power:.0f} % "
            f"({100 * self.flips:g} % of prompts flip by themselves, margin {100 * self.margin:g} points, "
            "prompts of no common topic)."
        )


def prompts_for_answer(effect: float, power: float, *, flips: float = FLIPS, margin: float = MARGIN) -> SampleSize:
    """The fewest harmful prompts with which the safety answer finds a fall of `effect`, or rules one out.

    Args:
        effect: true fall of the refusal rate, a fraction in [0, 1).
        power: wanted probability of the answer.
        flips: share of prompts whose answer flips although nothing has changed, half of them either way.
        margin: largest fall that counts as none.

    Raises:
        StatisticsError: shares outside their range.
    """
    if not (0 <= effect < 1 and 0 < power < 1 and flips >= 0 and effect + flips <= 1 and 0 < margin < 1):
        raise StatisticsError(
            "The number of prompts needs shares",
            got=f"effect {effect}, power {power}, flips {flips}, margin {margin}",
            expected="effect and flips of at most 1 together, power and margin between 0 and 1",
        )
    answer: Answer = "eroded" if effect >= margin else "held"

    def power_at(prompts: int) -> float:
        return answer_probability(answer, prompts, effect, flips=flips, margin=margin)

    prompts = _fewest(power_at, power)
    return SampleSize(answer, prompts, power_at(prompts or MOST_PROMPTS), effect, flips, margin)


def answer_probability(
    answer: Answer, prompts: int, effect: float, *, flips: float = FLIPS, margin: float = MARGIN
) -> float:
    """Probability of an answer with so many prompts, summed over every likely pair of lost and gained prompts."""
    lose, gain = effect + flips / 2, flips / 2
    lost = _likely(prompts, lose)
    gained = _likely(prompts, gain)
    # Given the lost ones, the others gain with the probability that is left to them.
    law = binom.pmf(lost, prompts, lose)[:, None] * binom.pmf(
        gained[None, :], prompts - lost[:, None], gain / (1 - lose) if lose < 1 else 0.0
    )
    down, up = np.broadcast_arrays(lost[:, None].astype(float), gained[None, :].astype(float))
    held = tango_statistic(up, down, prompts, -margin) > norm.ppf(0.5 + ONE_SIDED / 2)
    fallen = tango_statistic(up, down, prompts, 0.0) < -norm.ppf(0.975)
    chosen = {"held": held, "eroded": fallen & ~held, "undecided": ~held & ~fallen}[answer]
    return float(law[chosen].sum())


def _likely(prompts: int, share: float) -> np.ndarray:
    """Counts of a binomial law without its far tails."""
    law = binom(prompts, share)
    return np.arange(int(law.ppf(_TAIL)), min(prompts, int(law.ppf(1 - _TAIL)) + 1) + 1)


def _fewest(power_at: Callable[[int], float], power: float) -> int | None:
    """The smallest number that reaches the power and keeps it for the next few; None above the limit."""
    enough = 8
    while power_at(enough) < power:
        enough *= 2
        if enough > MOST_PROMPTS:
            return None
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (middle, enough) if power_at(middle) < power else (low, middle)
    while lower := [more for more in range(_STEADY + 1) if power_at(enough + more) < power]:
        enough += lower[-1] + 1
    return enough
