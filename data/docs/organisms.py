"""Train the histories behind the tables of `organisms.md`, and print them.

    python data/docs/organisms.py --out runs/organisms

For each recipe and seed it trains a history, the baseline and every trained control on the same data in the same order,
and judges them, with sham tests for all but the mirror; then the baseline and its mirror once more, without what the
aligned model refuses. Interrupted, the same command goes on; `--recipe` and `--seed` do a part, so that several
processes can share the work. One history takes about three minutes of a quiet core.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from probes.experiments.experiment import BASELINE, Experiment
from probes.experiments.organism_bench import OrganismBench
from probes.experiments.trained_controls import MIRROR, TRAINED_CONTROLS
from probes.organism import RECIPES, Kind, train_history
from probes.run import Run
from probes.tasks.arms import run_arms
from probes.tasks.histories import compare_histories
from probes.tasks.measure import judge
from probes.terminal.show_histories import histories_markdown

SHAMS = 39
ARMS = {"": (BASELINE, *TRAINED_CONTROLS), "-screened": (BASELINE, MIRROR)}


def train(out: Path, recipe: Kind, seed: int, seeds: int) -> None:
    """Train and judge one history, with and without what its aligned model refuses."""
    history = out / "histories" / f"{recipe}-{seed}"
    train_history(history, RECIPES[recipe][0], seed=seed)
    for suffix, arms in ARMS.items():
        experiment = Experiment(arms=arms, seeds=seeds, final_step_only=True, screened=bool(suffix))
        bench, path = OrganismBench(history, experiment), out / f"{recipe}-{seed}{suffix}"
        run_arms(bench, path)
        judge(path, SHAMS, sham_arms=[arm for arm in arms if arm != MIRROR])
        sys.stderr.write(f"{path}: {bench.screening(0).sentence}\n")


def tables(out: Path) -> Iterator[str]:
    """One table of all histories that are there, for each recipe, with and without the refused requests."""
    for recipe in RECIPES:
        for suffix in ARMS:
            place = re.compile(rf"{recipe}-\d+{suffix}")
            runs = [Run(path) for path in sorted(out.iterdir()) if place.fullmatch(path.name) and _is_judged(path)]
            if runs:
                yield f"{recipe}{suffix}\n\n{histories_markdown(compare_histories(runs))}\n"


def _is_judged(path: Path) -> bool:
    return (path / "verdict.json").is_file()


def main() -> None:
    """Do the part that was named, or all of it, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the histories and runs")
    parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may be repeated; default: both")
    parser.add_argument("--seed", action="append", type=int, help="of a history; may be repeated; default: 0 to 4")
    parser.add_argument(
        "--seeds", type=int, default=1, help="fine-tuning runs of each arm; from 3 on intervals are over runs"
    )
    parser.add_argument("--tables", action="store_true", help="print the tables of what is there, and train nothing")
    options = parser.parse_args()
    if not options.tables:
        for seed in options.seed or range(5):
            for recipe in options.recipe or RECIPES:
                train(options.out, recipe, seed, options.seeds)
    for table in tables(options.out):
        sys.stdout.write(f"{table}\n")


if __name__ == "__main__":
    main()
