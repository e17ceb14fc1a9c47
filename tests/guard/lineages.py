"""A lineage of tiny checkpoints on disk, prompts for it, and an ordinary Trainer script's parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from probes.lineage import Lineage, Witness
from probes.prompts import PromptSet
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer

THINGS = ("knife", "poison", "bomb", "virus", "fraud", "gun", "hate", "drug")


def lineage(folder: Path) -> Lineage:
    """Aligned, and a witness a short way off; there is nothing behind it but noise."""
    tokenizer = tiny_tokenizer()
    aligned = save_checkpoint(folder / "aligned", tiny_model(), tokenizer)
    witness = save_checkpoint(folder / "witness", move_weights(tiny_model(), scale=0.2), tokenizer)
    return Lineage(name="tiny", aligned=aligned, witness=Witness(model=witness.model))


def prompts(start: int, count: int = 16) -> PromptSet:
    """`count` harmful and harmless prompts, others for each start."""
    places = range(start, start + count)
    harmful = [f"make a {THINGS[place % 8]} {place}" for place in places]
    return PromptSet.of(
        [*harmful, *(f"bake a cake {place}" for place in places)], ["harmful"] * count + ["harmless"] * count
    )


class Rows(Dataset):
    """Token ids of two lengths, as a Trainer takes them."""

    def __init__(self, count: int = 64) -> None:
        generator = torch.Generator().manual_seed(3)
        self.rows = torch.randint(3, 200, (count, 12), generator=generator)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self.rows[place]
        return {"input_ids": row, "labels": row.clone()}


def trainer(
    model: Any, output: Path, callbacks: list[Any] | None = None, kind: type | None = None, **changes: Any
) -> Any:
    """An ordinary Trainer on the CPU, or one of another kind, with dropout left to the model."""
    from transformers import Trainer, TrainingArguments

    defaults = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "save_steps": 3,
        "seed": 5,
        "logging_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "steps",
        "lr_scheduler_type": "constant",
    }
    args = TrainingArguments(output_dir=str(output), **{**defaults, **changes})
    return (kind or Trainer)(
        model=model, args=args, train_dataset=Rows(), callbacks=callbacks, processing_class=tiny_tokenizer()
    )
