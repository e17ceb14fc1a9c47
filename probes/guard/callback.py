"""The guard for transformers' Trainer, and for what builds on it (TRL's SFTTrainer): one added line.

    trainer = Trainer(model=model, args=args, train_dataset=data, callbacks=[ReversionGuard("runs/mine", mode="block")])

or `ReversionGuard(...).join(trainer)`, after which its readings also go where the Trainer logs (Weights and Biases,
TensorBoard, MLflow): a callback that was only passed in cannot call the Trainer's `log`.

The order within an optimiser step is: backward passes of all accumulated batches; the Trainer clips the task's
gradient to `max_grad_norm`; the guard adds its own; the sum is clipped to the same norm once more; the optimiser
steps. So what the optimiser gets is never longer than the Trainer promises, and the ratio of the two is kept.
"""

# ruff: noqa: ARG002 - the signatures are the Trainer's

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from probes.directions.vectors import Vectors
from probes.errors import UsageError
from probes.guard.alarm import ACTIONS, Action, Reading
from probes.guard.former_names import accept_former_names
from probes.guard.guarded_direction import GuardedDirection, GuardError
from probes.guard.material import direction_of, layers_of
from probes.guard.model_in_training import LiveModel
from probes.guard.modes import WATCH, Options, check_mode, make_effect
from probes.guard.preparation import (
    Prompts,
    Source,
    begin,
    check_aligned,
    open_source,
    penalty_ids,
    prompt_set,
    refuse_overlap_early,
    set_alarm,
    tokenizer_of,
)
from probes.guard.record import Record
from probes.guard.resuming import STATE, WholeCheckpoint, forget_after, mark_whole, saved_state, whole_checkpoints
from probes.guard.safety_watch import SafetyWatch
from probes.guard.schedule import is_log_spaced, save_interval
from probes.guard.step import Guard, gradient_length
from probes.guard.step_log import StepLog
from probes.guard.trainer_path import TrainerPath
from probes.guard.watch import Watch
from probes.lineage import Lineage
from probes.prompts import PromptSet, default_prompts
from probes.run import Run
from probes.store.settings import Settings

_log = logging.getLogger(__name__)


class ReversionGuard(TrainerCallback):
    """Watches, blocks, pushes, or does whatever else `MODES` names, while a Trainer trains.

    Attributes:
        readings: what the watch has seen in this process, in order.
        last_healthy: folder of the last checkpoint saved while the alarm was silent; None before the first.
        stopped: why training was stopped; None where it was not.
        guard: what acts; its `ratio` is that of the last step.
    """

    @accept_former_names(rows="batch_size", match="gradient_ratio")
    def __init__(
        self,
        source: Source,
        *,
        mode: str = WATCH,
        direction: str | Vectors = "reversion",
        layers: Sequence[int] | None = None,
        penalty: Prompts | None = None,
        evaluation: Prompts | None = None,
        probe: Prompts | None = None,
        out: Path | str | None = None,
        options: Options | None = None,
        max_return: float | None = None,
        gradient_ratio: float | None = None,
        batch_size: int = 16,
        every: int | None = None,
        alarm: float | None = None,
        evaluate_every: int | None = None,
        on_alarm: Action = "log",
        arm: str | None = None,
        seed: int = 0,
        settings: Settings | None = None,
        record_path: bool = False,
    ) -> None:
        """Measure aligned and witness, and get ready.

        Args:
            source: a lineage, a lineage file, or a measured run or its folder (its directions are then taken).
            mode: `watch`, or a name from `MODES`; `block` with `max_return` becomes `block:budget`.
            direction: what is guarded: the name of a direction of the run, such as `refusal` or an imported one, or
                vectors for its model.
            layers: guarded blocks; None is all but the first fourth, where the direction is known.
            penalty: harmful prompts for the penalty, as a set, as texts, or as a file; needed by every mode but
                `watch`. For `control:harmless` its harmless prompts are taken.
            evaluation: prompts that behaviour is judged on, so that an overlap with the penalty's is refused; None is
                our own where `evaluate_every` asks for answers.
            probe: probe prompts where `source` is a lineage, of both labels; None is our own.
            out: run folder that the watch writes, new or of the training that is resumed; None keeps no record.
            options: strengths, seeds and sizes of the mode.
            max_return: hold the return fraction on the penalty prompts at or under this, with a strength that
                is found on the way.
            gradient_ratio: of the penalty's gradient to the task's (‖g_penalty‖ / ‖g_task‖).
            batch_size: penalty prompts in each step.
            every: measure every N steps; None is at 1, 2, 5, 10, 20, 50 and so on. Step 0, every save and the last
                step are always measured, but for 0, which measures nothing where nobody else would see it.
            alarm: return fraction at which to ring, where the tests of level 4 that need no further forward pass hold
                at alpha over the number of planned measurements; None is never.
            evaluate_every: ask the model every N steps, and ring where the safety answer is `eroded`; None is never.
            on_alarm: `log`; `stop` the training; or switch the `block` on, which until then only watches.
            arm: what this training is called in the run; None is the mode.
            seed: of the training, and of the drawing of penalty prompts.
            settings: of the measurement; None takes fewer bootstraps than `measure` does.
            record_path: keep what every step was made from in `path` beside the checkpoints, for `attribute`.

        Raises:
            GravityError: prompts overlap, the mode is unknown, or a checkpoint is not what it must be.
        """
        if on_alarm not in ACTIONS or (every or 0) < 0 or (evaluate_every is not None and evaluate_every < 1):
            raise UsageError("The watch cannot do this", got=f"{on_alarm!r}, every {every}, answers {evaluate_every}")
        check_mode(mode)
        options = options or Options()
        if max_return is not None:
            if mode not in ("block", "block:budget"):
                raise UsageError("Only block holds a budget", got=f"mode {mode!r} with max_return")
            mode, options = "block:budget", replace(options, max_return=max_return)
        self._mode, self._arm, self._seed = mode, arm or mode.partition(":budget")[0], seed
        self._every, self._on_alarm, self._recorded = every, on_alarm, out is not None
        opened = open_source(source)
        evaluation_prompts = prompt_set(evaluation) or (default_prompts("evaluation") if evaluate_every else None)
        refuse_overlap_early(opened, mode, prompt_set(probe), prompt_set(penalty), evaluation_prompts)
        self._run = self._begin(opened, prompt_set(probe), out, settings)
        vectors = direction_of(opened if isinstance(opened, Run) else self._run, direction)
        guarded = GuardedDirection.from_vectors(vectors, layers_of(layers, vectors, self._run.n_layers))
        self._ids = penalty_ids(self._run, mode, prompt_set(penalty))
        effect = make_effect(mode, self._run, guarded, options)
        sizes: dict[str, Any] = {"batch_size": batch_size, "gradient_ratio": gradient_ratio}
        self.guard = None if mode == WATCH else Guard(effect, self._ids, **sizes, seed=seed, on=on_alarm != "block")
        answers = SafetyWatch(evaluation_prompts, evaluate_every) if evaluation_prompts and evaluate_every else None
        returns = None if alarm is None else set_alarm(self._run, alarm)
        self._watch = Watch(self._run, returns, answers, recorded=self._recorded)
        self.readings: list[Reading] = []
        self.last_healthy: Path | None = None
        self.stopped: str | None = None
        self._trainer: Any = None
        self._live: LiveModel | None = None
        self._record: Record | None = None
        self._edits: contextlib.ExitStack = contextlib.ExitStack()
        self._path = TrainerPath() if record_path else None
        self._log: StepLog | None = None

    @property
    def records_path(self) -> bool:
        """Whether it has to see every batch whole."""
        return self._path is not None

    def join(self, trainer: Any) -> ReversionGuard:
        """Add this guard to a Trainer, and log through it."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def close(self) -> None:
        """Take edits of activations off the model; needed only after an exception inside a step."""
        self._edits.close()
        if self._path is not None:
            self._path.close()

    def conclude(self, checkpoints: Sequence[WholeCheckpoint]) -> None:
        """End a training that was interrupted after its last checkpoint: only its record is left to be finished."""
        self._take_up(checkpoints)
        self.stopped = checkpoints[-1].stopped
        if self._recorded:
            with Run.writing(self._run.path) as run:
                run.finish()

    # The Trainer's events ------------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach to the model, which is the aligned one or that of a checkpoint, and measure it."""
        if getattr(args, "deepspeed", None):
            raise GuardError("The guard does not support DeepSpeed, which keeps gradients to itself")
        model, tokenizer = kwargs["model"], kwargs.get("processing_class") or tokenizer_of(self._run)
        self._live = LiveModel(model, tokenizer)
        output = Path(str(args.output_dir))
        earlier = saved_state(output, state.global_step) if self.guard is not None else None
        if state.global_step == 0:
            check_aligned(self._run, self._live)
        if self.guard is not None:
            self.guard.attach(model, tokenizer, earlier)
        if state.is_world_process_zero:
            arm = self._arm if self._recorded else "live"
            forget_after(output, state.global_step)
            self._take_up(whole_checkpoints(output))
            self._watch.plan(state.max_steps, self._due, save_interval(args, state))
            self._watch.begin(self._live, state.global_step)
            self._record = Record(self._run, output, tokenizer, arm=arm, seed=self._seed, resumed_at=state.global_step)
            self._measure(state, control)
            self._log = None if self.guard is None else StepLog(output, self.guard, state.global_step)
        if self._path is not None:
            self._path.begin(args, state, kwargs, self.guard)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Edits of activations begin with the step's first batch."""
        if self.guard is not None and self.guard.on:
            self._edits.enter_context(self.guard.editing())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a gradient that is not finite; add the guard's; clip the sum."""
        self._edits.close()
        model = self._model_in_training().model
        scaled = getattr(kwargs.get("optimizer"), "scaler", None) is not None  # it skips such steps by itself
        if not scaled and not math.isfinite(gradient_length(model)):
            healthy = self.last_healthy or "the aligned model: nothing has been saved yet"
            raise GuardError(
                f"The loss of step {state.global_step + 1} is not finite",
                got="a gradient that is not finite; the weights are still those of the step before",
                next_step=f"Last healthy checkpoint: {healthy}. Lower the learning rate or the penalty.",
            )
        limit = args.max_grad_norm or 0.0
        if self._path is not None:
            self._path.before(limit)
        clip = 1.0 if self.guard is None else self.guard.step(kwargs.get("model"), kwargs.get("optimizer"), limit)
        if self._path is not None:
            self._path.add_guard(clip)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Effects on weights come behind the optimiser."""
        if self._path is not None:
            self._path.after()
        if self.guard is not None:
            self.guard.after_step()
        if self._log is not None:
            self._log.note(state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure where it is due."""
        if self._path is not None:
            self._path.end_step(state)
        if self._record is not None and (self._due(state.global_step) or state.global_step == state.max_steps):
            self._measure(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure what was saved, and put beside it what a resumed training needs."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self._record is None or not folder.is_dir():
            return
        if self.guard is not None:
            save_file(self.guard.state(), folder / STATE)
        if not self.readings or self.readings[-1].step != state.global_step:
            self._measure(state, control)
        if self._recorded:
            self._record.save(state.global_step)
        ringing = self._watch.ringing_alarms
        if not ringing:
            self.last_healthy = folder
        mark_whole(folder, ringing=ringing, stopped=self.stopped)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The record is whole."""
        self._edits.close()
        if self._path is not None:
            self._path.end(state.global_step)
        if self._record is not None and self._recorded:
            self._record.finish()

    # Inside --------------------------------------------------------------------------------------------------------

    def _begin(
        self, source: Run | Lineage, probe: PromptSet | None, out: Path | str | None, settings: Settings | None
    ) -> Run:
        """The run that is written; without `out` one that is only read, or a passing one."""
        if out is None:
            if isinstance(source, Run):
                return source
            self._passing = tempfile.TemporaryDirectory(prefix="gravity-probe-")
            out = Path(self._passing.name) / "run"
        config = {"guard": {"mode": self._mode, "arm": self._arm, "seed": self._seed}}
        return begin(source, probe, Path(out), settings, config)

    def _take_up(self, checkpoints: Sequence[WholeCheckpoint]) -> None:
        healthy = [checkpoint.folder for checkpoint in checkpoints if checkpoint.healthy]
        self.last_healthy = healthy[-1] if healthy else None
        if checkpoints:
            self._watch.resume(checkpoints[-1].ringing)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        assert self._record is not None
        unseen = self._every == 0 or (self._mode != WATCH and self._trainer is None)
        if unseen and not self._recorded and not self._watch:
            return
        live = self._model_in_training()
        reading = self._record.measure(live, state.global_step)
        self.readings.append(reading)
        reason = self._watch.look(live, reading, self._record.rows)
        if self._trainer is not None:
            self._trainer.log(self._log_entries(reading))
        if reason is not None:
            self._ring(reason, reading, control)

    def _log_entries(self, reading: Reading) -> dict[str, float]:
        ratios = {} if self.guard is None else {"gradient_ratio": self.guard.ratio, "strength": self.guard.strength}
        entries = {**vars(reading), **ratios, **self._watch.entries(reading.step)}
        return {f"guard/{name}": value for name, value in entries.items() if name != "step" and value is not None}

    def _ring(self, reason: str, reading: Reading, control: TrainerControl) -> None:
        healthy = self.last_healthy or "none was saved; the aligned model is"
        sentence = f"{reason} Last healthy checkpoint: {healthy}."
        _log.warning("gravity-probe: %s", sentence)
        if self._recorded and self._record is not None:
            about = {"said": sentence, "action": self._on_alarm, **vars(reading), **self._watch.document()}
            self._record.note("alarm", about)
        if self._on_alarm == "stop":
            self.stopped = sentence
            control.should_training_stop = True
        elif self._on_alarm == "block" and self.guard is not None:
            self.guard.on = True

    def _due(self, step: int) -> bool:
        regular = is_log_spaced(step) if self._every is None else self._every > 0 and step % self._every == 0
        return regular or self._watch.asks_at(step)

    def _model_in_training(self) -> LiveModel:
        if self._live is None:
            raise GuardError("The guard has not begun", next_step="It begins with the Trainer's train().")
        return self._live
