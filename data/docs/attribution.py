"""Drop the top 5 % of each ranking from the organism's data, and train again in new orders.

    python data/docs/attribution.py RUN [FIRST LAST]

RUN is a demo run with a recorded path and an attribution of its baseline at the headline layer. It prints a line a
training: the order (a seed of the data's order), what was dropped, and the return fraction that came.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from probes.attribution.targets import Probe, read_targets, targets_of
from probes.guard.loop import Example, Schedule, shuffle_batches, train
from probes.guard.recorded_path import PATH, RecordedPath
from probes.models.view import ModelView
from probes.organism.checkpoints import load
from probes.organism.history import read_history
from probes.run import Run

RANKINGS = ("forecast", "share", "bm25", "projection")
DROPPED = 0.05


def main(place: Path, first: int, last: int) -> None:
    """Train once a ranking and order."""
    torch.set_num_threads(1)
    run, history = Run(place), place / "checkpoints"
    table = run.table(f"attribution/baseline-s0-layer{run.headline_layer}")
    recorded = RecordedPath(history / "arms" / "baseline-s0" / PATH).examples()
    examples = [Example(row.ids, next(n for n, label in enumerate(row.labels) if label >= 0)) for row in recorded]
    probe, target = Probe(run.rendered.token_ids, run.settings.position), targets_of(run, run.headline_layer)[0]
    phase, count = read_history(history)[1].benign, round(DROPPED * len(examples))

    def value(model: torch.nn.Module) -> float:
        return read_targets(ModelView(model.eval()), probe, [target], {"norm": next(model.parameters())})[0].value

    start = value(load(history / "aligned"))
    for order in range(first, last + 1):
        tops = {by: table.sort_values(by, ascending=False, kind="stable")["index"].head(count) for by in RANKINGS}
        random = np.random.default_rng(order).choice(len(examples), count, replace=False)
        for by, top in {"nothing": [], **tops, "random": random}.items():
            rows = [example for number, example in enumerate(examples) if number not in set(top)]
            model = load(history / "aligned")
            batches = shuffle_batches(rows, batch_size=phase.batch_size, steps=phase.steps, seed=order, pad=0)
            train(model, batches, Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor))
            line = json.dumps({"order": order, "dropped": by, "return": value(model) - start})
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:4] or (1001, 1005)))
