"""Stage `direction_readout.parquet`: which tokens every direction writes, at every checkpoint, layer and sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.readout import readout
from probes.stages.directions import directions_of, read_direction
from probes.store import RunFolder, fingerprint

_VERSION = 1
COLUMNS = ("direction", "checkpoint", "layer", "sign", "rank", "token", "score")


def write_readout(run: RunFolder, members: Sequence[Member], host: ModelHost, report: Report) -> None:
    """Read out every direction that was fitted at a checkpoint, through that checkpoint's own unembedding."""
    asked = [run.manifest.stages.get("direction_tracks"), directions_of(run), [member.id for member in members]]
    made_from = fingerprint([_VERSION, *asked])
    if run.holds("direction_readout", made_from):
        return
    with run.stage("direction_readout", made_from):
        import pandas as pd

        rows: list[tuple[Any, ...]] = []
        for done, member in enumerate(members):
            report(Progress("reading tokens out", done, len(members), member.id))
            host.put(member.ref)
            rows += _rows(run, member, host)
        table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
            ["layer", "checkpoint", "direction"], kind="stable"
        )
        n_layers = max(1, table["layer"].nunique())
        run.write_table("direction_readout", table, rows_per_group=max(1, len(table) // n_layers))


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
