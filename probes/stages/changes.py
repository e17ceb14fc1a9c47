"""Stage `changes.parquet`: how far guarded and other layers moved, and whether a frozen probe still sees harm.

A row for the aligned model and for the last checkpoint of each trajectory. Where refusals fell while the aligned
model's probe still tells harmful prompts at the headline layer, what reads that layer has changed, not what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from probes.directions.refusal import read_as_harmful
from probes.lineage import Member
from probes.run import Run
from probes.stages import stage
from probes.store import ALIGNED

CHANGES = "changes"
COLUMNS = (
    *("checkpoint", "arm", "seed", "step", "layer", "guarded", "motion_guarded", "motion_unguarded"),
    *("probe_harmful", "probe_harmless"),
)


@stage(CHANGES, version=1, needs=("measured", "prompts", "drift"))
def write_changes(run: Run, layer: int, guarded: Mapping[str, Sequence[int]]) -> None:
    """Write the table.

    Args:
        run: measured, open for writing.
        layer: at which the probe is read: the headline layer.
        guarded: by arm, the layers that its guard looks at, or a block's in its place; an arm that is not named here
            has no motion of either kind.

    `motion_guarded` and `motion_unguarded` are means of ‖δ‖ / ‖v_rev‖ over the layers of either kind, NaN where there
    are none; `probe_harmful` and `probe_harmless` are of `read_as_harmful`.
    """
    aligned = run.activations(ALIGNED, layer)
    motions = _motions(run)
    rows = []
    for member in (next(member for member in run.measured if member.id == ALIGNED), *last_members(run)):
        own, layers = motions.get(member.id, {}), sorted(guarded.get(member.arm, ()))
        seen = read_as_harmful(run.activations(member.id, layer), aligned, run.harmful, run.fold)
        parts = [own[at] for at in own if at in layers], [own[at] for at in own if layers and at not in layers]
        means = (float(np.mean(part)) if part else np.nan for part in parts)
        rows.append((*member.labels.values(), layer, " ".join(map(str, layers)), *means, *seen))
    run.write_table(CHANGES, pd.DataFrame(rows, columns=list(COLUMNS)))


def last_members(run: Run) -> Iterator[Member]:
    """The last checkpoint of each trajectory whose activations are kept."""
    last = {(member.arm, member.seed): member for member in run.measured if not member.is_role}
    yield from last.values()


def _motions(run: Run) -> dict[str, dict[int, float]]:
    """‖δ‖ / ‖v_rev‖ by checkpoint and block."""
    names = ["return_fraction", "off_axis"]
    frame = run.read_table("drift", filters=[("statistic", "in", names), ("layer", ">=", 0)])
    squares = frame.assign(value=frame["value"] ** 2).groupby(["checkpoint", "layer"])["value"].sum(min_count=2)
    motions: dict[str, dict[int, float]] = {}
    for (checkpoint, layer), square in squares.dropna().items():
        motions.setdefault(str(checkpoint), {})[int(layer)] = float(np.sqrt(square))
    return motions
