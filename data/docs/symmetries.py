"""Train a demo's aligned model with Adam and with DDC on the same data, and print the table of `symmetries.md`.

    gravity-probe demo --no-app
    python data/docs/symmetries.py RUN/checkpoints

For each seed of the benign data: 100 steps of 32 examples at the demo's learning rate, no weight decay.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from probes.guard.loop import Example, answer_loss, shuffle_batches
from probes.models.gauges import gauges_of
from probes.models.symmetry_split import PartSplit, by_part, split_part
from probes.organism import lessons
from probes.organism.history import read_history
from probes.organism.world import make_world
from probes.training.ddc import DDC

STEPS, BATCH, LEARNING_RATE = 100, 32, 5e-4
OPTIMISERS = {
    "Adam": lambda model: torch.optim.Adam(model.parameters(), lr=LEARNING_RATE),
    "DDC": lambda model: DDC.of(model, lr=LEARNING_RATE, weight_decay=0.0),
}


def train(model: torch.nn.Module, name: str, examples: list[Example], pad: int, seed: int) -> float:
    """Train in place; the mean loss of the last ten steps."""
    optimizer, losses = OPTIMISERS[name](model), []
    for batch in shuffle_batches(examples, batch_size=BATCH, steps=STEPS, seed=seed, pad=pad):
        loss = answer_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-10:]) / 10


def parts(start: torch.nn.Module, end: torch.nn.Module) -> list[PartSplit]:
    """The change of weights, split part by part."""
    before, after = ({name: weight.detach() for name, weight in model.named_parameters()} for model in (start, end))
    shapes = {name: tuple(weight.shape) for name, weight in before.items()}
    gauges = by_part(gauges_of(start.config, shapes))  # type: ignore[arg-type]
    return [split_part(of_part, before, after) for of_part in gauges.values()]


def rows(history: Path, seeds: int) -> Iterator[str]:
    """A line of the table for each seed and optimiser."""
    recipe = read_history(history)[1]
    writer = lessons.Writer(AutoTokenizer.from_pretrained(history / "aligned"))
    for seed in range(seeds):
        examples = [writer.lesson(lesson) for lesson in lessons.benign(make_world(recipe.size), seed=seed)]
        for name in OPTIMISERS:
            start, end = (AutoModelForCausalLM.from_pretrained(history / "aligned") for _ in range(2))
            loss = train(end.train(), name, examples, writer.pad, seed)
            weights = dict(start.named_parameters())
            total = sum(float((weight - weights[place]).square().sum()) for place, weight in end.named_parameters())
            split = parts(start, end)
            blocks = [part for part in split if part.part.startswith("layers.")]
            along, in_blocks = (sum(part.along for part in some) for some in (split, blocks))
            size = sum(part.total for part in blocks)
            yield (
                f"| {seed} | {name} | {loss:.3f} | {math.sqrt(total):.2f} | {100 * along / total:.1f} % | "
                f"{math.sqrt(size):.2f} | {100 * in_blocks / size:.2f} % |"
            )


def main() -> None:
    """Train, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", type=Path, help="the demo's folder of checkpoints")
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write("| seed | optimiser | task loss | ‖ΔW‖ | along symmetries | ‖ΔW‖ of the blocks | along |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for row in rows(chosen.history, chosen.seeds):
        sys.stdout.write(f"{row}\n")


if __name__ == "__main__":
    main()
