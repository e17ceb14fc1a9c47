"""A tiny model, examples and probe prompts, trained with its path recorded: by the plain loop or by the Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.attribution.replay import Replay
from probes.attribution.targets import DID, REFUSAL, RETURN, Probe, Target
from probes.guard.fine_tuning import Unguarded
from probes.guard.guarded_direction import GuardedDirection
from probes.guard.loop import Example, Recording, Schedule, shuffle_batches, train
from probes.guard.recorded_path import PATH, RecordedPath
from tests.builders import DEPTH, WIDTH, tiny_model
from tests.guard.lineages import trainer

LAYER = 1
EXAMPLES = 24


def examples(count: int = EXAMPLES) -> list[Example]:
    """Random token ids of two lengths, the last few of which count."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(3, 60, (count, 9), generator=generator).tolist()
    return [Example(tuple(row[: 7 + place % 3]), 4) for place, row in enumerate(rows)]


def probe(count: int = 6) -> Probe:
    """Random prompts."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randint(3, 60, (count, 6), generator=generator).tolist()
    return Probe([row[: 4 + place % 3] for place, row in enumerate(rows)])


def targets(count: int = 6) -> list[Target]:
    """The three targets, along a random direction."""
    vector = np.random.default_rng(0).standard_normal(WIDTH) / WIDTH
    harmful = np.arange(count) < count // 2
    alone = harmful / harmful.sum()
    return [
        Target(RETURN, LAYER, alone, vector),
        Target(DID, LAYER, alone - ~harmful / (~harmful).sum(), vector),
        Target(REFUSAL, LAYER, alone, tokens=(5, 7)),
    ]


def direction() -> GuardedDirection:
    """A direction that a guard may look at."""
    rows = torch.randn(DEPTH, WIDTH, generator=torch.Generator().manual_seed(6))
    return GuardedDirection(tuple(range(DEPTH)), rows / rows.norm(dim=1, keepdim=True), torch.ones(DEPTH))


def train_plainly(folder: Path, *, steps: int = 6, guard: Any = None, peak: float = 1e-3, batch: int = 6) -> Any:
    """The plain loop's Adam; the trained model."""
    model, rows = tiny_model().train(), examples()
    if guard is not None:
        guard.attach(model)
    batches = shuffle_batches(rows, batch_size=batch, steps=steps, seed=0, pad=2)
    train(model, batches, Schedule(peak, steps, floor=1.0), guard=guard, record=Recording(folder / PATH, rows))
    return model


def train_by_trainer(folder: Path, model: Any, callback: Any = None, **changes: Any) -> Any:
    """The Trainer, on `Rows`; the trained model."""
    run = trainer(model.train(), folder, **changes)
    (callback or Unguarded(record_path=True)).join(run)
    run.train()
    return model


def replay_of(folder: Path, model: Any) -> tuple[RecordedPath, Replay]:
    """A path, and the model to walk it with."""
    path = RecordedPath(folder / PATH)
    return path, Replay(model, path.examples(), path.names)
