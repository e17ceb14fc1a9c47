"""Fine-tuning under a guard, for people without a script: transformers' Trainer underneath, answers alone count.

Interrupted, it goes on from its last whole checkpoint when it is started again with the same settings.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import TrainerCallback

from probes.errors import UsageError
from probes.guard.callback import ReversionGuard
from probes.guard.examples import Answered, Example, collate, items_of
from probes.guard.guarded_direction import GuardError
from probes.guard.resuming import WholeCheckpoint, forget_after, mark_whole, whole_checkpoints
from probes.guard.trainer_path import TrainerPath
from probes.lineage import CheckpointRef
from probes.lineage.raw_form import from_home
from probes.models.loading import load_model, load_tokenizer, no_progress_bar
from probes.models.precision import in_fitting_precision
from probes.models.source import folder_of
from probes.models.weights import WeightFiles
from probes.progress import Progress, Report, silent
from probes.store import is_unfinished, write_json
from probes.store.documents import read_object

CHECKPOINTS = "checkpoints"
_IDENTITY = "training.json"


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Attributes:
        method: `full`, or `lora` on every linear layer.
        steps: optimiser steps.
        learning_rate: its peak; None is 1e-5 for full, 2e-4 for LoRA.
        batch_size: examples in a batch.
        gradient_accumulation_steps: batches in a step.
        max_length: tokens after which an example is cut; None is the model's context.
        warmup: steps of linear rise.
        decay: the rate then falls linearly to zero; else it stays.
        save_every: steps between checkpoints; None is a tenth of all.
        max_grad_norm: the task's gradient is clipped to it; 0 is never.
        rank: of LoRA.
        seed: of the data's order and of dropout.
        bf16: autocast to bfloat16.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
    """

    method: Literal["full", "lora"] = "full"
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_length: int | None = None
    warmup: int = 0
    decay: bool = False
    save_every: int | None = None
    max_grad_norm: float = 1.0
    rank: int = 16
    seed: int = 0
    bf16: bool = False
    gradient_checkpointing: bool = False

    @property
    def peak_learning_rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate if self.learning_rate is not None else (1e-5 if self.method == "full" else 2e-4)


class Unguarded(TrainerCallback):
    """What a training without a guard still needs of one: its checkpoints are marked where they are whole.

    Attributes:
        stopped: None: nothing stops it.
        last_healthy: None: nobody looks at its health.
    """

    stopped: str | None = None
    last_healthy: Path | None = None

    def __init__(self, *, record_path: bool = False) -> None:
        """Record the path of the training, or not."""
        self._path = TrainerPath() if record_path else None

    @property
    def records_path(self) -> bool:
        """Whether it has to see every batch whole."""
        return self._path is not None

    def join(self, trainer: Any) -> Unguarded:
        """Add this to a Trainer."""
        trainer.add_callback(self)
        return self

    def conclude(self, checkpoints: Sequence[WholeCheckpoint]) -> None:
        """Nothing is left to be finished."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What lies beyond the step that training goes on from is written anew."""
        del control
        forget_after(Path(str(args.output_dir)), state.global_step)
        if self._path is not None:
            self._path.begin(args, state, kwargs)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradient is whole."""
        del state, control, kwargs
        if self._path is not None:
            self._path.before(args.max_grad_norm or 0.0)
            self._path.add_guard()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The optimiser has stepped."""
        del args, state, control, kwargs
        if self._path is not None:
            self._path.after()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step is recorded before its checkpoint is saved."""
        del args, control, kwargs
        if self._path is not None:
            self._path.end_step(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The path is whole."""
        del args, control, kwargs
        if self._path is not None:
            self._path.end(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The checkpoint is whole."""
        del control, kwargs
        mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", ringing=(), stopped=None)


AnyGuard = TypeVar("AnyGuard", bound="ReversionGuard | Unguarded")


def fine_tune(
    start: CheckpointRef,
    task: Sequence[Example],
    out: Path,
    training: Training,
    make_guard: Callable[[Path], AnyGuard],
    about: dict[str, Any],
    *,
    device: str = "auto",
    report: Report = silent,
) -> AnyGuard:
    """Fine-tune a checkpoint on requests with answers, into `out/checkpoints/checkpoint-N`, watched by a guard.

    Args:
        start: where it starts from.
        task: (request, answer) pairs, of which the answers count; or texts, of which every token does.
        out: a new folder, or that of the same training, interrupted. It becomes a run folder.
        training: how.
        make_guard: makes the guard that records in the given folder, or `Unguarded`.
        about: what else decides the result; an interrupted training with another is not gone on with.
        device: `auto` or `cpu`.
        report: told after each step.

    Returns:
        The guard, with its readings.

    Raises:
        UsageError: the folder holds something else or a finished training, or no example fits.
        GuardError: the loss or the penalty is not finite; the checkpoints saved before it stay.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("Training needs accelerate", next_step="pip install 'gravity-probe[train]'")
    if training.steps < 1 or training.batch_size < 1 or not training.peak_learning_rate > 0:
        raise UsageError(
            "This is no training",
            got=f"{training.steps} steps of {training.batch_size} examples at {training.peak_learning_rate}",
        )
    _claim(out, {"training": dataclasses.asdict(training), "task": len(task), **about})
    guard = make_guard(out)
    checkpoints = whole_checkpoints(out / CHECKPOINTS)
    if checkpoints and (checkpoints[-1].step >= training.steps or checkpoints[-1].stopped):
        guard.conclude(checkpoints)
        _finish(out, guard)
        return guard
    folder = folder_of(start.model, start.revision, allow_pickle=False)
    tokenizer = load_tokenizer(folder)
    model = _model(folder, start, training, device)
    limit = training.max_length or getattr(model.config.get_text_config(), "max_position_embeddings", None)
    data = Answered(items_of(task, tokenizer), limit)
    whole = guard.records_path or training.gradient_checkpointing  # a cache and checkpointing exclude each other
    trainer = _trainer(model, tokenizer, data, out / CHECKPOINTS, training, device, report, whole=whole)
    guard.join(trainer)
    with no_progress_bar():
        trainer.train(resume_from_checkpoint=str(checkpoints[-1].folder) if checkpoints else None)
    _finish(out, guard)
    return guard


def is_finished(out: Path) -> bool:
    """Whether a training in this folder has come to its end."""
    claim = _claim_on(out)
    return claim is not None and bool(claim["finished"])


def _claim_on(out: Path) -> dict[str, Any] | None:
    """Which training a folder belongs to; None where it belongs to none."""
    file = out / _IDENTITY
    if not file.is_file():
        return None
    claim = read_object(file, kind="description of a training", error=GuardError, finite=False)
    identity = claim.get("identity")
    if "finished" not in claim or not isinstance(identity, dict) or not isinstance(identity.get("training"), dict):
        raise GuardError(f"{file} is damaged", expected="identity and finished", next_step="Give --out a new folder.")
    return claim


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Take a new folder, or the one that the same training has left."""
    file, identity = out / _IDENTITY, json.loads(json.dumps(identity, default=str))
    if not out.exists() or (out.is_dir() and all(is_unfinished(child) for child in out.iterdir())):
        write_json(file, {"identity": identity, "finished": False})
        return
    claim = _claim_on(out)
    if claim is None or _current_names(claim["identity"]) != identity or claim["finished"]:
        occupant = "a finished training"
        if claim is None or _current_names(claim["identity"]) != identity:
            occupant = "another folder" if claim is None else "another training"
        raise UsageError(f"{out} is already there", got=occupant, next_step="Give --out a new folder.")


def _current_names(identity: dict[str, Any]) -> dict[str, Any]:
    """Earlier versions wrote `rows` and `accumulation`, and knew no `decay`."""
    names = {"rows": "batch_size", "accumulation": "gradient_accumulation_steps"}
    training = {"decay": False} | {names.get(name, name): value for name, value in identity["training"].items()}
    return {**identity, "training": training}


def _finish(out: Path, guard: ReversionGuard | Unguarded) -> None:
    claim = _claim_on(out) or {}
    healthy = from_home(str(guard.last_healthy), out.resolve()) if guard.last_healthy else None
    write_json(out / _IDENTITY, {**claim, "finished": True, "stopped": guard.stopped, "last_healthy": healthy})


def _model(folder: Path, start: CheckpointRef, training: Training, device: str) -> Any:
    """The model with the weights that are to be trained switched on."""
    pickled = WeightFiles.of_model(folder, allow_pickle=False).pickled
    model = load_model(folder, torch.float32 if training.method == "full" else "auto", pickled=pickled)
    if start.adapter:
        raise GuardError(
            "Training cannot start from an adapter", got=str(start), next_step="Merge it into its base first."
        )
    if training.method == "full":
        return model.requires_grad_(True).train()
    if device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        model = in_fitting_precision(model, torch.device("cpu"))
    from peft import LoraConfig, get_peft_model

    # The factors are drawn from the global random state; the same seed then starts every arm from the same adapter.
    with torch.random.fork_rng():
        torch.manual_seed(training.seed)
        tuned = get_peft_model(
            model, LoraConfig(r=training.rank, lora_alpha=2 * training.rank, target_modules="all-linear")
        )
    config: Any = tuned.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set, whose order in a file differs between processes
    return tuned.train()


def _trainer(
    model: Any,
    tokenizer: Any,
    data: Answered,
    output: Path,
    training: Training,
    device: str,
    report: Report,
    *,
    whole: bool,
) -> Any:
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from probes.guard.answer_trainer import AnswerTrainer

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, control, kwargs
            report(Progress("fine-tuning", state.global_step, training.steps))

    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=training.steps,
        learning_rate=training.peak_learning_rate,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        warmup_steps=training.warmup,
        lr_scheduler_type="linear" if training.decay else "constant_with_warmup",
        max_grad_norm=training.max_grad_norm,
        save_strategy="steps",
        save_steps=training.save_every or max(1, training.steps // 10),
        seed=training.seed,
        data_seed=training.seed,
        bf16=training.bf16,
        use_cpu=device == "cpu" or (training.bf16 and not torch.cuda.is_available()),
        gradient_checkpointing=training.gradient_checkpointing,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = (Trainer if whole else AnswerTrainer)(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[Told()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
