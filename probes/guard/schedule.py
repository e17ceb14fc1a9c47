"""At which steps of a training a model is measured and saved."""

from __future__ import annotations

from transformers import TrainerState, TrainingArguments


def is_log_spaced(step: int) -> bool:
    """Whether a step is 1, 2 or 5 times a power of ten."""
    return step > 0 and str(step).rstrip("0") in ("1", "2", "5")


def save_interval(args: TrainingArguments, state: TrainerState) -> int | None:
    """Steps between the checkpoints that a Trainer saves; None where it saves none on the way."""
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "steps":
        return max(1, int(state.save_steps or args.save_steps))
    if strategy == "epoch" and state.num_train_epochs:
        return max(1, state.max_steps // int(state.num_train_epochs))
    return None
