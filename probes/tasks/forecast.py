"""Before any training: which examples will pull, and, where it is calibrated, how far the return will go."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.attribution.calibration import Calibration, calibrate
from probes.attribution.clusters import sum_clusters
from probes.attribution.forecast import forecast as look_ahead
from probes.attribution.replay import Replay
from probes.attribution.rows_of_examples import Texts, example_tables
from probes.attribution.targets import Probe, screen_of, targets_of
from probes.attribution.texts_of_examples import rendered_examples
from probes.behaviour.task_file import read_task
from probes.errors import UsageError
from probes.experiments.experiment import BASELINE
from probes.experiments.outcome import open_runs
from probes.guard.record import begin_run
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.models.identity import check_measured
from probes.progress import Report, silent, within
from probes.prompts import PromptSet
from probes.run import Run
from probes.store import ALIGNED, fingerprint, records
from probes.store.settings import Settings
from probes.tasks.recipe_calibration import calibration_of_recipe

if TYPE_CHECKING:
    import pandas as pd

FORECAST = "forecast"
_MEASURED = 0.4  # share of the time
_COLUMNS = ("index", "text", "forecast", "screen", "cluster", "projection", "projection_difference", "bm25", "length")


@dataclass(frozen=True)
class Forecast:
    """What is known of a data set before it is trained on.

    Attributes:
        lineage: its name.
        layer: where the return is read.
        table: a row an example.
        calibration: of return units; None where there are ranks alone.
        why_ranks: why there are ranks alone.
    """

    lineage: str
    layer: int
    table: pd.DataFrame
    calibration: Calibration | None
    why_ranks: str | None

    @property
    def document(self) -> dict[str, Any]:
        """The documented JSON of `gravity-probe forecast`."""
        columns = [name for name in _COLUMNS if name in self.table]
        empty = dict.fromkeys(_COLUMNS)
        return {**self.summary, "examples": [{**empty, **row} for row in records(self.table[columns])]}

    @property
    def summary(self) -> dict[str, Any]:
        """The same without the examples."""
        sums = [name for name in ("forecast", "screen") if name in self.table]
        return {
            "lineage": self.lineage,
            "layer": self.layer,
            "why_ranks": self.why_ranks,
            "calibration": None if self.calibration is None else self.calibration.document,
            "clusters": records(sum_clusters(self.table, sums)),
        }


@dataclass(frozen=True)
class Forecasting:
    """What is forecast.

    Attributes:
        data: requests with answers.
        probe: probe prompts.
        layer: a block; None is the one that a measurement would declare.
        runs: two or more short runs of the same recipe on these data, or one of several seeds, to calibrate return
            units with; without them, what comes with the program of the organism's recipes.
        alarm: the return fraction whose step is asked for.
        against: a run of the training that came; the forecast is kept in it.
    """

    data: Path
    probe: PromptSet
    layer: int | None = None
    runs: Sequence[Path] = ()
    alarm: float = 0.1
    against: Path | None = None


def forecast(lineage: Lineage, options: Forecasting, report: Report = silent) -> Forecast:
    """Rank the examples of a data set by how far each will pull, before any training.

    The forecast needs a witness; the screen by the refusal axis needs none.

    Args:
        lineage: training starts from its aligned model.
        options: which data, and how.
        report: told where the work is.

    Raises:
        UsageError: one short run alone, one named twice, one without a witness or without this layer, or one that is
            forecast itself.
        PromptError: a row of the data has no answer.
        CheckpointError: the run that the forecast is held against started from another model.
    """
    if options.against is not None and options.against.resolve() in [path.resolve() for path in options.runs]:
        raise UsageError("A run that calibrates the forecast cannot be held against it", got=str(options.against))
    calibrating, task = open_runs(options.runs), read_task(options.data)
    if calibrating and sum(len(_seeds(run)) for run in calibrating) < 2:
        raise UsageError("One run calibrates nothing: its spread is not known", expected="two short runs or more")
    against = None if options.against is None else Run(options.against)
    with tempfile.TemporaryDirectory(prefix="gravity-probe-") as folder:
        settings = Settings(nulls=False, headline_layer=options.layer)
        begun = begin_run(Path(folder) / "run", lineage, options.probe, settings, {}, within(report, 0.0, _MEASURED))
        layer = begun.headline_layer
        host = ModelHost(lineage.aligned, dtype="float32")
        if against is not None:
            measured = against.manifest.checkpoints[ALIGNED].get("weights_sha256")
            check_measured(host.weights_sha256, lineage.aligned, measured)
        examples = rendered_examples(task, host.tokenizer, host.context_length)
        replay = Replay(host, examples, [name for name, _ in host.model.named_parameters()])
        targets = (targets_of(begun, layer)[:1] if begun.has_witness else []) + [screen_of(begun, layer)]
        harmful = [prompt.text for prompt in options.probe.prompts if prompt.label == "harmful"]
        probe = Probe(begun.rendered.token_ids, begun.settings.position)
        forecasts = look_ahead(replay, probe, targets, within(report, _MEASURED, 1.0))
        table = example_tables(replay, targets, forecasts, Texts(task, harmful))[layer]
    if calibrating:
        units = _calibrate(calibrating, layer, options.alarm)
    else:
        units = calibration_of_recipe(lineage, task, options.layer, options.alarm)
    result = Forecast(lineage.name, layer, table, *units)
    if options.against is not None:
        keep_forecast(options.against, result)
    return result


def keep_forecast(path: Path, result: Forecast) -> None:
    """Keep a forecast in the run of the training that came, where the page Trajectories holds it against it."""
    with Run.writing(path) as run:
        with run.stage(FORECAST, fingerprint(result.summary)):
            run.write_json(FORECAST, result.summary)
        run.save()


def _arm(run: Run) -> str | None:
    """The arm of a run that calibrates: the baseline, else its first."""
    arms = [member.arm for member in run.tuned]
    return BASELINE if BASELINE in arms else next(iter(arms), None)


def _seeds(run: Run) -> set[int | None]:
    """Of its trainings, each of which counts as a run."""
    return {member.seed for member in run.tuned if member.arm == _arm(run)}


def _calibrate(runs: Sequence[Run], layer: int, alarm: float) -> tuple[Calibration | None, str | None]:
    """Return units from short runs; or why there are none."""
    curves = []
    for run in runs:
        drift = run.drift(_arm(run), "return_fraction", layer=layer)
        for _, rows in drift[drift["step"] > 0].groupby("seed"):
            tuned = rows.dropna(subset=["value"])
            curves.append({int(step): float(value) for step, value in zip(tuned["step"], tuned["value"], strict=True)})
    return calibrate(curves, alarm)
