"""How far a run has come, and whether its files are those that were written."""

from __future__ import annotations

from typing import Any

from probes.run import Run
from probes.stages.job_status import read_job_status


def status(run: Run, *, verify: bool = False) -> dict[str, Any]:
    """The state of a run folder.

    Args:
        run: the run.
        verify: hash every file; without it files are looked at by their size alone.

    Returns:
        `{"run", "name", "status", "created", "checkpoints", "omitted", "stages": [{"stage", "seconds", "files",
        "bytes", "fault"}], "whole", "jobs", "remote"}`. `fault` says what is wrong with a stage's first file that has
        changed; `whole` is whether there is none. `jobs` is of those that go on, or that did not come to their end:
        `done`, `failed` and `running` of `tasks`, `seconds_left`, `failures`, the `time` when it was so, and whether a
        process is `at_work`; else None. `remote` is of a run behind a URL: its `url`, how many files were `left_there`
        and are neither looked at nor hashed, and the `writer` that holds it; else None.
    """
    stages = [
        {
            "stage": name,
            "seconds": record.seconds,
            "files": len(record.outputs),
            "bytes": sum(entry.size for entry in record.outputs.values()),
            "fault": run.damage(name, quick=not verify),
        }
        for name, record in run.manifest.stages.items()
    ]
    return {
        "run": str(run.path),
        "name": run.manifest.name,
        "status": run.manifest.status,
        "created": run.manifest.created,
        "checkpoints": len(run.manifest.checkpoints),
        "omitted": len(run.manifest.omitted),
        "stages": stages,
        "whole": all(stage["fault"] is None for stage in stages),
        "jobs": read_job_status(run),
        "remote": None if run.mirror is None else run.mirror.describe(),
    }
