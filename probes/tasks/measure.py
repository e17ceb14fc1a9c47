"""A lineage and its prompts in, a finished run folder out: the stages in their order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.behaviour.evaluation import Evaluation
from probes.drift import check_prompts
from probes.lineage import Lineage
from probes.progress import Report, silent, within
from probes.prompts import Prompt, PromptSet, render
from probes.stages.behaviour import write_behaviour
from probes.stages.drift import write_drift
from probes.stages.nulls import write_nulls
from probes.stages.pairs import write_pairs
from probes.stages.roles import open_host, write_roles
from probes.stages.settings import Settings
from probes.stages.spectra import write_spectra
from probes.stages.verdict import write_verdict
from probes.stages.views import write_views
from probes.store import RunFolder


def measure(
    lineage: Lineage,
    prompts: PromptSet,
    out: Path | str,
    *,
    settings: Settings | None = None,
    given: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    report: Report = silent,
) -> RunFolder:
    """Measure every checkpoint of a lineage; what is already in `out` is not done again.

    Args:
        lineage: the checkpoints by role, and the trajectories.
        prompts: harmful and harmless probe prompts.
        out: the run folder, new or to go on with.
        settings: options; None is every default.
        given: the options as the user wrote them, kept in the manifest beside the full ones.
        evaluation: prompts and task on which behaviour is judged at every checkpoint; None leaves behaviour out.
        report: told where the work is.

    Returns:
        The finished run, open for reading.

    Raises:
        GravityError: a checkpoint, a prompt or the folder is not what it must be; the sentence says what to do.
    """
    settings = settings or Settings()
    check_prompts(prompts.harmful)
    with RunFolder.writing(out, name=Path(out).name) as run:
        host = open_host(lineage, settings)
        rendered, keys = write_roles(run, lineage, host, prompts, settings, given or {}, within(report, 0.0, 0.35))
        write_drift(run, lineage, prompts.harmful, keys, settings, within(report, 0.35, 0.5))
        write_views(run, lineage, prompts, keys)
        write_spectra(run)
        write_pairs(run)
        if evaluation is not None:
            write_behaviour(run, lineage, host, evaluation, within(report, 0.5, 0.75))
        if settings.nulls:
            write_nulls(run, lineage, host, prompts.harmful, rendered, keys, settings, within(report, 0.75, 1.0))
            write_verdict(run, lineage, prompts.harmful, settings)
        run.finish()
    return RunFolder(out)


def judge(path: Path | str, *, shams: int, report: Report = silent) -> RunFolder:
    """Hold a measured run against every null with this many shams, and write its verdict.

    Raises:
        RunFolderError: the run is not measured yet.
        GravityError: a checkpoint of its lineage is no longer where it was.
    """
    with RunFolder.writing(path) as run:
        lineage = Lineage.opened(run.manifest.lineage, run.path)
        asked = {**run.manifest.config, "nulls": True, "shams": shams}
        settings = Settings.load(None, asked)
        prompts = kept_prompts(run)
        host = open_host(lineage, settings)
        rendered = render(prompts, host.tokenizer, host.context_length)
        keys = {name: about["key"] for name, about in run.manifest.checkpoints.items()}
        write_nulls(run, lineage, host, prompts.harmful, rendered, keys, settings, report)
        write_verdict(run, lineage, prompts.harmful, settings)
        run.manifest.config = {**run.manifest.config, "nulls": True, "shams": shams}
        run.finish()
    return RunFolder(path)


def kept_prompts(run: RunFolder) -> PromptSet:
    """The probe prompts of a run, in the order of its activations."""
    frame = run.read_table("prompts", columns=["id", "text", "label"])
    return PromptSet(tuple(Prompt(*row) for row in frame.itertuples(index=False, name=None)))
