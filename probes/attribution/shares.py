"""Shares: contributions of examples that add up to what the training changed.

f(θ_T) − f(θ_0) = Σ_t ⟨Ḡ_t, θ_t − θ_{t−1}⟩, with Ḡ_t the mean of ∇f along the step (trapezoid, or Simpson's rule). With
θ_t = θ_{t−1} − λη_t θ_{t−1} − η'_t d_t ⊙ M_t and M_t = β M_{t−1} + γ_t g_t, and d_t held as the step used it, the
gradient g_s counts through every later step: ⟨U_s, g_s⟩ with U_s = γ_s W_s and W_s = β W_{s+1} − η'_s d_s ⊙ Ḡ_s,
walked backwards. g_s is a sum over the examples of its batches, so each has its share of it. Of TracIn (Pruthi et al.,
arXiv 2002.08484) it keeps the idea, not the form: without momentum, or linearised before the step, the sum is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from probes.attribution.replay import Replay, dot
from probes.attribution.targets import Probe, Reading, Target, read_targets
from probes.errors import UsageError
from probes.guard.recorded_path import RecordedPath, Step, StepTensors, Tensors
from probes.progress import Progress, Report, silent

WEIGHT_DECAY, GUARD, FIRST_MOMENT = OTHER = ("weight decay", "guard", "first moment at the start")
TOLERANCE, FLOOR = 0.01, 0.02  # of the completeness gap, and the smallest change that it is held against


@dataclass(frozen=True)
class Shares:
    """Who moved one target by how much.

    Attributes:
        target: its name.
        change: f(θ_T) − f(θ_0), as it was read.
        share: of each example; one that was never drawn has 0.
        effect: the cheap effect: each draw's contribution less the batch's own mean by tokens.
        remainder: what no example did: weight decay, the guard, the first moment at the start.
        rule: `trapezoid` or `simpson`.
    """

    target: str
    change: float
    share: Float[np.ndarray, " example"]
    effect: Float[np.ndarray, " example"]
    remainder: dict[str, float] = field(default_factory=dict)
    rule: str = "trapezoid"

    @property
    def total(self) -> float:
        """Σ of all shares, examples' and others'."""
        return float(self.share.sum()) + sum(self.remainder.values())

    @property
    def gap(self) -> float:
        """The completeness gap: what was read less the sum."""
        return self.change - self.total

    @property
    def is_complete(self) -> bool:
        """Whether the gap is within 1 % of the change, or of 0.02 where that is more."""
        return abs(self.gap) <= TOLERANCE * max(abs(self.change), FLOOR)


def measure_shares(
    path: RecordedPath, replay: Replay, probe: Probe, targets: Sequence[Target], report: Report = silent
) -> list[Shares]:
    """The shares of every target; by Simpson's rule where the trapezoid leaves more than the tolerance.

    Args:
        path: what was recorded.
        replay: the model, on any weights.
        probe: the prompts that targets are read on.
        targets: what is attributed.
        report: told of every step.

    Raises:
        UsageError: a guard edited activations in this training, so that no later pass repeats its gradients.
    """
    if path.edits_activations:
        raise UsageError(
            "This arm edited activations while it was trained, so that its gradients cannot be repeated",
            got=str(path.folder),
            next_step="Attribute another arm.",
        )
    shares = _walk(path, replay, probe, targets, report, finer=False)
    if all(result.is_complete for result in shares):
        return shares
    return _walk(path, replay, probe, targets, report, finer=True)


def _walk(
    path: RecordedPath, replay: Replay, probe: Probe, targets: Sequence[Target], report: Report, *, finer: bool
) -> list[Shares]:
    def read(weights: Tensors) -> list[Reading]:
        replay.put(weights)
        return read_targets(replay.view, probe, targets, replay.weights)

    later_weights = path.end(replay.view.device)
    last = later = read(later_weights)
    accounts = [_Account(path, replay) for _ in targets]
    for number in range(path.steps, 0, -1):
        report(Progress("attributing", path.steps - number, path.steps))
        step, tensors = path.step(number), path.tensors(number, replay.view.device)
        middle = read(_between(tensors.weights, later_weights)) if finer else None
        earlier = read(tensors.weights)
        for place, account in enumerate(accounts):
            slope = _mean_gradient(earlier[place], later[place], None if middle is None else middle[place])
            account.go_back(step, tensors, slope)
        later, later_weights = earlier, tensors.weights
    rule = "simpson" if finer else "trapezoid"
    return [
        Shares(
            target.name, last[place].value - later[place].value, account.share, account.effect, account.remainder, rule
        )
        for place, (target, account) in enumerate(zip(targets, accounts, strict=True))
    ]


class _Account:
    """What is known of one target behind the step that the walk has come to."""

    def __init__(self, path: RecordedPath, replay: Replay) -> None:
        self._rule, self._replay = path.optimiser, replay
        self._group = {name: place for place, names in enumerate(path.groups) for name in names}
        self._pull: Tensors = {name: torch.zeros_like(weight) for name, weight in replay.weights.items()}
        self.share = np.zeros(len(replay.examples))
        self.effect = np.zeros(len(replay.examples))
        self.remainder = dict.fromkeys(OTHER, 0.0)

    def go_back(self, step: Step, tensors: StepTensors, slope: Tensors) -> None:
        """Take one step into account; the replay is on the weights before it."""
        rate, decay = self._by_weight(step.learning_rate), self._by_weight(step.weight_decay)
        for name, pull in self._pull.items():
            scaled = tensors.scale[name] * slope[name] if self._rule.is_adaptive else slope[name]
            self._pull[name] = self._rule.beta * pull - self._rule.rate(rate(name), step.count) * scaled
        gain = self._rule.gain(step.count)
        direction = {name: gain * pull for name, pull in self._pull.items()}
        self._share_out(step, direction)
        self.remainder[GUARD] += dot(direction, tensors.guard) + dot(slope, tensors.edit)
        if self._rule.coupled:
            added = {name: decay(name) * weight for name, weight in tensors.weights.items() if decay(name)}
            self.remainder[WEIGHT_DECAY] += dot(direction, added)
        else:
            taken_off = {n: -rate(n) * decay(n) * weight for n, weight in tensors.weights.items() if decay(n)}
            self.remainder[WEIGHT_DECAY] += dot(slope, taken_off)
        if tensors.moment:
            self.remainder[FIRST_MOMENT] += self._rule.beta * dot(self._pull, tensors.moment)

    def _share_out(self, step: Step, direction: Tensors) -> None:
        """The step's examples, by one forward-mode pass."""
        along = self._replay.along(step.examples, direction).cpu().double().numpy()
        tokens = np.array(step.tokens, dtype=np.float64)
        contributions = step.clip * np.array(step.weights) * along
        np.add.at(self.share, list(step.examples), contributions)
        mean = tokens / tokens.sum() * contributions.sum()
        np.add.at(self.effect, list(step.examples), contributions - mean)

    def _by_weight(self, values: Sequence[float]) -> Callable[[str], float]:
        return lambda name: values[self._group[name]]


def _between(before: Tensors, after: Tensors) -> Tensors:
    return {name: (weight + after[name]) / 2 for name, weight in before.items()}


def _mean_gradient(before: Reading, after: Reading, middle: Reading | None) -> Tensors:
    """∇f averaged along a step."""
    ends = {name: (gradient + after.gradient[name]) / 2 for name, gradient in before.gradient.items()}
    if middle is None:
        return ends
    return {name: (end + 2 * middle.gradient[name]) / 3 for name, end in ends.items()}
