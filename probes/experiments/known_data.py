"""What an arm of a finished run was trained on, where the run knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.behaviour.task_file import read_task
from probes.errors import RunFolderError
from probes.experiments.data_defences import with_defences
from probes.experiments.experiment import Experiment, current_names, split_way
from probes.experiments.lineage_bench import ARM_DATA_SHA256, DATA_SHA256, LineageBench, open_bench
from probes.experiments.organism_bench import OrganismBench
from probes.guard.fine_tuning import source_of_data
from probes.lineage import Member
from probes.run import Run
from probes.store import fingerprint


def known_pairs(run: Run, member: Member) -> tuple[tuple[str, str], ...]:
    """What an arm was trained on, as a demo, an experiment or the training itself knows it.

    Raises:
        RunFolderError: nothing says it, or the files hold other data by now.
        UsageError: a file is not there any more.
    """
    config = current_names(run.manifest.config_given)
    about = config.get("arms", {})
    data = {name: about[name] for name in ("screened", "arm_data", "aligned_share", "inoculation") if name in about}
    if "demo" in config:
        bench: Any = open_bench(run.path, Experiment(screened=bool(config["demo"].get("screened"))))
    elif "history" in about:
        bench = OrganismBench(Path(about["history"]), Experiment(**data))
    elif "data" in about:
        own = {arm: file for arm, file in about.get("arm_data", {}).items() if arm == split_way(member.arm)[0]}
        bench = LineageBench(Path(about["lineage"]), Path(about["data"]), Experiment(**{**data, "arm_data": own}))
        _refuse_changed_data(run, about, bench.about)
    else:
        return _pairs_of_training(run, Path(member.ref.adapter or member.ref.model))
    return tuple(bench.pairs(member.arm, member.seed))


def _pairs_of_training(run: Run, checkpoint: Path) -> tuple[tuple[str, str], ...]:
    """What `train` had, which left this checkpoint."""
    source = source_of_data(checkpoint.parent.parent) if checkpoint.is_dir() else None
    if source is None:
        raise RunFolderError(
            f"{run.path} does not say what it was trained on",
            next_step="Give --data FILE, or train again with --record-path.",
        )
    file, about = source
    pairs = with_defences(read_task(file), about, about["training"]["seed"])
    if fingerprint([*pairs]) != about[DATA_SHA256]:
        raise _refusal_of_changed_data(run)
    return tuple(pairs)


def _refuse_changed_data(run: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse files with other data than at the training; runs of earlier versions do not say with which."""
    pairs = [(before.get(DATA_SHA256), now[DATA_SHA256])]
    pairs += [(before.get(ARM_DATA_SHA256, {}).get(arm), sha256) for arm, sha256 in now[ARM_DATA_SHA256].items()]
    if any(trained_on not in (None, sha256) for trained_on, sha256 in pairs):
        raise _refusal_of_changed_data(run)


def _refusal_of_changed_data(run: Run) -> RunFolderError:
    return RunFolderError(
        f"The data that {run.path} was trained on have changed since",
        next_step="Give --data FILE, with the data as they were.",
    )
