"""What `fine_tune` gives transformers' Trainer: its arguments, its optimiser and its callbacks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from probes.guard.answer_trainer import AnswerTrainer
from probes.guard.examples import Answered, collate
from probes.guard.guarded_direction import GuardError
from probes.lineage import CheckpointRef
from probes.lineage.references import ADAPTER_CONFIG
from probes.progress import Progress, Report
from probes.store import write_json, write_text
from probes.store.documents import read_object
from probes.store.remote import Mirror
from probes.store.remote.refusals import UnreachableError
from probes.training.allocation import save_allocation
from probes.training.optimizers import optimizer
from probes.training.tuners import end_step

if TYPE_CHECKING:
    from probes.guard.fine_tuning import Training


def make_trainer(
    model: Any,
    tokenizer: Any,
    data: Answered,
    output: Path,
    training: Training,
    device: str,
    report: Report,
    *,
    whole: bool,
) -> AnswerTrainer:
    """The Trainer of one training, which writes its checkpoints into `output`; `whole` as of `AnswerTrainer`."""
    trainer = AnswerTrainer(
        whole=whole,
        model=model,
        args=_arguments(training, output, device),
        train_dataset=data,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[_StepReport(report, training.steps), _RankAllocation()],
        optimizers=(_optimizer(model, training), None),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _StepReport(TrainerCallback):
    """Reports every step."""

    def __init__(self, report: Report, steps: int) -> None:
        self._report, self._steps = report, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, control, kwargs
        self._report(Progress("fine-tuning", state.global_step, self._steps))


class _RankAllocation(TrainerCallback):
    """Lets a tuner share its ranks out again behind every step, and keeps with each checkpoint how that stands."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, control
        end_step(kwargs["model"], state.global_step + 1)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the checkpoint is marked whole."""
        del control
        save_allocation(kwargs["model"], Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


class NamingBase(TrainerCallback):
    """Writes into each saved adapter what its base is, where that is no folder here: peft names its local copy."""

    def __init__(self, base: CheckpointRef) -> None:
        """Name this base."""
        self._base = base

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the checkpoint is marked whole."""
        del control, kwargs
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        file, card = folder / ADAPTER_CONFIG, folder / "README.md"
        if file.is_file() and not self._base.is_local:
            config = read_object(file, kind="description of an adapter", error=GuardError, finite=False)
            copied = config.get("base_model_name_or_path")
            write_json(file, {**config, "base_model_name_or_path": self._base.model, "revision": self._base.revision})
            if copied and card.is_file():
                write_text(card, card.read_text("utf-8").replace(copied, self._base.model))


class Sending(TrainerCallback):
    """Sends a run behind a URL with each saved checkpoint; where the store does not answer, with a later one."""

    def __init__(self, mirror: Mirror, report: Report) -> None:
        """Send what a mirror holds, which is written alone."""
        self._mirror, self._report = mirror, report

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Behind the guard's own event, which marks the checkpoint whole."""
        del args, state, control, kwargs
        with contextlib.suppress(UnreachableError):
            self._mirror.push(self._report)


def _arguments(training: Training, output: Path, device: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        max_steps=training.steps,
        learning_rate=training.peak_learning_rate,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        warmup_steps=training.warmup,
        lr_scheduler_type="linear" if training.decay else "constant_with_warmup",
        max_grad_norm=training.max_grad_norm,
        weight_decay=training.weight_decay,
        save_strategy="steps",
        save_steps=training.save_every or max(1, training.steps // 10),
        seed=training.seed,
        data_seed=training.seed,
        bf16=training.bf16,
        use_cpu=device == "cpu" or (training.bf16 and not torch.cuda.is_available()),
        gradient_checkpointing=training.gradient_checkpointing or None,  # set at all, it warns of its newer name
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _optimizer(model: Any, training: Training) -> torch.optim.Optimizer | None:
    """What steps the weights; None leaves it to the Trainer, where nothing else was asked for."""
    if training.optimizer is None:
        return None
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    rate, decay = training.peak_learning_rate, training.weight_decay
    return optimizer(weights, training.optimizer, rate, decay, model=model, **training.optimizer_options)
