"""Stage `direction_readout.parquet`: which tokens every direction writes, at every checkpoint, layer and sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.directions.readout import readout
from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.stages.directions import directions_of, read_direction
from probes.store import RunFolder, fingerprint

_VERSION = 1
STAGE = "direction_readout"
COLUMNS = ("direction", "checkpoint", "layer", "sign", "rank", "token", "score")


def write_readout(run: RunFolder, members: Sequence[Member], host: ModelHost, report: Report) -> None:
    """Read out every direction that was fitted at a checkpoint, through that checkpoint's own unembedding.

    What is there of checkpoints that are gone by now stays, while the directions are those that were read.
    """
    made_from = fingerprint([_VERSION, run.manifest.stages.get("direction_tracks"), directions_of(run)])
    import pandas as pd

    kept = run.read_table(STAGE) if run.holds(STAGE, made_from) else pd.DataFrame(columns=list(COLUMNS))
    members = [member for member in members if member.id not in set(kept["checkpoint"])]
    if not members and run.holds(STAGE, made_from):
        return
    with run.stage(STAGE, made_from):
        rows: list[tuple[Any, ...]] = []
        for done, member in enumerate(members):
            report(Progress("reading tokens out", done, len(members), member.id))
            host.put(member.ref)
            rows += _rows(run, member, host)
        fresh = pd.DataFrame(rows, columns=list(COLUMNS))
        table = pd.concat([kept, fresh], ignore_index=True) if len(kept) else fresh
        table = table.sort_values(["layer", "checkpoint", "direction"], kind="stable")
        n_layers = max(1, table["layer"].nunique())
        run.write_table(STAGE, table, rows_per_group=max(1, len(table) // n_layers))


def forget_readout(run: RunFolder) -> None:
    """Delete what was read out."""
    run.manifest.stages.pop(STAGE, None)
    (run.path / f"{STAGE}.parquet").unlink(missing_ok=True)


def _rows(run: RunFolder, member: Member, host: ModelHost) -> list[tuple[Any, ...]]:
    vectors, places = [], []
    for name in directions_of(run, member.id):
        found = read_direction(run, name, member.id)
        for layer, unit, norm in zip(found.layers, found.direction, found.norm, strict=True):
            if norm > 0:
                places.append((name, member.id, layer))
                vectors.append(unit.astype(np.float64))
    tokens = readout(host, np.stack(vectors)) if vectors else []
    return [
        (*place, token.sign, token.rank, token.text, token.score)
        for place, found in zip(places, tokens, strict=True)
        for token in found
    ]
