"""What an arm of a finished run was trained on, where the run knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import RunFolderError
from probes.experiments.experiment import Experiment, current_names
from probes.experiments.lineage_bench import LineageBench, open_bench
from probes.experiments.organism_bench import OrganismBench
from probes.lineage import Member
from probes.run import Run


def known_pairs(run: Run, member: Member) -> tuple[tuple[str, str], ...]:
    """What an arm was trained on, as a demo or an experiment knows it.

    Raises:
        RunFolderError: the run does not say.
    """
    config = current_names(run.manifest.config_given)
    about = config.get("arms", {})
    data = {name: about[name] for name in ("screened", "arm_data", "aligned_share", "inoculation") if name in about}
    if "demo" in config:
        bench: Any = open_bench(run.path, Experiment(screened=bool(config["demo"].get("screened"))))
    elif "history" in about:
        bench = OrganismBench(Path(about["history"]), Experiment(**data))
    elif "data" in about:
        bench = LineageBench(Path(about["lineage"]), Path(about["data"]), Experiment(**data))
    else:
        raise RunFolderError(
            f"{run.path} does not say what it was trained on",
            next_step="Give --data FILE, or train again with --record-path.",
        )
    return tuple(bench.pairs(member.arm, member.seed))
