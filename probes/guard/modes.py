"""Everything that a guard can do, by name: block and its family, push, rivals and controls behind one interface.

`MODES[name](material, direction, options)` makes the effect. `block` is the form that measured best; the README says
on what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.material import Material, as_tensor
from probes.guard.penalties.defences import Anchor, Divergence, Rehearsal
from probes.guard.penalties.edits import Ablation, Steering
from probes.guard.penalties.effect import Displacement, Effect, Together
from probes.guard.penalties.projection import FORMS, Budget, Cosine, Project, Projection, Subspace
from probes.guard.penalties.weight_projection import SafeLora

WATCH = "watch"
HARMLESS = "control:harmless"


@dataclass(frozen=True)
class Options:
    """What an effect can be told.

    Attributes:
        strength: λ (for steering, c); None is the effect's own default.
        seed: of what a control draws.
        rank: dimensions of `block:subspace`.
        answer_tokens: answer tokens that `block:answers` looks at.
        light: λ of what stands beside the block in `block:anchored` (default 0.1) and `block:rehearsed` (0.03).
        max_return: budget of `block:budget`, a return fraction.
    """

    strength: float | None = None
    seed: int = 0
    rank: int = 8
    answer_tokens: int = 4
    light: float | None = None
    max_return: float = 0.0


Make = Callable[[Material, GuardedDirection, Options], Effect]


def _form(name: str, strength: float) -> Make:
    return lambda _, where, told: Projection(where, name, strength=_or(told, strength))


def _control(turned: Callable[[Material, GuardedDirection, int], GuardedDirection]) -> Make:
    return lambda made, where, told: Projection(turned(made, where, told.seed), strength=_or(told, 10.0))


def _along(name: str, form: str) -> Make:
    """A penalty along another direction of the material, in its own length."""

    def make(made: Material, where: GuardedDirection, told: Options) -> Effect:
        other = GuardedDirection.from_vectors(getattr(made, name), where.layers)
        return Projection(other, form, strength=_or(told, 10.0))

    return make


def _subspace(made: Material, where: GuardedDirection, told: Options, answer_tokens: int = 0) -> Effect:
    returns = as_tensor(made.returns[list(where.layers)])
    return Subspace(where, returns, rank=told.rank, strength=_or(told, 10.0), answer_tokens=answer_tokens)


def _or(told: Options, strength: float) -> float:
    return strength if told.strength is None else told.strength


def _light(told: Options, strength: float) -> float:
    return strength if told.light is None else told.light


MODES: dict[str, Make] = {
    WATCH: lambda *_: Effect(),
    "block": _form("hinge", 10.0),
    "block:mean": _form("hinge_of_mean", 10.0),
    "block:signed": _form("signed", 1.0),
    "block:cosine": lambda _, where, told: Cosine(where, strength=_or(told, 1.0)),
    "block:project": lambda _, where, __: Project(where, strength=1.0),
    "block:budget": lambda _, where, told: Budget(where, told.max_return, strength=_or(told, 10.0)),
    "block:subspace": _subspace,
    "block:did": _along("did", "hinge"),
    "block:answers": lambda _, where, told: Projection(
        where, strength=_or(told, 10.0), answer_tokens=told.answer_tokens
    ),
    "block:subspace-answers": lambda made, where, told: _subspace(made, where, told, told.answer_tokens),
    "block:spared": lambda _, where, told: Projection(where, strength=_or(told, 10.0), earlier=False),
    "block:anchored": lambda _, where, told: Together(
        Projection(where, strength=_or(told, 10.0)), Anchor(where, strength=_light(told, 0.1))
    ),
    "block:rehearsed": lambda _, where, told: Together(
        Projection(where, strength=_or(told, 10.0)), Rehearsal(strength=_light(told, 0.03))
    ),
    "push": _form("push", 1.0),
    "anchor": lambda _, where, told: Anchor(where, strength=_or(told, 1.0)),
    "anchor:answers": lambda _, where, told: Anchor(where, strength=_or(told, 1.0), answer_tokens=told.answer_tokens),
    "kl": lambda _, __, told: Divergence(strength=_or(told, 1.0)),
    "rehearsal": lambda _, __, told: Rehearsal(strength=_or(told, 1.0)),
    "refusal-direction": _along("refusal", "squared"),
    "safe-lora": lambda made, _, __: SafeLora(made.weight_span()),
    "steering": lambda _, where, told: Steering(where, strength=_or(told, 1.0)),
    "caft": lambda _, where, __: Ablation(where),
    "control:random": _control(lambda _, where, seed: where.random(seed)),
    "control:covariance": _control(lambda made, where, seed: made.covariance_draw(where, seed)),
    "control:drift": _control(lambda made, where, _: made.drift_off(where)),
    "control:sham": _control(lambda made, where, seed: made.sham(where, seed)),
    HARMLESS: _form("hinge", 10.0),
}


def make_effect(mode: str, material: Material, direction: GuardedDirection, options: Options) -> Effect:
    """The effect of this name.

    Raises:
        GuardError: there is none (the nearest is named), or it needs what the material does not hold.
    """
    if mode not in MODES:
        nearest = get_close_matches(mode, MODES, n=1)
        raise GuardError(
            "There is no such mode" + (f"; did you mean {nearest[0]!r}?" if nearest else ""),
            got=repr(mode),
            expected=", ".join(MODES),
        )
    return MODES[mode](material, direction, options)


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
    "Options",
    "Project",
    "Projection",
    "Rehearsal",
    "SafeLora",
    "Steering",
    "Subspace",
    "Together",
    "make_effect",
]
