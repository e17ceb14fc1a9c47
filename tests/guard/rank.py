"""One process of a data-parallel training, for `test_parallel`: argv is the home folder, the rank in the environment.

Trains a tiny model with transformers' Trainer under a guard, and writes down the task's gradient before the guard, the
sum behind it, and the weights in the end.
"""

# ruff: noqa: ARG002 - the signatures are the Trainer's

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, TrainerCallback

from probes.guard import ReversionGuard
from tests.guard.lineages import prompts, trainer

home, rank = Path(sys.argv[1]), os.environ["RANK"]
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(home / "models" / "aligned")
noted: dict[str, torch.Tensor] = {}


def keep(when: str) -> TrainerCallback:
    """A callback that writes the gradients down at the second step, where the model has moved."""

    class Keeper(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 1:
                noted.update(
                    {
                        f"{when}.{name}": parameter.grad.clone()
                        for name, parameter in model.named_parameters()
                        if parameter.grad is not None
                    }
                )

    return Keeper()


guard = ReversionGuard(home / "run", mode="block", penalty=prompts(100), batch_size=4, seed=3)
run = trainer(
    model,
    home / f"out-{rank}",
    [keep("task"), guard, keep("sum")],
    max_steps=3,
    save_strategy="no",
    max_grad_norm=0.0,
    per_device_train_batch_size=4,
    learning_rate=3e-2,
    ddp_backend="gloo",
)
run.train()
noted.update({f"weights.{name}": parameter.detach().clone() for name, parameter in model.named_parameters()})
seen = next(iter(run.get_train_dataloader()))["input_ids"]
save_file({**noted, "batch": seen.contiguous()}, home / f"rank-{rank}.safetensors")
