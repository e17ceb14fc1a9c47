"""Train every way of fine-tuning on two toy histories, and print the tables of `tuning.md`.

    python data/docs/ways.py --out runs/ways

A way that learns fast looks dangerous beside one that learns slowly. So each first takes, from a grid of its own, the
learning rate with which 100 steps end nearest to the held-out loss of plain fine-tuning (all weights, Adam, the rate of
the recipe) on seed 0 of the first history; nothing but that loss is read. Then every way is trained on a history of
each recipe in five orders of the data, and compared at equal loss. Interrupted, the same command goes on. About half an
hour of a quiet core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from probes.experiments.equal_loss import equal_loss_table
from probes.experiments.experiment import BASELINE, Experiment, split_way
from probes.experiments.organism_bench import OrganismBench
from probes.experiments.outcome import arms_table
from probes.organism import RECIPES, train_history
from probes.run import Run
from probes.tasks.arms import run_arms
from probes.terminal.show_arms import experiment_markdown, ways_markdown

SEEDS = 5
PLAIN_RATE = 5e-4  # the recipes' own, of all weights with Adam
WEIGHTS = (2.5e-4, 5e-4, 1e-3, 2e-3)
ADAPTERS = (1e-3, 2.5e-3, 5e-3, 1e-2)
GRIDS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "methods": {
        "full": WEIGHTS,
        "lora": ADAPTERS,
        "dora": ADAPTERS,
        "bara": ADAPTERS,
        "adalora": (5e-3, 1e-2, 2e-2, 4e-2),
        "ia3": (2e-2, 5e-2, 1e-1, 2e-1),
        "osf": WEIGHTS,
    },
    "optimizers": {
        "Adam": WEIGHTS,
        "RMSprop": (1e-4, 2.5e-4, 5e-4, 1e-3),
        "adafactor": (5e-4, 1e-3, 2e-3, 4e-3),
        "sgd": (3e-2, 1e-1, 3e-1, 1.0),
        "ddc": WEIGHTS,
    },
}


def experiment(table: str, rates: Mapping[str, float], seeds: int, *, last: bool = False) -> Experiment:
    """The baseline of every way of a table, each at its learning rate; the first is what the others stand beside."""
    first, *more = rates
    plain = Experiment(
        arms=(BASELINE,),
        seeds=seeds,
        final_step_only=last,
        way_options={f"{name}.learning_rate": rate for name, rate in rates.items()},
    )
    if table == "methods":
        return replace(plain, method=first, more_methods=tuple(more))
    return replace(plain, optimizer=first, more_optimizers=tuple(more))


def losses(out: Path, history: Path, table: str) -> dict[str, dict[float, float]]:
    """Held-out loss after the last step, by way and learning rate."""
    grid = GRIDS[table]
    by_way: dict[str, dict[float, float]] = {name: {} for name in grid}
    for number in range(len(WEIGHTS)):
        rates = {name: column[number] for name, column in grid.items()}
        bench = OrganismBench(history, experiment(table, rates, seeds=1, last=True))
        for row in arms_table([run_arms(bench, out / f"rates-{table}-{number}")])["arms"]:
            name = split_way(row["arm"])[1].removeprefix("full-") or next(iter(grid))
            by_way[name][rates[name]] = row["task_loss"]["mean"]
    return by_way


def train(out: Path, seeds: int) -> Iterator[str]:
    """Everything, and its tables as Markdown."""
    histories = {kind: out / "histories" / kind for kind in RECIPES}
    for kind, history in histories.items():
        train_history(history, RECIPES[kind][0], seed=0)
    for table in GRIDS:
        by_way = losses(out, next(iter(histories.values())), table)
        rates = {name: _nearest(of_way, by_way[next(iter(by_way))][PLAIN_RATE]) for name, of_way in by_way.items()}
        yield f"{table}: " + ", ".join(
            f"{name} {rates[name]:g} of {' '.join(f'{rate:g} ({loss:.3f})' for rate, loss in of_way.items())}"
            for name, of_way in by_way.items()
        )
        for kind, history in histories.items():
            run = run_arms(OrganismBench(history, experiment(table, rates, seeds)), out / f"{table}-{kind}")
            yield f"{table}, {kind}\n\n{tables(run)}"


def _nearest(by_rate: Mapping[float, float], goal: float) -> float:
    """The learning rate with the loss nearest to a goal."""
    return min(by_rate, key=lambda rate: abs(by_rate[rate] - goal))


def tables(run: Run) -> str:
    """At the last step, and at equal task loss."""
    equal = equal_loss_table(run)
    return f"{experiment_markdown(arms_table([run]))}\n\n{ways_markdown(equal) if equal else ''}"


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the histories and runs")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="orders of the data")
    options = parser.parse_args()
    for text in train(options.out, options.seeds):
        sys.stdout.write(f"{text}\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
