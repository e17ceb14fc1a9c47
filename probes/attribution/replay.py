"""A model put back on a recorded step: its trained weights, and the examples' losses as a function of them.

Forward-mode differentiation gives the derivative of every example's loss along one direction in the space of weights
by one pass a batch, without a gradient an example. It needs attention that is written out (`eager`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from probes.errors import RunFolderError, UsageError
from probes.guard.recorded_path import RecordedExample, RecordedPath, Tensors
from probes.models.architecture import logits_of_last
from probes.models.padding import pad_tokens
from probes.models.view import ModelView, view_of

_IGNORED = -100
_BATCH_TOKENS = 1024  # padded, that are held with what their gradient needs at a time
_ROUNDING = 0.5  # of the way that the weights went: two trainings are further apart, bfloat16's rounding is less


class Replay:
    """A model, and the examples that it was trained on.

    Attributes:
        view: the model with whatever weights it was last put on.
        weights: its trained weights by name.
    """

    def __init__(self, model: ModelView | nn.Module, examples: Sequence[RecordedExample], names: Sequence[str]) -> None:
        """Prepare a model.

        Args:
            model: a causal language model of transformers, with its adapter where one was trained.
            examples: what was trained on.
            names: of the trained weights.

        Raises:
            UsageError: the model has no such weight.
        """
        self.view = view_of(model)
        inner = self.view.model
        if hasattr(inner, "set_attn_implementation"):
            inner.set_attn_implementation("eager")
        if hasattr(inner, "set_experts_implementation"):
            inner.set_experts_implementation("eager")
        parameters = dict(inner.eval().requires_grad_(False).named_parameters())
        unknown = sorted(set(names) - set(parameters))
        if unknown:
            raise UsageError("The model has no such weight", got=unknown[0], expected="the model of the recorded path")
        self.weights = {name: parameters[name].requires_grad_(True) for name in names}
        self.examples = examples

    def put(self, weights: Tensors | Iterable[tuple[str, Tensor]], part: float = 1.0) -> None:
        """Give the model these weights, or go so much of the way to them."""
        with torch.no_grad():
            for name, weight in weights.items() if isinstance(weights, dict) else weights:
                self.weights[name].lerp_(weight, part) if part < 1 else self.weights[name].copy_(weight)

    @property
    def present(self) -> Tensors:
        """The trained weights as they are, without history."""
        return {name: weight.detach() for name, weight in self.weights.items()}

    def losses(self, places: Sequence[int]) -> Callable[[Tensors], Float[Tensor, " example"]]:
        """The summed loss of each of these examples, in nats, as a function of the trained weights.

        Logits are made from the first token on that counts in any of them.
        """
        chosen = [self.examples[place] for place in places]
        ids, _ = pad_tokens([example.ids for example in chosen], self.view.device)
        labels, _ = pad_tokens([example.labels for example in chosen], self.view.device, fill=_IGNORED)
        first = next((n for n, any_counts in enumerate((labels[:, 1:] != _IGNORED).any(dim=0)) if any_counts), 0)
        targets = labels[:, 1 + first :]
        counted = targets != _IGNORED
        shortened = logits_of_last(self.view.model, ids.shape[1] - first)

        def losses_at(weights: Tensors) -> Tensor:
            inputs = {"input_ids": ids, "use_cache": False, **shortened}
            every = functional_call(self.view.model, weights, (), inputs).logits
            logits = every[:, -1 - targets.shape[1] : -1].float()
            chosen_logits = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
            return ((logits.logsumexp(-1) - chosen_logits) * counted).sum(dim=1)

        return losses_at

    def along(self, places: Sequence[int], direction: Tensors) -> Float[Tensor, " example"]:
        """⟨∇ℓ_z, direction⟩ of each example's summed loss, at the present weights: one forward-mode pass a batch."""
        return self.losses_along(places, [direction])[1][0]

    def losses_along(
        self, places: Sequence[int], directions: Sequence[Tensors]
    ) -> tuple[Float[Tensor, " example"], Float[Tensor, "direction example"]]:
        """Each example's summed loss at the present weights, and its derivative along each direction.

        A direction may leave weights out, which then stay.
        """
        present = self.present
        losses, slopes = [], []
        for some in self.batches(places):
            loss = self.losses([places[number] for number in some])
            pairs: list[Any] = [
                jvp(partial(_beside, loss, present), ({name: present[name] for name in direction},), (direction,))
                for direction in directions
            ]
            losses.append(pairs[0][0].detach())
            slopes.append(torch.stack([slope.detach() for _, slope in pairs]))
        return torch.cat(losses), torch.cat(slopes, dim=1)

    def gradient_along(
        self, places: Sequence[int], multipliers: Float[Tensor, " example"], direction: Tensors
    ) -> tuple[Tensors, Tensors]:
        """The gradient of Σ_z m_z ℓ_z at the present weights, and its derivative along `direction` (H · direction)."""
        gradient: Any = grad(self._weighted_loss(places, multipliers))
        pair: Any = jvp(gradient, (self.present,), (direction,))
        return pair

    def gradient(
        self, places: Sequence[int], multipliers: Float[Tensor, " example"], names: Sequence[str] | None = None
    ) -> Tensors:
        """The gradient of Σ_z m_z ℓ_z at the present weights, with respect to some of them, or to all.

        By torch's autograd: `torch.func.grad` would hold what a second derivative needs, two and a half times as much.
        """
        names = list(names or self.weights)
        total: list[Tensor] = []
        for some in self.batches(places):
            present = self.present
            chosen = [present[name].requires_grad_() for name in names]
            loss = self._weighted_loss([places[number] for number in some], multipliers[some])(present)
            part = torch.autograd.grad(loss, chosen, materialize_grads=True)
            total = [tensor.add_(own) for tensor, own in zip(total, part, strict=True)] if total else list(part)
        return dict(zip(names, total, strict=True))

    def batches(self, places: Sequence[int]) -> Iterator[list[int]]:
        """Which of these examples, by their number here, are read together: what they need has to find room."""
        some, longest = list[int](), 0
        for number, place in enumerate(places):
            length = len(self.examples[place].ids)
            if some and max(longest, length) * (len(some) + 1) > _BATCH_TOKENS:
                yield some
                some, longest = [], 0
            some.append(number)
            longest = max(longest, length)
        if some:
            yield some

    def _weighted_loss(self, places: Sequence[int], multipliers: Tensor) -> Callable[[Tensors], Tensor]:
        losses = self.losses(places)
        return lambda weights: (losses(weights) * multipliers).sum()


def _beside(function: Callable[[Tensors], Tensor], fixed: Tensors, weights: Tensors) -> Tensor:
    """A function of all weights, as one of some of them."""
    return function({**fixed, **weights})


def dot(left: Tensors, right: Tensors) -> float:
    """⟨left, right⟩ over all weights together, summed in float64; names that one of them lacks count as zero."""
    return float(sum(float((left[name].double() * right[name].double()).sum()) for name in left if name in right))


def check_path(path: RecordedPath, replay: Replay) -> None:
    """Refuse a path that does not lead to the weights that the model holds, but for their rounding on disk.

    Raises:
        RunFolderError: it leads elsewhere.
    """
    start, end = path.tensors(1, replay.view.device).weights, path.end(replay.view.device)
    way = {name: weight - start[name] for name, weight in end.items()}
    gap = {name: weight - replay.present[name] for name, weight in end.items()}
    if dot(gap, gap) > _ROUNDING**2 * dot(way, way):
        raise RunFolderError(
            f"The path in {path.folder} does not lead to the checkpoint at step {path.steps}",
            next_step="Train again with --record-path.",
        )
