"""Effects: what the trained model would lack if an example had been left out, the batch's mean taken over the rest.

The derivative of f(θ_T) with respect to an example's weight in its batches, through the whole training: backwards
through Adam's two moments (or SGD's one), clipping, weight decay and every later gradient (a Hessian-vector product a
step). In a batch of N tokens, ∂g/∂w_z = (n_z/N)(∇ℓ_z/n_z − ∇ℓ̄): examples share one mean, so effects of a batch sum to
zero. It is a first-order answer, and a poor one near Adam's cold start, where the first step is a sign step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from probes.attribution.replay import Replay, dot
from probes.attribution.targets import Probe, Target, read_targets
from probes.errors import UsageError
from probes.guard.recorded_path import Optimiser, RecordedPath, Step, StepTensors, Tensors
from probes.progress import Progress, Report, silent


def measure_effects(
    path: RecordedPath, replay: Replay, probe: Probe, target: Target, report: Report = silent
) -> Float[np.ndarray, " example"]:
    """What the target owes to each example: with it less without it, to first order.

    Args:
        path: what was recorded.
        replay: the model, on any weights.
        probe: the prompts that the target is read on.
        target: what is attributed.
        report: told of every step.

    Raises:
        UsageError: a guard acted in this training; its own derivative is not known here.
    """
    device = replay.view.device
    after = path.end(device)
    replay.put(after)
    adjoint = _Adjoint(path, read_targets(replay.view, probe, [target], replay.weights)[0].gradient)
    effects = np.zeros(len(replay.examples))
    for number in range(path.steps, 0, -1):
        report(Progress("unrolling", path.steps - number, path.steps))
        step, tensors = path.step(number), path.tensors(number, device)
        if path.edits_activations or tensors.guard or tensors.edit:
            raise UsageError(
                "The exact effect is of trainings without a guard", got=str(path.folder), next_step="Leave out --exact."
            )
        replay.put(tensors.weights)
        _add_effects(effects, replay, step, adjoint.go_back(replay, step, tensors, after))
        after = tensors.weights
    return effects


def _add_effects(effects: Float[np.ndarray, " example"], replay: Replay, step: Step, pull: Tensors) -> None:
    """⟨pull, ∂g/∂w_z⟩ of every example of a step."""
    tokens, weights = (np.array(values, dtype=np.float64) for values in (step.tokens, step.weights))
    along = replay.along(step.examples, pull).cpu().double().numpy() * weights
    np.add.at(effects, list(step.examples), along - tokens / tokens.sum() * along.sum())


class _Adjoint:
    """∂f(θ_T) with respect to weights and moments as they were behind the step that the walk has come to."""

    def __init__(self, path: RecordedPath, gradient: Tensors) -> None:
        self._rule: Optimiser = path.optimiser
        self._group = {name: place for place, names in enumerate(path.groups) for name in names}
        self._weights = gradient
        self._first = {name: torch.zeros_like(pull) for name, pull in gradient.items()}
        self._second = {name: torch.zeros_like(pull) for name, pull in gradient.items()}

    def go_back(self, replay: Replay, step: Step, tensors: StepTensors, after: Tensors) -> Tensors:
        """Through one step, which led to `after`; returns ∂f with respect to the task's gradient before clipping."""
        places, multipliers = step.examples, torch.tensor(step.weights, device=replay.view.device)
        raw = replay.gradient(places, multipliers)
        gradient = {name: step.clip * part for name, part in raw.items()}
        for name in self._weights:
            self._through_update(name, step, tensors, after)
        pull = {name: self._of_gradient(name, step, tensors, gradient) for name in self._weights}
        decay = {name: self._by_weight(step.weight_decay, name) for name in self._weights}
        unclipped = _through_clip(pull, raw, step.clip)
        _, curved = replay.gradient_along(places, multipliers, unclipped)
        for name, weight in self._weights.items():
            rate = self._by_weight(step.learning_rate, name)
            own = decay[name] * pull[name] if self._rule.coupled else -rate * decay[name] * weight
            self._weights[name] = weight + own + curved[name]
            self._first[name] = self._rule.beta * self._first[name]
            self._second[name] = (self._rule.second_beta or 0.0) * self._second[name]
        return unclipped

    def _through_update(self, name: str, step: Step, tensors: StepTensors, after: Tensors) -> None:
        """θ_t = (1 − ηλ) θ_{t−1} − η' d ⊙ M, with d = 1 / (√(v / (1 − β₂^t)) + ε)."""
        rate = self._rule.rate(self._by_weight(step.learning_rate, name), step.count)
        if not self._rule.is_adaptive:
            self._first[name] = self._first[name] - rate * self._weights[name]
            return
        scale, weight = tensors.scale[name], tensors.weights[name]
        assert self._rule.second_beta is not None
        taken_off = 0.0
        if not self._rule.coupled:
            taken_off = self._by_weight(step.learning_rate, name) * self._by_weight(step.weight_decay, name)
        moved = (1 - taken_off) * weight - after[name]  # η' d ⊙ M
        root = 1 / scale - (self._rule.epsilon or 0.0)
        slope = torch.where(root > 0, scale / (2 * root * (1 - self._rule.second_beta**step.count)), 0.0)
        self._first[name] = self._first[name] - rate * scale * self._weights[name]
        self._second[name] = self._second[name] + moved * slope * self._weights[name]

    def _of_gradient(self, name: str, step: Step, tensors: StepTensors, gradient: Tensors) -> torch.Tensor:
        """M_t = β M_{t−1} + γ g, v_t = β₂ v_{t−1} + (1 − β₂) g²."""
        pull = self._rule.gain(step.count) * self._first[name]
        if not self._rule.is_adaptive:
            return pull
        whole = gradient[name]
        if self._rule.coupled:
            whole = whole + self._by_weight(step.weight_decay, name) * tensors.weights[name]
        return pull + 2 * (1 - (self._rule.second_beta or 0.0)) * whole * self._second[name]

    def _by_weight(self, values: Sequence[float], name: str) -> float:
        return values[self._group[name]]


def _through_clip(pull: Tensors, raw: Tensors, clip: float) -> Tensors:
    """g = c g_raw; where it was clipped, c = limit / ‖g_raw‖, and what points along g_raw does not count."""
    if clip >= 1:
        return pull
    along = dot(pull, raw) / dot(raw, raw)
    return {name: clip * (part - along * raw[name]) for name, part in pull.items()}
