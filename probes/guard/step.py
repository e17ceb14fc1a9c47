"""The guard itself: between the backward pass and the optimiser's step, it adds its gradient to the task's.

`attach` it while the model is the aligned one; call `step` after the backward pass and any clipping, `after_step` after
the optimiser; keep `editing` open around it all. `probes.guard.loop.train` and `ReversionGuard` do just that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from probes.guard.guarded_direction import GuardError
from probes.guard.model_in_training import LiveModel, undisturbed
from probes.guard.penalties.effect import Effect
from probes.guard.reading import Reader
from probes.models.view import unwrap
from probes.training.preconditioning import effective_strength, reason_against

_LONGEST_ANSWER = 16


class Guard:
    """An effect, the prompts it looks at, and how strongly and how often it acts.

    Attributes:
        effect: what it does.
        on: whether it acts at all; an alarm may switch it on.
        ratio: ‖g_penalty‖ / ‖g_task‖ of the last step, after `gradient_ratio`; None where no loss acted.
        strength: the same of both gradients after the optimiser's preconditioner, of the last step; None where no loss
            acted, or the optimiser has none.
        reason: why there is no `strength`; None where there is one.
        direction_sha256: hash of the layers, directions and lengths that the effect acts along; None where it has none,
            or where an interrupted training of an earlier version goes on, which did not say along which it began.
    """

    def __init__(
        self,
        effect: Effect,
        token_ids: Sequence[Sequence[int]],
        *,
        batch_size: int = 16,
        seed: int = 0,
        gradient_ratio: float | None = None,
        on: bool = True,
    ) -> None:
        """Prepare a guard.

        Args:
            effect: from `modes.make_effect`.
            token_ids: the penalty prompts, rendered.
            batch_size: how many of them a step sees.
            seed: draws them; every process of a data-parallel training has the same, so all add the same gradient.
            gradient_ratio: rescale the penalty's gradient until ‖g_penalty‖ is so many times ‖g_task‖ at every step
                where it has one.
            on: start acting at once.

        Raises:
            GuardError: no prompts in a step, or a ratio that is none.
        """
        if batch_size < 1 or (
            gradient_ratio is not None and not (math.isfinite(gradient_ratio) and gradient_ratio > 0)
        ):
            raise GuardError(
                "A guard needs prompts in each step and a positive ratio of gradients",
                got=f"batch size {batch_size}, ratio {gradient_ratio}",
            )
        self.effect, self.on, self.gradient_ratio = effect, on, gradient_ratio
        self.ratio: float | None = None
        self.strength: float | None = None
        self.reason: str | None = None
        self.direction_sha256 = _sha256(effect.directions)
        self._ids, self._batch_size = token_ids, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._live: LiveModel | None = None
        self._reader: Reader | None = None

    def attach(self, model: nn.Module, tokenizer: Any = None, saved_state: dict[str, Tensor] | None = None) -> None:
        """Read what the effect needs of the aligned model.

        Args:
            model: holds the aligned weights now, unless `saved_state` is given.
            tokenizer: needed by effects that look at the aligned model's answers.
            saved_state: from `state()` of the training that goes on here, in place of reading.

        Raises:
            GuardError: sharded parameters, answers are needed and there is no tokenizer, or the training that goes on
                had other penalty prompts or another direction.
        """
        live = LiveModel(model, tokenizer)
        reader = Reader(live, self._ids)
        with undisturbed(live.model, tokenizer):
            if saved_state is not None:
                self._restore(reader, saved_state)
            else:
                if self.effect.needs_answers:
                    reader.answers = _answers(live, self._ids)
                self.effect.prepare(reader)
        self._live, self._reader = live, reader

    def editing(self) -> AbstractContextManager[None]:
        """While open, the effect's edits of activations are in place."""
        return self.effect.editing(self._attached_model().blocks)

    def step(
        self, model: nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None, max_norm: float = 0.0
    ) -> float:
        """Act on the gradients: call it after the backward pass (and clipping), before the optimiser's step.

        The pass over the penalty prompts is made in evaluation mode (no dropout, no gradient checkpointing), in the
        weights' own precision, on the bare model: no wrapper's hooks run, nothing is communicated.

        Args:
            model: the model of `attach`; may be left out.
            optimizer: that is about to step, for `strength`.
            max_norm: the sum of both gradients is clipped to it; 0 is never.

        Returns:
            What the sum was multiplied with; 1 where nothing was added.

        Raises:
            GuardError: the penalty is not finite, or no trained weight reaches it.
        """
        live, reader = self._attached_model(model), self._reader
        assert reader is not None
        chosen = torch.randperm(len(reader), generator=self._generator)[: self._batch_size]
        self.strength, self.reason = None, "the guard was off"
        if not self.on:
            return 1.0
        self.reason = "this mode adds no gradient"
        with undisturbed(live.model):
            self.effect.redirect(reader, chosen)
            loss = self.effect.loss(reader, chosen) if self.effect.has_loss else None
            added = [] if loss is None else self._add(live.model, loss)
        if not added:
            return 1.0
        clip = clip_factor(float(clip_grad_norm_(live.model.parameters(), max_norm)), max_norm) if max_norm > 0 else 1.0
        self._note_strength([part for part, _ in added], [part for _, part in added], clip, optimizer)
        return clip

    def after_step(self) -> None:
        """Act on the weights: call it after the optimiser's step."""
        if self.on:
            self.effect.after_step(self._attached_model().model)

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed training needs to go on as if it had not stopped."""
        reader = self._reader
        answers, own = [] if reader is None else reader.answers, self.direction_sha256
        return {
            **{f"kept.{name}": value.contiguous() for name, value in self.effect.tensors.items()},
            "answers": torch.tensor([token for answer in answers for token in answer], dtype=torch.long),
            "answer_lengths": torch.tensor([len(answer) for answer in answers], dtype=torch.long),
            "generator": self._generator.get_state(),
            "on": torch.tensor([int(self.on)]),
            **({"direction": torch.tensor([*bytes.fromhex(own)], dtype=torch.uint8)} if own else {}),
        }

    def _restore(self, reader: Reader, state: dict[str, Tensor]) -> None:
        self._refuse_other_direction(state)
        lengths = state["answer_lengths"].tolist()
        if len(lengths) != len(reader):
            raise GuardError(
                "The interrupted training had other penalty prompts",
                got=len(reader),
                expected=f"{len(lengths)} of them",
            )
        reader.answers = [answer.tolist() for answer in state["answers"].split(lengths)] if lengths else []
        self.effect.tensors.update(
            {name.removeprefix("kept."): value for name, value in state.items() if name.startswith("kept.")}
        )
        self._generator.set_state(state["generator"].cpu().to(torch.uint8))
        self.on = bool(state["on"].item())

    def _refuse_other_direction(self, state: dict[str, Tensor]) -> None:
        """What an earlier version has begun does not say along which direction: neither does what goes on from it."""
        before = bytes(state["direction"].tolist()).hex() if "direction" in state else None
        if before is not None and before != self.direction_sha256:
            raise GuardError(
                "The interrupted training was guarded along another direction",
                got=self.direction_sha256 and self.direction_sha256[:12],
                expected=before[:12],
                next_step="Finish it with the version of gravity-probe that began it, or give --out a new folder.",
            )
        self.direction_sha256 = before

    def _attached_model(self, model: nn.Module | None = None) -> LiveModel:
        if self._live is None:
            raise GuardError(
                "The guard has no reference yet", next_step="Call attach() while the model is the aligned one."
            )
        if model is not None and unwrap(model) is not self._live.model:
            raise GuardError("The guard is attached to another model", next_step="Call attach() with this one first.")
        return self._live

    def _add(self, model: nn.Module, loss: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Add the penalty's gradient; returns what each weight got."""
        if not bool(torch.isfinite(loss)):
            raise GuardError("The penalty is not finite", got=loss.item(), next_step="Lower its strength.")
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not loss.requires_grad:
            raise GuardError("No trained weight reaches the guarded layers", next_step="Guard later layers.")
        added = torch.autograd.grad(loss, weights, allow_unused=True)
        scale, parts = self._scale(weights, added), []
        for weight, gradient in zip(weights, added, strict=True):
            if gradient is None:
                continue
            scaled = gradient if scale == 1.0 else gradient * scale
            parts.append((weight, scaled))
            # A gradient that stands alone is a copy: clipping changes it in place, and the part is still read.
            weight.grad = scaled.clone() if weight.grad is None else weight.grad.add_(scaled.to(weight.grad.dtype))
        return parts

    def _note_strength(
        self, weights: list[nn.Parameter], added: list[Tensor], clip: float, optimizer: torch.optim.Optimizer | None
    ) -> None:
        if optimizer is None:
            self.reason = "the optimiser was not given"
            return
        own = {id(weight): part for weight, part in zip(weights, added, strict=True)}
        every = [weight for group in optimizer.param_groups for weight in group["params"]]
        clipped = [None if id(weight) not in own else clip * own[id(weight)] for weight in every]
        self.strength = effective_strength(optimizer, every, clipped)
        self.reason = reason_against(optimizer) or ("the task has no gradient" if self.strength is None else None)

    def _scale(self, weights: list[nn.Parameter], added: Sequence[Tensor | None]) -> float:
        """What the penalty's gradient is multiplied with; notes the ratio."""
        if self.gradient_ratio is None:
            return 1.0
        task = _length([weight.grad for weight in weights])
        own = _length(added)
        if not (task > 0 and own > 0):
            self.ratio = None
            return 1.0
        self.ratio = self.gradient_ratio
        return self.gradient_ratio * task / own


def _sha256(tensors: Sequence[Tensor]) -> str | None:
    """Hash of tensors with their shapes; None of no tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest() if tensors else None


def clip_factor(norm: float, limit: float) -> float:
    """What `clip_grad_norm_` multiplies a gradient of this norm with; a limit of 0 is none."""
    return min(1.0, limit / (norm + 1e-6)) if limit > 0 else 1.0


def gradient_length(model: nn.Module) -> float:
    """‖g‖ over all trained weights together."""
    return _length([weight.grad for weight in model.parameters()])


def _length(gradients: Sequence[Tensor | None]) -> float:
    norms = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _answers(live: LiveModel, token_ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """What the aligned model itself answers, with its stop token where it came to an end."""
    if live.tokenizer is None:
        raise GuardError("This mode looks at the model's answers and needs its tokenizer")
    from probes.behaviour.generate import generate

    generations = generate(live, token_ids, max_new_tokens=_LONGEST_ANSWER)
    stop = live.tokenizer.eos_token_id
    ended = [
        [*answer, stop] if stop is not None and len(answer) < _LONGEST_ANSWER else answer for answer in generations
    ]
    if not all(ended):
        raise GuardError("The aligned model answers a penalty prompt with nothing", next_step="Leave that prompt out.")
    return ended
