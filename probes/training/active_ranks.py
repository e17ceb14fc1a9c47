"""Stage `active_ranks.parquet`: how many of BaRA's terms are open on each module, and active on either kind of prompt.

Of runs without a BaRA adapter there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.lineage import ADAPTER_CONFIG, Member
from probes.models import ModelHost
from probes.models.source import read_json
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import complete_jobs
from probes.stages.weights import describe_tensor

if TYPE_CHECKING:
    import pandas as pd

ACTIVE_RANKS = "active_ranks"
COLUMNS = (
    *("checkpoint", "arm", "seed", "step", "layer", "module"),
    *("terms", "open", "harmful", "harmless", "difference"),
)
_PROMPTS = 32  # of either kind, the first: each is read by itself


def write_active_ranks(run: Run, model: ModelHost, report: Report) -> None:
    """Write a row a module of every checkpoint with a BaRA adapter: as `active_ranks`, over 32 prompts of a kind."""
    members = [member for member in run.tuned if _is_gated(model, member)]
    if members:
        _write(run, model, [member.id for member in members], report)


@stage(ACTIVE_RANKS, version=1, needs=("activations", "prompts"))
def _write(run: Run, model: ModelHost, gated: Sequence[str], report: Report) -> None:
    import pandas as pd

    jobs = {f"Ranks of {member.id}": partial(_read, member) for member in run.tuned if member.id in gated}
    frames = dict(complete_jobs(run, model, jobs, report))
    run.write_table(ACTIVE_RANKS, pd.concat([frames[name] for name in jobs], ignore_index=True))


def _read(member: Member, run: Run, model: ModelHost, report: Report) -> pd.DataFrame:
    from probes.training.bara import active_ranks

    report(Progress("reading gates", 0, 1, member.id))
    places = [place for kind in (run.harmful, ~run.harmful) for place in np.flatnonzero(kind)[:_PROMPTS]]
    model.put(member.ref)
    table = active_ranks(model.model, [run.rendered.token_ids[place] for place in places], run.harmful[places])
    about: dict[str, Any] = {"layer": [describe_tensor(f"{name}.")["layer"] for name in table["module"]]}
    return table.assign(**member.labels, **about)[list(COLUMNS)]


def _is_gated(model: ModelHost, member: Member) -> bool:
    if not member.ref.adapter:
        return False
    folder = model.folders.get((member.ref.adapter, None), Path(member.ref.adapter))
    return str(read_json(folder / ADAPTER_CONFIG).get("peft_type")) == "BARA"
