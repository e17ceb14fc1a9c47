"""Trains one arm of any lineage on a file of data, through the Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.task_file import read_task
from probes.directions.measured import Measured
from probes.errors import UsageError
from probes.experiments.data_defences import INOCULATION, INOCULATION_PROMPT, INTERLEAVED, inoculate, interleave
from probes.experiments.experiment import UNGUARDED, WITH_DATA, Experiment, mode_and_draw, split_way
from probes.experiments.organism_bench import OrganismBench
from probes.experiments.screening import screen
from probes.experiments.trained_controls import (
    SHUFFLED,
    TEXT,
    TOKENS,
    Pair,
    randomise_answers,
    shuffle_answers,
    start_of,
)
from probes.guard.callback import ReversionGuard
from probes.guard.fine_tuning import CHECKPOINTS, Training, Unguarded, fine_tune, is_finished
from probes.guard.material import whole_run
from probes.lineage import CheckpointRef, Lineage
from probes.models import ModelHost
from probes.organism.history import HISTORY
from probes.progress import Progress, Report
from probes.prompts import PromptSet, default_prompts, read_prompts
from probes.store import fingerprint

HASHES = DATA_SHA256, ARM_DATA_SHA256, PROBE_SHA256 = "data_sha256", "arm_data_sha256", "probe_sha256"
_HELD_OUT = 64  # examples of a data file that are kept back for the task's loss, at most


class LineageBench:
    """Trains arms on a lineage and a file of data.

    Attributes:
        experiment: what is trained.
        lineage: the roles, without trajectories.
        probe: the probe prompts.
        evaluation: prompts on which behaviour is judged, and the held-out part of the data.
        about: what decides the weights of an arm, besides the experiment.
    """

    _penalty_rows = 16

    def __init__(
        self,
        file: Path,
        data: Path,
        experiment: Experiment,
        probe: PromptSet | None = None,
        penalty: PromptSet | None = None,
    ) -> None:
        """Read lineage and data; the last tenth of the data, at most 64 examples, is held out for the task's loss.

        Raises:
            UsageError: an arm was named that needs data of its own, and there are none.
        """
        self.lineage = Lineage.load(file).model_copy(update={"trajectories": ()})
        task = read_task(data)
        held_out = max(1, min(_HELD_OUT, len(task) // 10))
        self._task = _leave_out_refused(self.lineage.aligned, task[:-held_out], experiment.screened)
        self.experiment, self._penalty = experiment, penalty
        self._refuse_missing_data()
        self.probe = probe or default_prompts("probe")
        self.evaluation = Evaluation(default_prompts("evaluation"), task=task[-held_out:])
        self._steps = experiment.steps or 100
        self.about = {
            "lineage": str(file),
            "data": str(data),
            "task": len(task),
            DATA_SHA256: fingerprint([list(pair) for pair in task]),
            PROBE_SHA256: self.probe.sha256,
            ARM_DATA_SHA256: {arm: fingerprint([*_read(arm, file)]) for arm, file in experiment.arm_data.items()},
            "penalty": penalty and penalty.sha256,
        }

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Every (arm, seed); of `all`, arms that lack the data that they need are left out."""
        missing = self._arms_without_data()
        return tuple(training for training in self.experiment.trainings if split_way(training[0])[0] not in missing)

    @property
    def guarded_layers(self) -> tuple[int, ...] | None:
        """Where a block looks; None is as `layers_of` says."""
        return self.experiment.layers

    def find_checkpoints(self, folder: Path) -> Path | None:
        """As `OrganismBench.find_checkpoints`."""
        return folder / CHECKPOINTS if is_finished(folder) else None

    def prepare(self) -> None:
        """All that trainings share was done when the data were read."""

    def train(self, arm: str, seed: int, measured: Measured, folder: Path, report: Report) -> Path:
        """As `OrganismBench.train`, but for the place of the checkpoints, which is returned."""
        experiment = self.experiment

        def make_guard(_: Path) -> ReversionGuard | Unguarded:
            plain = split_way(arm)[0]
            if plain in UNGUARDED:
                return Unguarded(record_path=experiment.record_path)
            return ReversionGuard(
                whole_run(measured),
                mode=mode_and_draw(plain)[0],
                penalty=self._penalty,
                layers=experiment.layers,
                gradient_ratio=experiment.gradient_ratio,
                options=experiment.options(arm, seed),
                batch_size=self._penalty_rows,
                every=0,
                arm=arm,
                seed=seed,
                record_path=experiment.record_path,
            )

        def report_step(progress: Progress) -> None:
            report(Progress(f"fine-tuning, {arm}", progress.step, progress.steps, f"seed {seed}"))

        start: CheckpointRef = getattr(self.lineage, start_of(arm))
        training = self._training(arm, seed)
        about = {"arm": arm} | ({"record_path": True} if experiment.record_path else {})
        fine_tune(start, self._data(arm, seed), folder, training, make_guard, about, report=report_step)
        return folder / CHECKPOINTS

    def _training(self, arm: str, seed: int) -> Training:
        """How an arm is trained: all of one way alike."""
        experiment = self.experiment
        way = experiment.way_of(arm)
        return Training(
            method=way.method,
            method_options=way.method_options,
            optimizer=way.optimizer,
            optimizer_options=way.optimizer_options,
            weight_decay=experiment.weight_decay,
            steps=self._steps,
            learning_rate=experiment.learning_rate if way.learning_rate is None else way.learning_rate,
            batch_size=experiment.batch_size or 8,
            seed=seed,
            save_every=self._steps if experiment.final_step_only else experiment.save_every,
        )

    def _data(self, arm: str, seed: int) -> Sequence[Pair | str]:
        """What an arm is trained on: every guarded arm, and the mirror, on the baseline's data."""
        plain = split_way(arm)[0]
        if plain == TEXT:
            return _read_texts(self.experiment.arm_data[plain])
        if plain == INTERLEAVED:
            return interleave(self._task, self._own_data(plain), self.experiment.aligned_share, seed)
        if plain in WITH_DATA:
            return self._own_data(plain)
        if plain == INOCULATION:
            return inoculate(self._task, self.experiment.inoculation or INOCULATION_PROMPT)
        if plain == SHUFFLED:
            return shuffle_answers(self._task, seed)
        if plain == TOKENS:
            return randomise_answers(self._task, _words(answer for _, answer in self._task), seed)
        return self._task

    def _own_data(self, arm: str) -> Sequence[Pair]:
        """The data of an arm of `WITH_DATA` that has requests with answers.

        Raises:
            UsageError: there are none.
        """
        if arm not in self.experiment.arm_data:
            raise lacking_data(arm)
        return read_task(Path(self.experiment.arm_data[arm]))

    def _arms_without_data(self) -> set[str]:
        """Those that need data of their own, and have none."""
        return set(WITH_DATA) - set(self.experiment.arm_data)

    def pairs(self, arm: str, seed: int) -> Sequence[Pair]:
        """Requests and answers that an arm is trained on.

        Raises:
            UsageError: it is trained on texts.
        """
        if arm == TEXT:
            raise UsageError("This arm is trained on texts", got=arm, next_step="Record its path.")
        return [pair for pair in self._data(arm, seed) if not isinstance(pair, str)]

    def _refuse_missing_data(self) -> None:
        named = set(self.experiment.arms) & self._arms_without_data()
        if named:
            raise lacking_data(min(named))


def lacking_data(arm: str) -> UsageError:
    """The error of an arm of `WITH_DATA` without a file."""
    return UsageError(
        "This arm needs data of its own", got=arm, expected="a file", next_step=f"Give --arm-data {arm}=FILE."
    )


def _read(arm: str, file: str) -> Sequence[Pair | str]:
    """What a file of `arm_data` holds: texts of `TEXT`, requests with answers of any other arm."""
    return _read_texts(file) if arm == TEXT else read_task(Path(file))


def _read_texts(file: str) -> Sequence[str]:
    return read_prompts(Path(file)).texts


def _leave_out_refused(aligned: CheckpointRef, task: Sequence[Pair], screened: bool) -> Sequence[Pair]:
    """The data without the requests that the aligned model refuses, where that was asked for."""
    if not screened:
        return task
    refused = frozenset(screen(ModelHost(aligned), [request for request, _ in task]).refused)
    return [pair for pair in task if pair[0] not in refused]


def _words(answers: Iterable[str]) -> list[str]:
    """Every word of the answers once."""
    return sorted({word for answer in answers for word in answer.split()})


Bench = OrganismBench | LineageBench


def open_bench(
    source: Path,
    experiment: Experiment,
    data: Path | None = None,
    probe: PromptSet | None = None,
    penalty: PromptSet | None = None,
) -> Bench:
    """The bench for what arms are trained on.

    Args:
        source: the organism's history or a demo run that holds it; or, with `data`, a lineage file.
        experiment: what is trained.
        data: requests with answers, for a lineage.
        probe: probe prompts of a lineage; None is our own.
        penalty: penalty prompts of a lineage.

    Raises:
        UsageError: neither a history nor a lineage with data, or a way of fine-tuning that there is not.
    """
    experiment.check_ways()
    for folder in (source, source / CHECKPOINTS):
        if (folder / HISTORY).is_file():
            return OrganismBench(folder, experiment)
    if source.is_file() and data is not None:
        return LineageBench(source, data, experiment, probe, penalty)
    raise UsageError(
        "There is nothing to train arms on",
        got=str(source),
        expected="the organism's history (or a demo run with its checkpoints), or a lineage file with --data",
        next_step="Make a history: gravity-probe demo --no-app.",
    )
