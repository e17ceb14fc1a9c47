"""Where an arm changed the model: in guarded layers or others, in what it holds or in what reads that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from probes.run import Run
from probes.stages.changes import CHANGES
from probes.stages.thirds import KEPT, THIRDS, thirds_stage

_OF_TABLE = ("motion_guarded", "motion_unguarded", "probe_harmful", "probe_harmless")
_OF_THIRDS = {"return_fraction": "return", "refusal": "refusal"}
THIRD_MEASURES = tuple(
    f"{way}_{third}_{measure}" for way in KEPT for third in THIRDS for measure in _OF_THIRDS.values()
)
CHANGE_MEASURES = ("refusal_harmful", *_OF_TABLE, *THIRD_MEASURES)
HELD, READ_OUT, REPRESENTATION, BOTH = "held", "read-out", "representation", "both"
_FALL = 0.1  # of refusals, under which nothing has changed that could lie here or there
_THIRD = 1 / 3
_INFORMATIVE = 0.5


def measures_of_change(run: Run) -> dict[str, dict[str, float]]:
    """What is known of the last checkpoints and of the aligned model, by checkpoint and name; empty in older runs."""
    if not run.has_table(CHANGES):
        return {}
    changes = run.read_table(CHANGES).set_index("checkpoint")
    return {
        str(name): {**_defined_values(row, _OF_TABLE), **_of_thirds(run, str(name))} for name, row in changes.iterrows()
    }


def _of_thirds(run: Run, checkpoint: str) -> dict[str, float]:
    if not run.has_table(thirds_stage(checkpoint)):
        return {}
    return {
        f"{row['kept']}_{row['third']}_{_OF_THIRDS[column]}": value
        for _, row in run.read_table(thirds_stage(checkpoint)).iterrows()
        for column, value in _defined_values(row, tuple(_OF_THIRDS)).items()
    }


def _defined_values(row: pd.Series, names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(row[name]) for name in names if pd.notna(row[name])}


def describe_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Whether the representation of harmful prompts changed, or its read-out; a description, and no test.

    Refusals fell by r, the share of harmful prompts that the frozen probe takes for harmful by p: `representation`
    where p is at least two thirds of r, `read-out` where it is at most one third, `both` between them; `held` where r
    is under ten points.

    Args:
        before: of the aligned model, `refusal_harmful`, `probe_harmful` and `probe_harmless`.
        after: the first two of the arm.

    Returns:
        None where one of them is not known, or where the probe does not tell the aligned model's harmful prompts by 50
        points more than its harmless ones, so that it can say nothing.
    """
    names = ("refusal_harmful", "probe_harmful")
    pairs = [(before.get(name), after.get(name)) for name in names]
    if any(None in pair for pair in pairs) or before["probe_harmful"] - before["probe_harmless"] < _INFORMATIVE:
        return None
    refusals, probe = (float(start) - float(end) for start, end in pairs)  # type: ignore[arg-type]
    if refusals < _FALL:
        return HELD
    share = probe / refusals
    return READ_OUT if share <= _THIRD else REPRESENTATION if share >= 1 - _THIRD else BOTH
