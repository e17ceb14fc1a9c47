"""The block, its kin and the push: losses on how far prompts have moved along a direction.

With proj = ⟨h_t(x) − h_S(x), v̂⟩ / ‖v‖ (1 is all the way back to the witness) at the guarded layers. The source
(arXiv 2606.28525) says only that block is an auxiliary loss that opposes positive motion along the direction, and
push reinforces it; form, layers and weight are options here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.penalties.effect import Displacement
from probes.guard.reading import Reader

Projections = Float[Tensor, "layer prompt"]
Form = Callable[[Projections], Float[Tensor, ""]]


def hinge(projections: Projections) -> Float[Tensor, ""]:
    """Mean of relu(proj)²: every prompt is held back by itself, and one that never moved has no gradient."""
    return projections.relu().square().mean()


def hinge_of_mean(projections: Projections) -> Float[Tensor, ""]:
    """relu(mean proj)² over each layer's batch: only the mean displacement is held back."""
    return projections.mean(dim=1).relu().square().mean()


def mean_projection(projections: Projections) -> Float[Tensor, ""]:
    """Mean proj: pulls away from the witness without end."""
    return projections.mean()


def mean_square(projections: Projections) -> Float[Tensor, ""]:
    """Mean of proj²: holds every prompt where it was, on either side."""
    return projections.square().mean()


def push(projections: Projections, cap: float = 2.0) -> Float[Tensor, ""]:
    """−mean min(proj, cap): drives towards the witness, and lets go of a prompt that is `cap` reversions along."""
    return -projections.clamp(max=cap).mean()


FORMS: Mapping[str, Form] = {
    "hinge": hinge,
    "hinge_of_mean": hinge_of_mean,
    "signed": mean_projection,
    "squared": mean_square,
    "push": push,
}


class Projection(Displacement):
    """λ · a form of the projections."""

    def __init__(
        self,
        direction: GuardedDirection,
        form: str = "hinge",
        *,
        strength: float = 10.0,
        answer_tokens: int = 0,
        earlier: bool = True,
    ) -> None:
        """Choose the form, a name from `FORMS`.

        Raises:
            GuardError: there is no such form.
        """
        super().__init__(direction, strength=strength, answer_tokens=answer_tokens, earlier=earlier)
        if form not in FORMS:
            raise GuardError("There is no such penalty", got=repr(form), expected=", ".join(FORMS))
        self.form = FORMS[form]

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """λ · form(proj)."""
        return self.strength * self.form(self.projections(reader, chosen))


class Cosine(Displacement):
    """λ · relu(cos(δ_t, v)) of the mean displacement, averaged over the guarded layers."""

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """0 where nothing has moved: there the cosine has no value, and no gradient."""
        mean = self.displacements(reader, chosen).mean(dim=1)
        # Not torch.cosine_similarity: at rest its gradient is unbounded. The floor is far below any real drift.
        length = mean.norm(dim=1).clamp_min(1e-6 * float(self.direction.norm.min()))
        along = (mean * self.direction.unit.to(mean.device)).sum(dim=1)
        return self.strength * (along / length).relu().mean()


class Subspace(Displacement):
    """λ · mean ‖Qᵀ(h_t − h_S)‖² / ‖v‖²: holds prompts still in the leading directions of per-prompt returns.

    One direction can be gone round; the k leading directions of the single prompts' differences witness − aligned
    leave less room.
    """

    def __init__(
        self,
        direction: GuardedDirection,
        returns: Float[Tensor, "layer prompt d_model"],
        *,
        rank: int = 8,
        strength: float = 10.0,
        answer_tokens: int = 0,
    ) -> None:
        """Take the leading `rank` right singular vectors of `returns` (not centred: their mean is v) at each layer."""
        super().__init__(direction, strength=strength, answer_tokens=answer_tokens)
        axes = torch.linalg.svd(returns.double(), full_matrices=False).Vh
        self.basis = axes[:, :rank].float()

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """The guarded direction, and the axes."""
        return *super().directions, self.basis

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """The squared length inside the subspace, both ways."""
        inside = torch.einsum("lpd,lkd->lpk", self.displacements(reader, chosen), self.basis.to(reader.model.device))
        norm = self.direction.norm.to(inside.device)[:, None]
        return self.strength * (inside.square().sum(dim=2) / norm.square()).mean()


class Budget(Displacement):
    """A block that finds its own strength: holds each layer's mean return at or under `max_return`.

    The method of multipliers on mean proj_l ≤ b: the loss is Σ_l μ_l · mean proj_l / L + λ · mean relu(proj − b)²,
    and after each step μ_l ← max(0, μ_l + 2λ(mean proj_l − b)). A plain hinge loses its gradient at its edge; the
    multiplier does not, so it goes on until the return is within the budget.
    """

    def __init__(self, direction: GuardedDirection, max_return: float, *, strength: float = 10.0) -> None:
        """Set the budget `max_return`, a return fraction, and λ, the speed at which multipliers grow."""
        super().__init__(direction, strength=strength)
        self.max_return = max_return
        self.tensors["multiplier"] = torch.zeros(len(direction.layers))

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """The augmented Lagrangian; the multipliers it leaves are those of the next step."""
        over = self.projections(reader, chosen) - self.max_return
        mean = over.mean(dim=1)
        multiplier = self.tensors["multiplier"].to(mean.device)
        self.tensors["multiplier"] = (multiplier + 2 * self.strength * mean.detach()).clamp_min(0).cpu()
        return (multiplier * mean).mean() + self.strength * hinge(over)


class Project(Displacement):
    """Takes out of the task's gradient its component along ∇ mean proj, where a step leads to the witness."""

    has_loss = False

    def redirect(self, reader: Reader, chosen: Tensor) -> None:
        """g ← g − (⟨g, r⟩ / ⟨r, r⟩) r where ⟨g, r⟩ < 0, with r = ∇ mean proj over all trained weights together.

        The optimiser's own scaling (Adam) comes after this, so its step is not exactly orthogonal to r.
        """
        weights = [weight for weight in reader.model.parameters() if weight.requires_grad and weight.grad is not None]
        pulls = torch.autograd.grad(self.projections(reader, chosen).mean(), weights, allow_unused=True)
        pairs = [(weight.grad, pull) for weight, pull in zip(weights, pulls, strict=True) if pull is not None]
        product = sum(float((grad.double() * pull.double()).sum()) for grad, pull in pairs if grad is not None)
        size = sum(float(pull.double().square().sum()) for _, pull in pairs)
        if product < 0 < size:
            for grad, pull in pairs:
                if grad is not None:
                    grad.sub_(pull.to(grad.dtype), alpha=product / size)
