"""Fine-tuning under a guard, for people without a script: transformers' Trainer underneath, answers alone count.

Interrupted, it goes on from its last whole checkpoint when it is started again with the same settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from probes.errors import GravityError, UsageError
from probes.guard.callback import ReversionGuard
from probes.guard.examples import Answered, Example, items_of
from probes.guard.guarded_direction import GuardError
from probes.guard.resuming import whole_checkpoints
from probes.guard.unguarded import Unguarded
from probes.lineage import CheckpointRef
from probes.lineage.raw_form import from_home
from probes.models.identity import weights_sha256
from probes.models.loading import context_length, load_config, load_model, load_tokenizer, no_progress_bar
from probes.models.precision import in_fitting_precision
from probes.models.source import folder_of
from probes.models.weights import WeightFiles
from probes.progress import Report, silent
from probes.store import fingerprint, write_json
from probes.store.documents import read_object
from probes.store.exclusive import holding_mirror, is_empty
from probes.store.remote import mirror_of
from probes.store.remote.index import OWN_FILES
from probes.training.allocation import begins_anew
from probes.training.optimizers import check_optimizer
from probes.training.tuners import (
    FULL,
    attach_tuner,
    check_tuner,
    is_recorded,
    module_ranks,
)

_log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_IDENTITY = "training.json"
_DATA, _START = _HASHES = "data_sha256", "start_sha256"  # what earlier versions did not write
_DATA_FILE = "data_file"  # may move, and decides nothing


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Attributes:
        method: `full`, or a tuner: a name from `probes.training.tuners`.
        steps: optimiser steps.
        learning_rate: its peak; None is 1e-5 for full, 2e-4 for every tuner.
        batch_size: examples in a batch.
        gradient_accumulation_steps: batches in a step.
        max_length: tokens after which an example is cut; None is the model's context.
        warmup: steps of linear rise.
        decay: the rate then falls linearly to zero; else it stays.
        save_every: steps between checkpoints; None is a tenth of all.
        max_grad_norm: the task's gradient is clipped to it; 0 is never.
        rank: of LoRA and DoRA, where their options say none.
        seed: of the data's order and of dropout.
        bf16: autocast to bfloat16.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
        method_options: of the tuner.
        optimizer: a name from `probes.training.optimizers`; None is the Trainer's own, AdamW.
        optimizer_options: its own.
        weight_decay: of matrices.
    """

    method: str = FULL
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
    method_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str | None = None
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0

    @property
    def peak_learning_rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate if self.learning_rate is not None else (1e-5 if self.method == FULL else 2e-4)

    def tuner(self) -> Any:
        """The configuration that the tuner is attached by; None for `full`. Errors as `check_tuner`."""
        return check_tuner(self.method, self.method_options, steps=self.steps, rank=self.rank)


# What earlier versions did not write of a training, and what it was then.
_LATER = {"decay": False, "method_options": {}, "optimizer": None, "optimizer_options": {}, "weight_decay": 0.0}


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
    data_file: Path | None = None,
    report: Report = silent,
) -> AnyGuard:
    """Fine-tune a checkpoint on requests with answers, into `out/checkpoints/checkpoint-N`, watched by a guard.

    Args:
        start: where it starts from.
        task: (request, answer) pairs, of which the answers count; or texts, of which every token does.
        out: a new folder, or that of the same training, interrupted. It becomes a run folder. The mirror of a URL is
            held until the end, and what is there is sent with each saved checkpoint, at the end, and after an error.
        training: how.
        make_guard: makes the guard that records in the given folder, or `Unguarded`.
        about: what else decides the result; an interrupted training with another is not gone on with.
        device: `auto` or `cpu`.
        data_file: what the task was read from, which is noted beside the training.
        report: told after each step.

    Returns:
        The guard, with its readings.

    Raises:
        UsageError: the folder holds something else or a finished training, or no example fits.
        GuardError: the loss or the penalty is not finite; the checkpoints saved before it stay.
        RemoteError: another process writes to what is mirrored, or its store refuses.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("Training needs accelerate", next_step="pip install 'gravity-probe[train]'")
    if training.steps < 1 or training.batch_size < 1 or not training.peak_learning_rate > 0:
        raise UsageError(
            "This is no training",
            got=f"{training.steps} steps of {training.batch_size} examples at {training.peak_learning_rate}",
        )
    _refuse_impossible(start, training, recorded=bool(about.get("record_path")))
    data = {"task": len(task), _DATA: fingerprint([*task]), _START: weights_sha256(start)}
    identity = {"training": dataclasses.asdict(training), **data, **about}
    from probes.guard.trainer_setup import NamingBase, Sending, make_trainer

    with holding_mirror(out) as mirror:
        _refuse_occupied(out, identity)
        folder = folder_of(start.model, start.revision, allow_pickle=False)
        tokenizer = load_tokenizer(folder)
        context = context_length(load_config(folder))
        examples = Answered(items_of(task, tokenizer), training.max_length or context)
        with _claiming(out, identity, data_file):
            guard = make_guard(out)
            checkpoints = whole_checkpoints(out / CHECKPOINTS)
            if checkpoints and (checkpoints[-1].step >= training.steps or checkpoints[-1].stopped):
                guard.conclude(checkpoints)
                _finish(out, guard)
                return guard
            if begins_anew(training.method, checkpoints[-1].folder if checkpoints else None):
                _say_that_it_begins_anew(training.method, [checkpoint.step for checkpoint in checkpoints])
                checkpoints = []
            if mirror is not None and checkpoints:
                mirror.fetch_folder(checkpoints[-1].folder, to_train=True)
            model = _model(folder, training, device)
            whole = guard.records_path or training.gradient_checkpointing  # a cache excludes checkpointing
            trainer = make_trainer(model, tokenizer, examples, out / CHECKPOINTS, training, device, report, whole=whole)
            trainer.add_callback(NamingBase(start))
            guard.join(trainer)
            if mirror is not None:
                trainer.add_callback(Sending(mirror, report))
        with no_progress_bar():
            trainer.train(resume_from_checkpoint=str(checkpoints[-1].folder) if checkpoints else None)
        _finish(out, guard, module_ranks(model))
    return guard


def _say_that_it_begins_anew(method: str, steps: Sequence[int]) -> None:
    """At once, and where it happens: the steps of an interrupted training are lost."""
    if steps:
        sentence = (
            f"The interrupted training begins anew: {method} cannot go on from its checkpoint at step {steps[-1]}."
        )
    else:
        sentence = (
            f"A training with {method} that is interrupted begins anew: its checkpoints lack what ranks came from."
        )
    _log.warning("gravity-probe: %s", sentence)


def _refuse_impossible(start: CheckpointRef, training: Training, *, recorded: bool) -> None:
    """Refuse what no model has to be loaded for to know.

    Raises:
        UsageError: no such tuner, optimiser or option, or a path that is not recorded.
        GuardError: it would start from an adapter.
    """
    if start.adapter:
        raise GuardError(
            "Training cannot start from an adapter", got=str(start), next_step="Merge it into its base first."
        )
    training.tuner()
    if training.optimizer is not None:
        check_optimizer(training.optimizer, training.optimizer_options, method=training.method)
    if recorded and not is_recorded(training.method, training.method_options):
        raise UsageError(
            "The path of this way of fine-tuning is not recorded",
            got=training.method,
            expected="full, or plain lora without dropout",
        )


def is_finished(out: Path) -> bool:
    """Whether a training in this folder has come to its end."""
    claim = _claim_on(out)
    return claim is not None and bool(claim["finished"])


def ranks_at_the_end(out: Path) -> dict[str, int | float]:
    """The rank that a tuner ended with on each module; empty where a finished training has none."""
    return dict((_claim_on(out) or {}).get("ranks", {}))


def source_of_data(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file that a training's data were read from, and what decided its result; None where a folder says neither."""
    claim = _claim_on(out) or {}
    return (Path(claim[_DATA_FILE]), claim["identity"]) if _DATA_FILE in claim else None


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


@contextlib.contextmanager
def _claiming(out: Path, identity: dict[str, Any], data_file: Path | None) -> Iterator[None]:
    """Take a folder that `_refuse_occupied` lets pass; give it up again where the training is refused within."""
    fresh, existed = _claim_on(out) is None, out.exists()
    if fresh:
        source = {_DATA_FILE: str(data_file.resolve())} if data_file else {}
        write_json(out / _IDENTITY, {"identity": _written(identity), **source, "finished": False})
    try:
        yield
    except GravityError:
        if fresh:  # nothing but what has just been written there
            _clear(out, remove=not existed)
        raise


def _clear(out: Path, *, remove: bool) -> None:
    """Delete what lies in a folder, but for locks and what a mirror knows of its URL; the folder too, if asked."""
    for child in [child for child in out.iterdir() if child.name not in OWN_FILES]:
        (shutil.rmtree if child.is_dir() else Path.unlink)(child)
    if remove:
        shutil.rmtree(out)


def _refuse_occupied(out: Path, identity: dict[str, Any]) -> None:
    """Refuse a folder that is neither new nor what the same training has left."""
    if not out.exists() or (out.is_dir() and is_empty(out)):
        return
    claim = _claim_on(out)
    if claim is None:
        occupant = "another folder"
    elif {**{name: identity[name] for name in _HASHES}, **_current_names(claim["identity"])} != _written(identity):
        occupant = "another training"
    elif claim["finished"]:
        occupant = "a finished training"
    else:
        return
    mirror = mirror_of(out)
    place = out if mirror is None else mirror.url
    raise UsageError(f"{place} is already there", got=occupant, next_step="Give --out a new folder.")


def _written(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as its file gives it back."""
    return dict(json.loads(json.dumps(identity, default=str)))


def _current_names(identity: dict[str, Any]) -> dict[str, Any]:
    """Earlier versions wrote `rows` and `accumulation`, and knew less (of the data their number alone)."""
    names = {"rows": "batch_size", "accumulation": "gradient_accumulation_steps"}
    training = _LATER | {names.get(name, name): value for name, value in identity["training"].items()}
    return {**identity, "training": training}


def _finish(out: Path, guard: ReversionGuard | Unguarded, ranks: Mapping[str, int | float] | None = None) -> None:
    claim = _claim_on(out) or {}
    healthy = from_home(str(guard.last_healthy), out.resolve()) if guard.last_healthy else None
    end = {"finished": True, "stopped": guard.stopped, "last_healthy": healthy}
    write_json(out / _IDENTITY, {**claim, **end, **({"ranks": dict(ranks)} if ranks else {})})


def _model(folder: Path, training: Training, device: str) -> Any:
    """The model with the weights that are to be trained switched on."""
    pickled = WeightFiles.of_model(folder, allow_pickle=False).pickled
    model = load_model(folder, torch.float32 if training.method == FULL else "auto", pickled=pickled)
    if training.method != FULL and (device == "cpu" or not _has_accelerator()):
        model = in_fitting_precision(model, torch.device("cpu"))
    return attach_tuner(model, training.method, training.tuner(), seed=training.seed)


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()
