"""Everything that a guard can do, by name: block and its family, push, defences and controls behind one interface.

`make_effect(name, run, direction, options)` makes the effect; `MODES[name].sentence` says what it is. `block` is the
form that measured best; the README says on what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from probes.directions.measured import Measured
from probes.directions.reversion import reversions_by_prompt
from probes.directions.vectors import Vectors
from probes.errors import did_you_mean
from probes.guard.former_names import accept_former_names
from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.material import control_of, refusal_of, selective_layers, weight_span, whole_run
from probes.guard.penalties.defences import Anchor, Divergence, Rehearsal
from probes.guard.penalties.edits import Ablation, Steering
from probes.guard.penalties.effect import Displacement, Effect, Together
from probes.guard.penalties.projection import FORMS, Budget, Cosine, Project, Projection, Subspace
from probes.guard.penalties.weight_projection import SafeLora
from probes.store import ALIGNED

WATCH = "watch"
HARMLESS = "control:harmless"
SAFETY_DIRECTION = "safety-direction"


@accept_former_names(strength="penalty_weight")
@dataclass(frozen=True)
class Options:
    """What an effect can be told.

    Attributes:
        penalty_weight: λ (for steering, c); None is the effect's own default.
        seed: of what a control draws.
        rank: dimensions of `block:subspace`.
        answer_tokens: answer tokens that `block:answers` looks at.
        light: λ of what stands beside the block in `block:anchored` (default 0.1) and `block:rehearsed` (0.03).
        max_return: budget of `block:budget`, a return fraction.
    """

    penalty_weight: float | None = None
    seed: int = 0
    rank: int = 8
    answer_tokens: int = 4
    light: float | None = None
    max_return: float = 0.0


@dataclass(frozen=True)
class Place:
    """What a mode acts on.

    Attributes:
        run: measured, or activations alone, which is enough for what needs neither models nor a baseline.
        direction: what is guarded, at the guarded layers.
        options: strengths, seeds and sizes.
    """

    run: Measured
    direction: GuardedDirection
    options: Options

    def along(self, vectors: Vectors) -> GuardedDirection:
        """Another direction at the guarded layers, in its own length."""
        return GuardedDirection.from_vectors(vectors, self.direction.layers)

    def control(self, name: str) -> GuardedDirection:
        """A control in place of the guarded direction, counted in its length."""
        return self.direction.turned_along(control_of(self.run, name, self.direction.layers, self.options.seed))

    def penalty_weight(self, default: float) -> float:
        """λ as it was given, else the mode's own."""
        return default if self.options.penalty_weight is None else self.options.penalty_weight

    def light(self, default: float) -> float:
        """λ of what stands beside the block."""
        return default if self.options.light is None else self.options.light


Make = Callable[[Place], Effect]


@dataclass(frozen=True)
class Mode:
    """A mode: what makes its effect, and what it is in one sentence."""

    make: Make
    sentence: str


def _project(form: str, strength: float) -> Make:
    return lambda at: Projection(at.direction, form, strength=at.penalty_weight(strength))


def _control(name: str) -> Mode:
    return Mode(lambda at: Projection(at.control(name), strength=at.penalty_weight(10.0)), _CONTROLS[name])


def _subspace(at: Place, answer_tokens: int = 0) -> Effect:
    layers = at.direction.layers
    aligned, witness = ([at.run.activations(name, layer) for layer in layers] for name in (ALIGNED, "witness"))
    returns = torch.as_tensor(reversions_by_prompt(aligned, witness, at.run.harmful))
    options = {"rank": at.options.rank, "strength": at.penalty_weight(10.0), "answer_tokens": answer_tokens}
    return Subspace(at.direction, returns, **options)  # type: ignore[arg-type]


def _safety_direction(at: Place) -> Effect:
    """γ · mean (Δh·ŝ)² in the activations' own units, at the guarded layers that tell harmful prompts most."""
    safety = GuardedDirection.from_vectors(refusal_of(at.run), selective_layers(at.run, at.direction.layers))
    own_units = replace(safety, norm=torch.ones_like(safety.norm))
    return Projection(own_units, "squared", strength=at.penalty_weight(0.5))


_CONTROLS = {
    "control:random": "Block along isotropic random directions, the weakest control.",
    "control:covariance": "Block along random directions drawn with the covariance of the aligned model's activations.",
    "control:drift": "Block along the leading axis of the baseline's own drift that is orthogonal to the reversion.",
    "control:sham": "Block along the way to a sham witness, the aligned model with noise of the witness's own size.",
}

MODES: dict[str, Mode] = {
    WATCH: Mode(lambda _: Effect(), "Measure and do nothing else."),
    "block": Mode(_project("hinge", 10.0), "Hold each penalty prompt back from moving along the direction."),
    "block:mean": Mode(_project("hinge_of_mean", 10.0), "Hold back only the mean motion of the penalty prompts."),
    "block:signed": Mode(_project("signed", 1.0), "Pull away from the witness without end."),
    "block:cosine": Mode(
        lambda at: Cosine(at.direction, strength=at.penalty_weight(1.0)),
        "Hold down the cosine between the mean displacement and the direction.",
    ),
    "block:project": Mode(
        lambda at: Project(at.direction, strength=1.0),
        "Take out of the task's gradient what moves the penalty prompts along the direction.",
    ),
    "block:budget": Mode(
        lambda at: Budget(at.direction, at.options.max_return, strength=at.penalty_weight(10.0)),
        "Hold the return fraction under a budget, with a strength that is found on the way.",
    ),
    "block:subspace": Mode(_subspace, "Block along the leading axes of the prompts' own ways to the witness."),
    "block:did": Mode(
        lambda at: Projection(at.along(at.run.direction("reversion_did")), strength=at.penalty_weight(10.0)),
        "Block along the reversion less what harmless prompts do.",
    ),
    "block:answers": Mode(
        lambda at: Projection(at.direction, strength=at.penalty_weight(10.0), answer_tokens=at.options.answer_tokens),
        "Block also at the first tokens of the aligned model's answers.",
    ),
    "block:subspace-answers": Mode(
        lambda at: _subspace(at, at.options.answer_tokens),
        "Block along the leading axes, also at the first tokens of the aligned model's answers.",
    ),
    "block:spared": Mode(
        lambda at: Projection(at.direction, strength=at.penalty_weight(10.0), earlier=False),
        "Block with a gradient through the last token alone, at half the cost and with less hold.",
    ),
    "block:anchored": Mode(
        lambda at: Together(
            Projection(at.direction, strength=at.penalty_weight(10.0)), Anchor(at.direction, strength=at.light(0.1))
        ),
        "Block with a light anchor to the aligned model's activations beside it.",
    ),
    "block:rehearsed": Mode(
        lambda at: Together(
            Projection(at.direction, strength=at.penalty_weight(10.0)), Rehearsal(strength=at.light(0.03))
        ),
        "Block with a light rehearsal of the aligned model's answers beside it.",
    ),
    "push": Mode(_project("push", 1.0), "Drive the penalty prompts along the direction towards the witness."),
    "anchor": Mode(
        lambda at: Anchor(at.direction, strength=at.penalty_weight(1.0)),
        "Defence: hold the whole activation to the aligned model's (Safety Anchor, arXiv 2605.05995).",
    ),
    "anchor:answers": Mode(
        lambda at: Anchor(at.direction, strength=at.penalty_weight(1.0), answer_tokens=at.options.answer_tokens),
        "Defence: the anchor, also at the first tokens of the aligned model's answers.",
    ),
    "kl": Mode(
        lambda at: Divergence(strength=at.penalty_weight(1.0)),
        "Defence: hold the answers' token probabilities to the aligned model's by their KL divergence.",
    ),
    "rehearsal": Mode(
        lambda at: Rehearsal(strength=at.penalty_weight(1.0)),
        "Defence: train on the aligned model's own answers to the penalty prompts as well.",
    ),
    "refusal-direction": Mode(
        lambda at: Projection(at.along(refusal_of(at.run)), "squared", strength=at.penalty_weight(10.0)),
        "Defence: hold each prompt where it was along the refusal axis (ProCon, arXiv 2509.06795).",
    ),
    SAFETY_DIRECTION: Mode(
        _safety_direction,
        "Defence: hold each prompt along the refusal axis in layers chosen by CKA (after arXiv 2608.23497).",
    ),
    "safe-lora": Mode(
        lambda at: SafeLora(weight_span(whole_run(at.run))),
        "Defence: project each weight update onto the span of witness and aligned weights (after Safe LoRA).",
    ),
    "steering": Mode(
        lambda at: Steering(at.direction, strength=at.penalty_weight(1.0)),
        "Defence: add the direction while training, so that it need not be learnt (arXiv 2507.21509).",
    ),
    "caft": Mode(
        lambda at: Ablation(at.direction),
        "Defence: take the direction out of the activations while training (CAFT, arXiv 2507.16795).",
    ),
    **{name: _control(name) for name in _CONTROLS},
    HARMLESS: Mode(_project("hinge", 10.0), "Block on harmless penalty prompts, which have no reversion to hold back."),
}


def describe_modes() -> dict[str, str]:
    """What each mode is, in one sentence, by its name."""
    return {name: mode.sentence for name, mode in MODES.items()}


def check_mode(mode: str) -> None:
    """Refuse what is no name from `MODES`.

    Raises:
        GuardError: there is no such mode; the nearest is named.
    """
    if mode not in MODES:
        raise GuardError("There is no such mode" + did_you_mean(mode, MODES), got=repr(mode), expected=", ".join(MODES))


def make_effect(mode: str, run: Measured, direction: GuardedDirection, options: Options) -> Effect:
    """The effect of this name.

    Args:
        mode: a name from `MODES`.
        run: measured, or activations alone, which is enough for what needs neither models nor a baseline.
        direction: what is guarded, at the guarded layers.
        options: strengths, seeds and sizes.

    Raises:
        GuardError: there is no such mode (the nearest is named), or it needs what the run does not hold.
    """
    check_mode(mode)
    return MODES[mode].make(Place(run, direction, options))


__all__ = [
    "FORMS",
    "HARMLESS",
    "MODES",
    "WATCH",
    "Ablation",
    "Anchor",
    "Budget",
    "Cosine",
    "Displacement",
    "Divergence",
    "Effect",
    "Mode",
    "Options",
    "Project",
    "Projection",
    "Rehearsal",
    "SafeLora",
    "Steering",
    "Subspace",
    "Together",
    "describe_modes",
    "make_effect",
]
