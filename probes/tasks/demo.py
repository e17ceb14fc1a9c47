"""The demo: train the organism's history on the spot, then measure it like any other lineage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.lineage import Lineage
from probes.organism import train_history
from probes.progress import Report, silent, within
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.store import MANIFEST
from probes.store.settings import Settings
from probes.tasks.fit import fit_directions
from probes.tasks.measure import write_stages

_TRAINING = 0.6  # share of the demo's time that training takes
_MEASURED = 0.87  # share after which only directions are left


def make_demo(
    out: Path,
    *,
    seed: int = 0,
    seeds: int = 1,
    quick: bool = False,
    nulls: bool = True,
    fresh: bool = False,
    report: Report = silent,
) -> Run:
    """Make the demo run in `out`, or go on with the one that is there.

    Args:
        out: the run folder; the checkpoints lie in its `checkpoints/`.
        seed: seed of the whole history: world, initial weights, data order.
        seeds: fine-tuning runs per arm, on the same aligned model.
        quick: smaller and shorter, the same stages but for the directions.
        nulls: hold the drift against its nulls and write a verdict.
        fresh: delete an earlier demo in the same folder first.
        report: told where the work is.

    Raises:
        RunFolderError: `out` holds something that is no run.
    """
    if fresh and (out / MANIFEST).is_file():
        shutil.rmtree(out)
    history = out / "checkpoints"
    with Run.writing(out):
        file = train_history(
            history,
            seed=seed,
            arm_seeds=tuple(range(seeds)),
            quick=quick,
            progress=within(report, 0.0, _TRAINING),
        )
    evaluation = Evaluation(
        prompts=PromptSet.from_labelled(history / "evaluation.jsonl"), task=_task(history / "task.jsonl")
    )
    with Run.writing(out) as run:
        run.begin(
            Lineage.load(file),
            Settings(nulls=nulls, seed=seed),
            {"demo": {"seed": seed, "seeds": seeds, "quick": quick}},
        )
        share = within(report, _TRAINING, 1.0 if quick else _MEASURED)
        write_stages(run, PromptSet.from_labelled(history / "probe.jsonl"), evaluation, share)
        write_maps(run, MapOptions(methods=("pca",)))
    # Beside a quick look there is no time for directions; `gravity-probe directions fit RUN` makes them later.
    return Run(out) if quick else fit_directions(out, report=within(report, _MEASURED, 1.0)).run


def _task(path: Path) -> tuple[tuple[str, str], ...]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple((row["prompt"], row["completion"]) for row in rows)
