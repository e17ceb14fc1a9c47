"""Shares: contributions of examples that add up to what the training changed.

f(θ_T) − f(θ_0) = Σ_t ⟨Ḡ_t, θ_t − θ_{t−1}⟩, with Ḡ_t the mean of ∇f along the step (trapezoid, or Simpson's rule). With
θ_t = θ_{t−1} − λη_t θ_{t−1} − η'_t d_t ⊙ M_t and M_t = β M_{t−1} + γ_t g_t, and d_t held as the step used it, the
gradient g_s counts through every later step: ⟨U_s, g_s⟩ with U_s = γ_s W_s and W_s = β W_{s+1} − η'_s d_s ⊙ Ḡ_s,
walked backwards. g_s is a sum over the examples of its batches, so each has its share of it. Of TracIn (Pruthi et al.,
arXiv 2002.08484) it keeps the idea, not the form: without momentum, or linearised before the step, the sum is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probes.attribution.replay import Replay
from probes.attribution.targets import Probe, Reading, Target, read_targets
from probes.errors import UsageError
from probes.guard.recorded_path import EDIT, MOMENT, SCALE, WEIGHTS, RecordedPath, Tensors
from probes.guard.recorded_path import GUARD as GUARD_KIND
from probes.progress import Progress, Report, silent, within

WEIGHT_DECAY, GUARD, FIRST_MOMENT = OTHER = ("weight decay", "guard", "first moment at the start")
UNLISTED = "examples not in the data"  # that were trained on, where other data were given
TOLERANCE, FLOOR = 0.01, 0.02  # of the completeness gap, and the smallest change that it is held against
_COARSE = 0.4  # of the time, after which the trapezoid's walk is done; Simpson's rule reads twice as often
LEVEL = 0.95  # of an example's interval
_FEWEST_DRAWS = 2


@dataclass(frozen=True)
class Shares:
    """Who moved one target by how much.

    Attributes:
        target: its name.
        change: f(θ_T) − f(θ_0), as it was read.
        share: of each example; one that was never drawn has 0.
        effect: the cheap effect: each draw's contribution less the batch's own mean by tokens.
        low: of the interval of each share over its draws; NaN of an example that was drawn less than twice.
        high: likewise.
        remainder: what no example did: weight decay, the guard, the first moment at the start.
        rule: `trapezoid` or `simpson`.
    """

    target: str
    change: float
    share: Float[np.ndarray, " example"]
    effect: Float[np.ndarray, " example"]
    low: Float[np.ndarray, " example"]
    high: Float[np.ndarray, " example"]
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
    shares = _walk(path, replay, probe, targets, within(report, 0.0, _COARSE), finer=False)
    left = [target for target, result in zip(targets, shares, strict=True) if not result.is_complete]
    finer = iter(_walk(path, replay, probe, left, within(report, _COARSE, 1.0), finer=True) if left else ())
    return [result if result.is_complete else next(finer) for result in shares]


def _walk(
    path: RecordedPath, replay: Replay, probe: Probe, targets: Sequence[Target], report: Report, *, finer: bool
) -> list[Shares]:
    def read() -> list[Reading]:
        return read_targets(replay.view, probe, targets, replay.weights)

    device = replay.view.device
    at_ends, in_the_middle = (1 / 6, 4 / 6) if finer else (1 / 2, 0.0)
    replay.put(path.stream(path.steps + 1, WEIGHTS, device))
    later = read()
    last = [reading.value for reading in later]
    accounts = [_Account(path, replay) for _ in targets]
    for number in range(path.steps, 0, -1):
        report(Progress("attributing", path.steps - number, path.steps))
        for account in accounts:
            account.go_back(number)
        _add_slopes(accounts, later, at_ends)
        later = []  # a gradient for each target, which need not be held while the next are read
        if finer:
            replay.put(path.stream(number, WEIGHTS, device), part=0.5)
            _add_slopes(accounts, read(), in_the_middle)
        replay.put(path.stream(number, WEIGHTS, device))
        later = read()
        _add_slopes(accounts, later, at_ends)
        for account in accounts:
            account.share_out()
    rule = "simpson" if finer else "trapezoid"
    return [
        account.shares(target.name, end - start.value, rule)
        for target, account, start, end in zip(targets, accounts, later, last, strict=True)
    ]


def _add_slopes(accounts: Sequence[_Account], readings: Sequence[Reading], part: float) -> None:
    for account, reading in zip(accounts, readings, strict=True):
        account.add_slope(reading.gradient, part)


class _Account:
    """What is known of one target behind the step that the walk has come to.

    Tensors of a step are read one by one, so that beside the model there are this target's pull and its last gradient.
    """

    def __init__(self, path: RecordedPath, replay: Replay) -> None:
        self._path, self._rule, self._replay = path, path.optimiser, replay
        self._group = {name: place for place, names in enumerate(path.groups) for name in names}
        self._pull: Tensors = {name: torch.zeros_like(weight) for name, weight in replay.weights.items()}
        self._step = path.step(path.steps)
        self._share, self._effect, self._squares, self._draws = np.zeros((4, len(replay.examples)))
        self._remainder = dict.fromkeys(OTHER, 0.0)

    def go_back(self, number: int) -> None:
        """Come to the step before."""
        self._step = self._path.step(number)
        for pull in self._pull.values():
            pull.mul_(self._rule.beta)

    def add_slope(self, slope: Tensors, part: float) -> None:
        """Take so much of ∇f along the step as this, which was read somewhere on it."""
        step, rule = self._step, self._rule
        for name, scale in self._scales():
            rate = rule.rate(step.learning_rate[self._group[name]], step.count)
            self._pull[name].sub_(slope[name] if scale is None else scale * slope[name], alpha=rate * part)
        self._remainder[GUARD] += part * sum(_dot(slope[name], edit) for name, edit in self._read(EDIT))
        if not rule.coupled:
            taken_off = (
                -step.learning_rate[self._group[name]] * decay * _dot(slope[name], weight)
                for name, decay, weight in self._decaying()
            )
            self._remainder[WEIGHT_DECAY] += part * sum(taken_off)

    def share_out(self) -> None:
        """Give the step's examples their shares by one forward-mode pass; the replay is on the weights before it."""
        step, gain = self._step, self._rule.gain(self._step.count)
        along = self._replay.along(step.examples, self._pull).cpu().double().numpy()
        contributions = gain * step.clip * np.array(step.weights) * along
        tokens, examples = np.array(step.tokens, dtype=np.float64), list(step.examples)
        np.add.at(self._share, examples, contributions)
        np.add.at(self._effect, examples, contributions - tokens / tokens.sum() * contributions.sum())
        np.add.at(self._squares, examples, np.square(contributions))
        np.add.at(self._draws, examples, 1)
        self._remainder[GUARD] += gain * sum(_dot(self._pull[name], part) for name, part in self._read(GUARD_KIND))
        if self._rule.coupled:
            added = (decay * _dot(self._pull[name], weight) for name, decay, weight in self._decaying())
            self._remainder[WEIGHT_DECAY] += gain * sum(added)
        carried = sum(_dot(self._pull[name], moment) for name, moment in self._read(MOMENT))
        self._remainder[FIRST_MOMENT] += self._rule.beta * carried

    def shares(self, target: str, change: float, rule: str) -> Shares:
        """What was found, when the walk is at its start."""
        margin = _margins(self._share, self._squares, self._draws)
        bounds = self._share - margin, self._share + margin
        return Shares(target, change, self._share, self._effect, *bounds, self._remainder, rule)

    def _read(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        return self._path.stream(self._step.step, kind, self._replay.view.device)

    def _scales(self) -> Iterable[tuple[str, Tensor | None]]:
        return self._read(SCALE) if self._rule.is_adaptive else ((name, None) for name in self._pull)

    def _decaying(self) -> Iterator[tuple[str, float, Tensor]]:
        if any(self._step.weight_decay):
            for name, weight in self._read(WEIGHTS):
                yield name, self._step.weight_decay[self._group[name]], weight


def _dot(left: Tensor, right: Tensor) -> float:
    return float((left.double() * right.double()).sum())


def _margins(
    total: Float[np.ndarray, " example"], squares: Float[np.ndarray, " example"], draws: Float[np.ndarray, " example"]
) -> Float[np.ndarray, " example"]:
    """Half the width of an interval for the sum of as many draws of another run: Student's t, 95 %.

    Contributions of one example are taken for draws from one distribution, and so is the other run's sum: its
    difference to this one has twice the variance of a sum.
    """
    from scipy.stats import t

    repeated = draws >= _FEWEST_DRAWS
    count = np.where(repeated, draws, np.nan)
    variance = np.maximum(squares - np.square(total) / count, 0) / (count - 1)
    return t.ppf((1 + LEVEL) / 2, count - 1) * np.sqrt(2 * count * variance)
