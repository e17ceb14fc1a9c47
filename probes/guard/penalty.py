"""The guard's penalty: how far prompts have moved along the reversion direction, as a number with a gradient.

With proj = ⟨h_t(x) − h_S(x), v̂⟩ / ‖v‖ (1 is all the way back to the witness) at the guarded layers, a form of
METHODS section 6 turns it into a loss: `hinge` and its kin hold the model back, `push` drives it on. h_S is read
once, from the aligned model. The source (arXiv 2606.28525) says only that block is an auxiliary loss that opposes
positive motion along the direction; form, layers and weight are options here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from probes.errors import GravityError


class GuardError(GravityError):
    """A penalty that cannot be computed as asked."""


@dataclass(frozen=True)
class GuardedDirection:
    """Where and along what the guard looks.

    Attributes:
        layers: the guarded blocks, rising.
        unit: a unit vector for each guarded layer, [layer, d_model].
        norm: length that counts as 1 at each guarded layer, [layer].
    """

    layers: tuple[int, ...]
    unit: Float[Tensor, "layer d_model"]
    norm: Float[Tensor, " layer"]

    @classmethod
    def from_vectors(
        cls, vectors: Float[np.ndarray, "all_layers d_model"], layers: Sequence[int]
    ) -> GuardedDirection:
        """Take the raw reversion vectors of all layers and keep the guarded ones.

        Raises:
            GuardError: a guarded layer is not there, or its vector is zero or not finite.
        """
        chosen = tuple(sorted(set(layers)))
        if not chosen or chosen[0] < 0 or chosen[-1] >= len(vectors):
            raise GuardError(
                "These layers cannot be guarded", got=list(layers), expected=f"layers from 0 to {len(vectors) - 1}"
            )
        raw = np.asarray(vectors, dtype=np.float64)[list(chosen)]
        norm = np.linalg.norm(raw, axis=1)
        if not (np.isfinite(norm).all() and (norm > 0).all()):
            raise GuardError(
                "The reversion direction is not defined",
                got=f"norms {norm.round(6).tolist()} at layers {list(chosen)}",
                next_step="Take a witness that differs from the aligned model.",
            )
        unit = raw / norm[:, None]
        return cls(chosen, torch.tensor(unit, dtype=torch.float32), torch.tensor(norm, dtype=torch.float32))

    def random(self, seed: int) -> GuardedDirection:
        """The control: isotropic unit vectors in the same layers, counted in the same length."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.unit.shape, generator=generator)
        return GuardedDirection(self.layers, drawn / drawn.norm(dim=1, keepdim=True), self.norm)


Projections = Float[Tensor, "layer prompt"]
Form = Callable[[Projections], Float[Tensor, ""]]


def hinge(projections: Projections) -> Float[Tensor, ""]:
    """Mean of relu(proj)²: every prompt is held back by itself, and one that never moved has no gradient."""
    return projections.relu().square().mean()


def hinge_of_mean(projections: Projections) -> Float[Tensor, ""]:
    """relu(mean proj)² over each layer's batch: only the mean displacement is held back."""
    return projections.mean(dim=1).relu().square().mean()


def signed(projections: Projections) -> Float[Tensor, ""]:
    """Mean proj: pulls away from the witness without end."""
    return projections.mean()


def push(projections: Projections, cap: float = 2.0) -> Float[Tensor, ""]:
    """−mean min(proj, cap): drives towards the witness, and lets go of a prompt that is `cap` reversions along."""
    return -projections.clamp(max=cap).mean()


FORMS: Mapping[str, Form] = {"hinge": hinge, "hinge_of_mean": hinge_of_mean, "signed": signed, "push": push}


@contextlib.contextmanager
def residuals(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While open, each forward pass leaves the outputs of these blocks in the yielded mapping, by layer.

    The outputs are the tensors themselves, with their gradient history; nothing is changed. On leaving, also by an
    exception, no hook remains.
    """
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[layer] = output if isinstance(output, Tensor) else output[0]

        return hook

    with contextlib.ExitStack() as stack:
        for layer in layers:
            handle = blocks[layer].register_forward_hook(keep(layer))
            stack.callback(handle.remove)
        yield seen


class Penalty:
    """`strength` × a form of the projections of some prompts; call it for the loss, after `anchor()`.

    The prompts are right-padded, and only each one's last own token is read: under a causal mask nothing behind a
    token can reach it, so neither mask nor position ids are needed.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: Sequence[nn.Module],
        token_ids: Sequence[Sequence[int]],
        direction: GuardedDirection,
        *,
        form: str = "hinge",
        strength: float = 10.0,
    ) -> None:
        """Prepare the prompts.

        Args:
            model: a Hugging Face causal language model; its body alone is run, never the unembedding.
            blocks: its blocks in order.
            token_ids: the penalty prompts, rendered.
            direction: what to look along, and where.
            form: a name from `FORMS`.
            strength: λ.

        Raises:
            GuardError: no prompts, or no such form.
        """
        if not token_ids or not all(len(ids) for ids in token_ids):
            raise GuardError(
                "The penalty needs prompts", got=f"{len(token_ids)} prompts", expected="at least one, none empty"
            )
        if form not in FORMS:
            raise GuardError("There is no such penalty", got=repr(form), expected=", ".join(FORMS))
        self._body: nn.Module = model.base_model  # type: ignore[assignment]
        self._blocks, self._direction, self._form, self.strength = blocks, direction, FORMS[form], strength
        self._last = torch.tensor([len(ids) - 1 for ids in token_ids])
        self._ids = torch.zeros(len(token_ids), int(self._last.max()) + 1, dtype=torch.long)
        for row, ids in zip(self._ids, token_ids, strict=True):
            row[: len(ids)] = torch.tensor(list(ids))
        self._anchor: Tensor | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def anchor(self) -> None:
        """Read h_S: the model's weights are now those of the aligned model."""
        with torch.no_grad():
            self._anchor = self._read(torch.arange(len(self)))

    def projections(self, chosen: Tensor) -> Projections:
        """proj of the chosen prompts (indices) at every guarded layer, differentiable in the model's weights.

        Raises:
            GuardError: `anchor()` has not been called.
        """
        if self._anchor is None:
            raise GuardError(
                "The penalty has no reference yet", next_step="Call anchor() while the model is the aligned one."
            )
        moved = self._read(chosen) - self._anchor[:, chosen]
        return torch.einsum("lpd,ld->lp", moved, self._direction.unit) / self._direction.norm[:, None]

    def __call__(self, chosen: Tensor) -> Float[Tensor, ""]:
        """λ · form(proj) of the chosen prompts."""
        return self.strength * self._form(self.projections(chosen))

    def _read(self, chosen: Tensor) -> Float[Tensor, "layer prompt d_model"]:
        last = self._last[chosen]
        ids = self._ids[chosen, : int(last.max()) + 1]
        with residuals(self._blocks, self._direction.layers) as seen:
            self._body(input_ids=ids, use_cache=False)
        rows = torch.arange(len(chosen))
        return torch.stack([seen[layer][rows, last] for layer in self._direction.layers])
