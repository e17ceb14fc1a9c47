"""What a guard does to training, as one interface: a loss, a turned gradient, edits of activations or weights."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.reading import Reader


class Effect:
    """Leaves training as it is; each kind of effect overrides what it needs.

    Attributes:
        kept: what must outlive an interruption of training, by name: references of the aligned model, multipliers.
        needs_answers: whether the prompts must have answers behind them.
        has_loss: whether `loss` gives one.
    """

    needs_answers: bool = False
    has_loss: bool = False

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """What it acts along, in an order of its own; empty where it has no direction."""
        return ()

    def prepare(self, reader: Reader) -> None:
        """Read what is needed of the aligned model, which is what `reader` reads now."""

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """What is added to the task's loss, on the chosen prompts."""
        raise NotImplementedError

    def redirect(self, reader: Reader, chosen: Tensor) -> None:
        """Change the task's gradient, which is in the parameters' `grad`."""

    def editing(self, blocks: Sequence[nn.Module]) -> AbstractContextManager[None]:
        """While open, forward passes in training mode are edited."""
        del blocks
        return contextlib.nullcontext()

    def after_step(self, model: nn.Module) -> None:
        """Change the weights that the optimiser has just written."""


class Displacement(Effect):
    """Looks at h_t(x) − h_S(x) at the guarded layers."""

    has_loss = True

    def __init__(
        self, direction: GuardedDirection, *, strength: float, answer_tokens: int = 0, earlier: bool = True
    ) -> None:
        """Say where to look.

        Args:
            direction: layers, unit vectors and the length that counts as 1.
            strength: λ.
            answer_tokens: how many tokens of each prompt's answer are looked at besides its last own token.
            earlier: take the gradient through the keys and values of earlier tokens too, see `Reader.stream`. Without
                it the penalty costs half, and holds less: on the organism at a high learning rate, far less.
        """
        super().__init__()
        self.direction, self.strength, self.answer_tokens = direction, strength, answer_tokens
        self.earlier = earlier
        self.needs_answers = answer_tokens > 0

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """The guarded direction."""
        return self.direction.tensors

    def prepare(self, reader: Reader) -> None:
        """Read h_S once."""
        with torch.no_grad():
            self.tensors["aligned"] = self._stream(reader, reader.every())

    def displacements(self, reader: Reader, chosen: Tensor) -> Float[Tensor, "layer row d_model"]:
        """h_t − h_S of the chosen prompts, differentiable.

        Raises:
            GuardError: h_S has not been read.
        """
        if "aligned" not in self.tensors:
            raise GuardError(
                "The penalty has no reference yet", next_step="Call attach() while the model is the aligned one."
            )
        now = self._stream(reader, chosen)
        owners = reader.owners(reader.every(), self.answer_tokens)
        rows = torch.cat([(owners == prompt).nonzero().flatten() for prompt in chosen])
        return now - self.tensors["aligned"].to(now.device)[:, rows.to(now.device)]

    def _stream(self, reader: Reader, chosen: Tensor) -> Float[Tensor, "layer row d_model"]:
        return reader.stream(chosen, self.direction.layers, self.answer_tokens, earlier=self.earlier)

    def projections(self, reader: Reader, chosen: Tensor) -> Float[Tensor, "layer row"]:
        """⟨h_t − h_S, v̂⟩ / ‖v‖ of the chosen prompts: 1 is all the way back to the witness."""
        return project_onto(self.displacements(reader, chosen), self.direction)


def project_onto(moved: Float[Tensor, "layer row d_model"], direction: GuardedDirection) -> Float[Tensor, "layer row"]:
    """Displacements along a direction, in its own length."""
    unit, norm = direction.unit.to(moved.device), direction.norm.to(moved.device)
    return torch.einsum("lpd,ld->lp", moved, unit) / norm[:, None]


class Together(Effect):
    """Several effects at once; their losses are added."""

    has_loss = True

    def __init__(self, *effects: Effect) -> None:
        super().__init__()
        self.effects = effects
        self.needs_answers = any(effect.needs_answers for effect in effects)

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """Those of each."""
        return tuple(tensor for effect in self.effects for tensor in effect.directions)

    def prepare(self, reader: Reader) -> None:
        """Prepare each."""
        for effect in self.effects:
            effect.prepare(reader)
        self.tensors = {
            f"{n}.{name}": value for n, part in enumerate(self.effects) for name, value in part.tensors.items()
        }

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """The sum of the losses."""
        for name, value in self.tensors.items():
            number, _, inner = name.partition(".")
            self.effects[int(number)].tensors[inner] = value
        return torch.stack([effect.loss(reader, chosen) for effect in self.effects]).sum()
