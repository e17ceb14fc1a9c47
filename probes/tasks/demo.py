"""The demo: train the organism's history and its arms on the spot, then measure them like any other lineage."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.task_file import read_task
from probes.engine import current_engine
from probes.experiments.experiment import BASELINE, DEFAULT_ARMS, DEMO_CONTROLS, Experiment, arm_folder
from probes.experiments.organism_bench import OrganismBench
from probes.experiments.screening import Screening
from probes.experiments.side_by_side import Arm, train_arms
from probes.guard.fine_tuning import CHECKPOINTS
from probes.lineage import MIRROR, Lineage
from probes.organism import RECIPES, Kind, train_history
from probes.organism.history import write_lineage
from probes.progress import Report, silent, within
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.maps import MapOptions, write_maps
from probes.stages.probe_answers import write_probe_answers
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
        recipe: where in the history alignment happens.
        controls: train continued alignment, the mirror and the positive control as well, with shams for each but the
            mirror.
        screened: leave out of the benign data what the aligned model refuses.
        record_path: keep what every step of every arm was made from, for `attribute`.
    """

    seed: int = 0
    seeds: int = 1
    quick: bool = False
    nulls: bool = True
    recipe: Kind = "post-hoc"
    controls: bool = False
    screened: bool = False
    record_path: bool = False

    @property
    def experiment(self) -> Experiment:
        """The arms that it trains."""
        controls = DEMO_CONTROLS if self.controls else ()
        return Experiment(
            arms=(*DEFAULT_ARMS, *controls), seeds=self.seeds, screened=self.screened, record_path=self.record_path
        )

    @property
    def settings(self) -> Settings:
        """Of the measurement: the sensitivity of the ladder is that of the positive control, which needs shams too."""
        arms = (BASELINE, *(arm for arm in DEMO_CONTROLS if arm != MIRROR)) if self.controls else (BASELINE,)
        return Settings(nulls=self.nulls, seed=self.seed, sham_arms=arms)


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
    history = out / CHECKPOINTS
    recipe = RECIPES[demo.recipe][demo.quick]
    folders = arm_folders(history, demo.experiment)
    with Run.writing(out):
        # Workers load torch on the other cores while the history trains on the first.
        current_engine().prepare(train_arms.__module__, sum(not folder.is_dir() for folder in folders.values()))
        train_history(history, recipe, seed=demo.seed, report=within(report, 0.0, _HISTORY))
        file = train_demo_arms(history, demo.experiment, within(report, _HISTORY, _TRAINING))
    evaluation = Evaluation(
        prompts=PromptSet.from_labelled(history / "evaluation.jsonl"), task=read_task(history / "task.jsonl")
    )
    with Run.writing(out) as run:
        run.begin(
            Lineage.load(file),
            demo.settings,
            {"demo": dataclasses.asdict(demo)},
        )
        share = within(report, _TRAINING, 1.0 if demo.quick else _MEASURED)
        write_stages(run, PromptSet.from_labelled(history / "probe.jsonl"), evaluation, share)
        write_maps(run, MapOptions(methods=("pca",)))
        if not demo.quick:
            write_probe_answers(run, run.model(), evaluation.max_new_tokens)
    # Beside a quick look there is no time for directions; `gravity-probe directions fit RUN` makes them later.
    return Run(out) if demo.quick else fit_directions(out, report=within(report, _MEASURED, 1.0)).run


def arm_folders(history: Path, experiment: Experiment) -> dict[Arm, Path]:
    """Where the checkpoints of each arm lie: screened data make other models of the same name."""
    parent = history / ("arms-screened" if experiment.screened else "arms")
    return {training: arm_folder(parent, *training) for training in experiment.trainings}


def train_demo_arms(history: Path, experiment: Experiment, report: Report = silent) -> Path:
    """Train every arm of a history that is still to do; returns the lineage file, which then names them all."""
    bench, folders = OrganismBench(history, experiment), arm_folders(history, experiment)
    if any(bench.find_checkpoints(folder) is None for folder in folders.values()):
        with current_engine().threads():
            measured = bench.measure_roles()
        train_arms(bench, folders, measured, report)
    return write_lineage(history, [(*training, folder) for training, folder in folders.items()])


def screenings(out: Path, demo: Demo) -> list[Screening]:
    """What the aligned model of a demo refuses of the benign requests of each fine-tuning seed.

    Args:
        out: the demo's run folder.
        demo: which one.
    """
    bench = OrganismBench(out / CHECKPOINTS, demo.experiment)
    return [bench.screening(seed) for seed in range(demo.seeds)]
