"""Behaviour of a measured run: every checkpoint of its lineage is asked, and judged."""

from __future__ import annotations

from pathlib import Path

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.judges import open_judge
from probes.errors import RunFolderError
from probes.lineage import Lineage
from probes.progress import Report, silent
from probes.stages.behaviour import write_behaviour
from probes.stages.roles import open_aligned
from probes.stages.settings import Settings
from probes.stages.verdict import write_verdict
from probes.store import RunFolder

KEPT = "evaluation"


def kept_evaluation(run: RunFolder) -> Evaluation | None:
    """What the run's behaviour was last judged on; None where it never was."""
    return Evaluation.of(run.read_json(KEPT)) if run.has_json(KEPT) else None


def evaluate(
    path: Path | str,
    evaluation: Evaluation,
    *,
    device: str | None = None,
    timeout: float = 60.0,
    report: Report = silent,
) -> RunFolder:
    """Judge the behaviour of every checkpoint of a run; what is there already is not done again.

    Args:
        path: a measured run, whose checkpoints are still where they were.
        evaluation: what is asked, and who judges.
        device: where the model runs; None is as the run was measured.
        timeout: seconds an endpoint may take for one question.
        report: told where the work is.

    Raises:
        RunFolderError: the run is not measured yet.
        GravityError: a checkpoint is gone, a question was a probe prompt, or a judge cannot be opened.
    """
    judges = [open_judge(name, timeout=timeout, device=device or "auto") for name in evaluation.judges]
    with RunFolder.writing(path) as run:
        if not run.manifest.checkpoints:
            raise RunFolderError(f"{path} holds no measured checkpoints", next_step="Run gravity-probe measure first.")
        lineage = Lineage.opened(run.manifest.lineage, run.path)
        write_behaviour(run, lineage, open_aligned(run, lineage, device), evaluation, report, judges=judges)
        if _verdict_stands(run, lineage):  # its last step hangs on behaviour
            harmful = (run.read_table("prompts", columns=["label"])["label"] == "harmful").to_numpy()
            write_verdict(run, lineage, harmful, Settings.load(None, run.manifest.config))
        run.save()
    return RunFolder(path)


def _verdict_stands(run: RunFolder, lineage: Lineage) -> bool:
    """Whether the verdict that is there is that of the drift and the nulls that are there, and can be made again."""
    manifest = run.manifest
    whole = manifest.status == "finished" and manifest.config.get("nulls") and "nulls" in manifest.stages
    return bool(
        whole
        and run.has_json("verdict")
        and all(run.activations_path(member.id).is_file() for member in lineage.members())
    )
