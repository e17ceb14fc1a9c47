"""Defences on the same prompts as the block's: the full anchor, the aligned model's own answers and predictions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from probes.guard.guarded_direction import GuardError
from probes.guard.penalties.effect import Displacement, Effect
from probes.guard.reading import Reader


class Anchor(Displacement):
    """λ · mean ‖h_t − h_S‖² / ‖v‖²: holds prompts still in every direction (Safety Anchor, arXiv 2605.05995)."""

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """The squared distance, in units of the reversion's length."""
        distance = self.displacements(reader, chosen).square().sum(dim=2)
        return self.strength * (distance / self.direction.norm.to(distance.device)[:, None].square()).mean()


class Rehearsal(Effect):
    """λ · the loss on the aligned model's own answers to the penalty prompts: safety rehearsal without further data."""

    needs_answers = True
    has_loss = True

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """Mean negative log-likelihood of the answers' tokens, in nats."""
        logits, targets = reader.answer_logits(chosen)
        return self.strength * cross_entropy(logits, targets)


class Divergence(Effect):
    """λ · mean KL(aligned ‖ now) of the next token, over the aligned model's own answers to the penalty prompts."""

    needs_answers = True
    has_loss = True

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def prepare(self, reader: Reader) -> None:
        """Keep the aligned model's log-probabilities, [row, vocabulary], on the CPU."""
        with torch.no_grad():
            rows = [reader.answer_logits(torch.tensor([row]))[0].log_softmax(dim=-1).cpu() for row in reader.every()]
        self.tensors["aligned"] = torch.cat(rows)

    def loss(self, reader: Reader, chosen: Tensor) -> Float[Tensor, ""]:
        """In nats a token."""
        if "aligned" not in self.tensors:
            raise GuardError(
                "The penalty has no reference yet", next_step="Call attach() while the model is the aligned one."
            )
        logits, _ = reader.answer_logits(chosen)
        counts = [len(answer) for answer in reader.answers]
        starts = [sum(counts[:place]) for place in range(len(counts))]
        rows = [row for prompt in chosen.tolist() for row in range(starts[prompt], starts[prompt] + counts[prompt])]
        aligned = self.tensors["aligned"][rows].to(logits.device)
        return self.strength * (aligned.exp() * (aligned - logits.log_softmax(dim=-1))).sum(dim=-1).mean()
