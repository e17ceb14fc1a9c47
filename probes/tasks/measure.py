"""A lineage and its prompts in, a finished run folder out: the stages in their order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.drift import check_prompts
from probes.engine import current_engine
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.progress import Report, silent, within
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.behaviour import write_behaviour
from probes.stages.drift import write_drift
from probes.stages.nulls import refuse_too_many, write_nulls
from probes.stages.pairs import write_pairs
from probes.stages.probe import write_probe
from probes.stages.roles import render_prompts, write_roles
from probes.stages.spectra import write_spectra
from probes.stages.verdict import write_verdict
from probes.stages.views import write_views
from probes.stages.weight_drift import write_weight_drift
from probes.store.settings import Settings
from probes.training.active_ranks import write_active_ranks


def measure(
    lineage: Lineage, prompts: PromptSet, out: Path | str, settings: Settings | None = None, report: Report = silent
) -> Run:
    """Measure every checkpoint of a lineage; what is already in `out` is not done again.

    Args:
        lineage: the checkpoints by role, and the trajectories.
        prompts: harmful and harmless probe prompts.
        out: the run folder, new or to go on with.
        settings: options; None is every default.
        report: told where the work is.

    Returns:
        The finished run, open for reading.

    Raises:
        GravityError: a checkpoint, a prompt or the folder is not what it must be; the sentence says what to do.
    """
    check_prompts(prompts.harmful)
    settings = settings or Settings()
    if settings.nulls:
        refuse_too_many(len(prompts))
    with Run.writing(out) as run:
        run.begin(lineage, settings)
        write_stages(run, prompts, report=report)
    return Run(out)


def begin(lineage: Lineage, prompts: PromptSet, out: Path | str, settings: Settings | None = None) -> Run:
    """Begin a run as far as its checkpoints can be asked: lineage, settings, and the prompts as its models read them.

    `measure` with the same arguments goes on from there.
    """
    check_prompts(prompts.harmful)
    with Run.writing(out) as run:
        run.begin(lineage, settings or Settings())
        render_prompts(run, run.model(), prompts)
    return Run(out)


def write_stages(run: Run, prompts: PromptSet, evaluation: Evaluation | None = None, report: Report = silent) -> None:
    """Write every stage of a run that has begun.

    Args:
        run: open for writing, with its lineage and settings.
        prompts: harmful and harmless probe prompts.
        evaluation: prompts and task on which behaviour is judged at every checkpoint; None leaves behaviour out.
        report: told where the work is.
    """
    check_prompts(prompts.harmful)
    with current_engine().threads():
        _write_stages(run, prompts, evaluation, report)


def _write_stages(run: Run, prompts: PromptSet, evaluation: Evaluation | None, report: Report) -> None:
    current_engine().prepare("probes.stages.activations", len(run.members))
    model = run.model()
    write_roles(run, model, prompts, within(report, 0.0, 0.35))
    write_drift(run, within(report, 0.35, 0.5))
    write_views(run)
    write_spectra(run, within(report, 0.5, 0.51))
    write_pairs(run, within(report, 0.51, 0.52))
    write_probe(run, within(report, 0.52, 0.53))
    write_weight_drift(run, model, within(report, 0.53, 0.54))
    write_active_ranks(run, model, within(report, 0.54, 0.55))
    if evaluation is not None:
        write_behaviour(run, model, evaluation, within(report, 0.55, 0.75))
    if run.settings.nulls:
        write_tests(run, model, within(report, 0.75, 1.0))
    run.finish()


def write_tests(run: Run, model: ModelHost, report: Report) -> None:
    """Hold the drift against its nulls and write the verdict; without a witness, that there is none to be had."""
    if run.has_witness:
        write_nulls(run, model, report)
    write_verdict(run)


def judge(path: Path | str, shams: int, report: Report = silent, *, sham_arms: Sequence[str] | None = None) -> Run:
    """Hold a measured run against every null with this many shams, and write its verdict.

    Args:
        path: the run folder.
        shams: noised copies of the aligned model for each trajectory that has them.
        report: told where the work is.
        sham_arms: arms that have them; None is as the run's settings say, and the baseline where they say none.

    Raises:
        RunFolderError: the run is not measured yet.
        GravityError: a checkpoint of its lineage is no longer where it was.
    """
    with Run.writing(path) as run, current_engine().threads():
        refuse_too_many(len(run.prompts))
        arms = (run.settings.sham_arms or Settings().sham_arms) if sham_arms is None else sham_arms
        run.manifest.config = {**run.manifest.config, "nulls": True, "shams": shams, "sham_arms": list(arms)}
        run.refresh()
        write_tests(run, run.model(), report)
        run.finish()
    return Run(path)
