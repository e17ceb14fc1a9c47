"""What an arm of a finished run was trained on, where the run knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.errors import RunFolderError
from probes.experiments.experiment import Experiment, current_names, split_way
from probes.experiments.lineage_bench import ARM_DATA_SHA256, DATA_SHA256, LineageBench, open_bench
from probes.experiments.organism_bench import OrganismBench
from probes.lineage import Member
from probes.run import Run


def known_pairs(run: Run, member: Member) -> tuple[tuple[str, str], ...]:
    """What an arm was trained on, as a demo or an experiment knows it.

    Raises:
        RunFolderError: the run does not say, or the files hold other data by now.
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
        raise RunFolderError(
            f"{run.path} does not say what it was trained on",
            next_step="Give --data FILE, or train again with --record-path.",
        )
    return tuple(bench.pairs(member.arm, member.seed))


def _refuse_changed_data(run: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse files with other data than at the training; runs of earlier versions do not say with which."""
    pairs = [(before.get(DATA_SHA256), now[DATA_SHA256])]
    pairs += [(before.get(ARM_DATA_SHA256, {}).get(arm), sha256) for arm, sha256 in now[ARM_DATA_SHA256].items()]
    if any(trained_on not in (None, sha256) for trained_on, sha256 in pairs):
        raise RunFolderError(
            f"The data that {run.path} was trained on have changed since",
            next_step="Give --data FILE, with the data as they were.",
        )
