"""Transformers' Trainer, computing of each batch only what the loss of its answers needs.

What all requests begin with goes through the model once a batch, with its gradient, and logits are made where an answer
begins and behind it. Loss and gradient are the Trainer's own, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from probes.errors import GravityError
from probes.guard.examples import IGNORED
from probes.guard.model_in_training import LiveModel, draws_numbers, dropout_rate, undisturbed
from probes.models.architecture import accepts
from probes.models.prefix import answer_inputs, prefix_fault
from probes.models.view import ModelView
from probes.training.allocation import restore_allocation
from probes.training.tuners import auxiliary_loss


class AnswerTrainer(Trainer):
    """Trains on batches of `examples.collate`, on the task's loss and what a tuner adds to it."""

    _seen_model: Any = None
    _view: LiveModel | None = None
    current_gradient_accumulation_steps: int = 1  # the Trainer sets it in training: the step's own number of batches

    def __init__(self, *args: Any, whole: bool = False, **kwargs: Any) -> None:
        """As the Trainer; with `whole`, every batch is read whole."""
        super().__init__(*args, **kwargs)
        self._whole = whole

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The Trainer's loss and the tuner's own; of a model whose passes cannot be shortened, on the whole batch."""
        if not self._whole:
            inputs = self._needed_inputs(model, inputs)
        loss: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        more = auxiliary_loss(model)
        if more is None:
            return loss
        # Of a loss over all items of the step the Trainer takes the sum over batches, else their mean.
        if self.model_accepts_loss_kwargs and num_items_in_batch is not None:
            more = more / self.current_gradient_accumulation_steps
        return (loss[0] + more, loss[1]) if return_outputs else loss + more

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As the Trainer; of a tuner whose factors peft has cut in the checkpoint, the whole ones beside them."""
        tuned: Any = self.model if model is None else model
        if not restore_allocation(tuned, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _needed_inputs(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        if model is not self._seen_model:
            self._seen_model, self._view = model, _view_of(model)
        if self._view is None:
            return inputs
        with self.accelerator.autocast():
            return shorten(self._view, inputs)


def shorten(view: ModelView, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with the same loss and gradient that leave out what the loss does not hang on.

    Args:
        view: of the model, which may be wrapped by peft when it is given the inputs.
        inputs: `input_ids`, `attention_mask` and `labels` [row, time], filled on the right.
    """
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"].bool(), inputs["labels"]
    texts = [row[present].tolist() for row, present in zip(ids, mask, strict=True)]
    columns = torch.nonzero((labels != IGNORED).any(dim=0)).flatten().tolist()
    first = columns[0] - 1 if columns and columns[0] > 0 else 0  # its logits decide the first token that counts
    return {**answer_inputs(view, texts, first, differentiable=True), "labels": labels[:, first:]}


def _view_of(model: Any) -> LiveModel | None:
    """The model as its prefix is read; None where its passes are left as they are.

    They are where a pass is drawn at random, where several processes wait for each other's passes, where the router has
    a loss of its own, and where the model keeps no cache of keys and values.
    """
    if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
        return None
    try:
        view = LiveModel(model)
    except GravityError:
        return None
    router = getattr(view.config.get_text_config(), "output_router_logits", False)
    if dropout_rate(model) or router or not accepts(view.model, "logits_to_keep"):
        return None
    if draws_numbers(view.model):
        return None
    with undisturbed(view.model):
        return view if prefix_fault(view) is None else None
