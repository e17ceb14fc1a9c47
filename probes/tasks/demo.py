"""The demo: train the organism's history and its arms on the spot, then measure them like any other lineage."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.task_file import read_task
from probes.experiments.crew import Crew
from probes.experiments.experiment import Experiment
from probes.lineage import Lineage
from probes.organism import DEFAULT, QUICK_RECIPE, train_history
from probes.progress import Report, silent, within
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.store import MANIFEST
from probes.store.settings import Settings
from probes.tasks.fit import fit_directions
from probes.tasks.measure import write_stages

_HISTORY = 0.4  # share of the demo's time that training the history takes
_TRAINING = 0.6  # share after which everything is trained
_MEASURED = 0.87  # share after which only directions are left


@dataclass(frozen=True)
class Demo:
    """Which demo.

    Attributes:
        seed: of the whole history: initial weights, data order.
        seeds: fine-tuning runs per arm, on the same aligned model.
        quick: smaller and shorter, the same stages but for the directions.
        nulls: hold the drift against its nulls and write a verdict.
    """

    seed: int = 0
    seeds: int = 1
    quick: bool = False
    nulls: bool = True


def make_demo(out: Path, demo: Demo, *, fresh: bool = False, report: Report = silent) -> Run:
    """Make the demo run in `out`, or go on with the one that is there.

    Args:
        out: the run folder; the checkpoints lie in its `checkpoints/`.
        demo: which one.
        fresh: delete an earlier demo in the same folder first.
        report: told where the work is.

    Raises:
        RunFolderError: `out` holds something that is no run.
    """
    if fresh and (out / MANIFEST).is_file():
        shutil.rmtree(out)
    history = out / "checkpoints"
    recipe = QUICK_RECIPE if demo.quick else DEFAULT
    # The crew starts first: its processes load torch on the second core while the history trains on the first.
    with Run.writing(out), Crew(history, Experiment(seeds=demo.seeds)) as crew:
        train_history(history, recipe, seed=demo.seed, report=within(report, 0.0, _HISTORY))
        file = crew.train(within(report, _HISTORY, _TRAINING))
    evaluation = Evaluation(
        prompts=PromptSet.from_labelled(history / "evaluation.jsonl"), task=read_task(history / "task.jsonl")
    )
    with Run.writing(out) as run:
        run.begin(
            Lineage.load(file),
            Settings(nulls=demo.nulls, seed=demo.seed),
            {"demo": {"seed": demo.seed, "seeds": demo.seeds, "quick": demo.quick}},
        )
        share = within(report, _TRAINING, 1.0 if demo.quick else _MEASURED)
        write_stages(run, PromptSet.from_labelled(history / "probe.jsonl"), evaluation, share)
        write_maps(run, MapOptions(methods=("pca",)))
    # Beside a quick look there is no time for directions; `gravity-probe directions fit RUN` makes them later.
    return Run(out) if demo.quick else fit_directions(out, report=within(report, _MEASURED, 1.0)).run
