"""Stage `direction_readout.parquet`: which tokens every direction writes, at every checkpoint, layer and sign."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from probes.directions.readout import readout
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.checkpoint_folders import CheckpointFolders
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages.jobs import complete_jobs
from probes.store import fingerprint

_VERSION = 1
STAGE = "direction_readout"
COLUMNS = ("direction", "checkpoint", "layer", "sign", "rank", "token", "score")


def write_readout(run: Run, members: Sequence[Member], model: CheckpointFolders, report: Report) -> None:
    """Read out every direction that was fitted at a checkpoint, through that checkpoint's own unembedding.

    What is there of checkpoints that are gone by now stays, while the directions are those that were read.
    """
    import pandas as pd

    made_from = fingerprint([_VERSION, run.made_from("direction_tracks"), run.directions])
    current = run.holds(STAGE, made_from)
    before = run.read_table(STAGE) if current else pd.DataFrame(columns=list(COLUMNS))
    members = [member for member in members if member.id not in set(before["checkpoint"])]
    if not members and current:
        return
    with run.stage(STAGE, made_from):
        jobs = {f"Tokens of {member.id}": partial(_rows, member) for member in members}
        by_name = dict(complete_jobs(run, model, jobs, report)) if jobs else {}
        rows = [row for name in jobs for row in by_name[name]]
        fresh = pd.DataFrame(rows, columns=list(COLUMNS))
        table = pd.concat([before, fresh], ignore_index=True) if len(before) else fresh
        table = table.sort_values(["layer", "checkpoint", "direction"], kind="stable")
        n_layers = max(1, table["layer"].nunique())
        run.write_table(STAGE, table, rows_per_group=max(1, len(table) // n_layers))


def forget_readout(run: Run) -> None:
    """Delete what was read out."""
    run.forget(STAGE)


def _rows(member: Member, run: Run, model: ModelHost, report: Report) -> list[tuple[Any, ...]]:
    report(Progress("reading tokens out", 0, 1, member.id))
    model.put(member.ref)
    vectors, places = [], []
    for name in run.directions_at(member.id):
        direction = run.direction(name, member.id)
        for layer, unit, norm in zip(direction.layers, direction.direction, direction.norm, strict=True):
            if norm > 0:
                places.append((name, member.id, layer))
                vectors.append(unit.astype(np.float64))
    tokens = readout(model, np.stack(vectors)) if vectors else []
    return [
        (*place, token.sign, token.rank, token.text, token.score)
        for place, read in zip(places, tokens, strict=True)
        for token in read
    ]
