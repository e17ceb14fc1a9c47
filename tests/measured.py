"""A run of tiny real checkpoints, measured by the program itself, for what reads a run and opens its models."""

from __future__ import annotations

from pathlib import Path

import torch

from probes.lineage import CheckpointRef, Lineage, Trajectory, Witness
from probes.prompts import PromptSet
from probes.run import Run
from probes.store.settings import Settings
from probes.tasks.measure import measure
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer

PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(16)] + [f"paint door {index:02d}" for index in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
FAST = Settings(bootstraps=20, splits=4, draws=99, permutations=99, nulls=False)


def measured_run(home: Path) -> Run:
    """Checkpoints in `home/checkpoints`, the run in `home/runs/tiny`."""
    places, tokenizer, model = home / "checkpoints", tiny_tokenizer(), tiny_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_checkpoint(places / "aligned", model, tokenizer)
    witness = move_weights(model, seed=1, scale=0.1)
    end = {name: tensor.clone() for name, tensor in witness.state_dict().items()}
    save_checkpoint(places / "witness", witness, tokenizer)
    witness.load_state_dict({name: torch.lerp(start[name], end[name], 0.5) for name in start})
    save_checkpoint(places / "out" / "checkpoint-10", witness, tokenizer)
    lineage = Lineage(
        name="tiny",
        witness=Witness(model=str(places / "witness")),
        aligned=CheckpointRef(model=str(places / "aligned")),
        trajectories=(Trajectory.from_folder(places / "out"),),
    )
    return measure(lineage, PROMPTS, home / "runs" / "tiny", settings=FAST)
