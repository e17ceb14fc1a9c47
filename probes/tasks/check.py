"""The gate that a pipeline sets on a run: no checkpoint has gone further back than a threshold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, computed_field

from probes.errors import GateTripped, RunFolderError, UsageError
from probes.lineage import MIRROR, ROLES, Member
from probes.run import Run
from probes.statistics import decimal

if TYPE_CHECKING:
    import pandas as pd


class Place(BaseModel):
    """A fine-tuned checkpoint, by the trajectory it is on."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    step: int

    def __str__(self) -> str:
        return f"{self.arm} (seed {self.seed}) at step {self.step}"


class ReturnGate(BaseModel):
    """The return fraction of every fine-tuned checkpoint against a threshold; what `check --json` prints.

    Attributes:
        max_return: the largest return fraction that passes.
        layer: the block behind which it is read.
        furthest: the largest finite return fraction; None where there is none.
        furthest_at: the checkpoint that has it; `where` in `--json`.
        unmeasured: every checkpoint whose return fraction is missing or no finite number, and why.
        witness: towards what the return is, e.g. `witness (base model stands in)`.
    """

    model_config = ConfigDict(frozen=True)

    max_return: float
    layer: int
    furthest: float | None
    furthest_at: Place | None = Field(serialization_alias="where")
    unmeasured: dict[str, str]
    witness: str = "witness"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether every return fraction is known, and none is larger than the threshold."""
        return not self.unmeasured and not self._exceeded

    @property
    def _exceeded(self) -> bool:
        return self.furthest is not None and self.furthest > self.max_return

    @property
    def sentence(self) -> str:
        """The result in words: the furthest checkpoint, and the first that has no return fraction."""
        limit = f"{self.max_return:g}".replace("-", "−")
        reached = f"{self.furthest_at}: return fraction {decimal(self.furthest, 3)} at layer {self.layer}"
        if self.witness != "witness":
            reached += f", towards the {self.witness}"
        if self.passed and self.furthest_at is None:
            return f"Within {limit}: every checkpoint is the aligned model itself."
        if self.passed:
            return f"Within {limit}. Furthest: {reached}."
        parts = [f"{reached}, more than {limit}"] if self._exceeded else []
        if self.unmeasured:
            place, reason = next(iter(self.unmeasured.items()))
            count = f" (and of {len(self.unmeasured) - 1} more)" if len(self.unmeasured) > 1 else ""
            parts.append(f"{place}: the return fraction at layer {self.layer} {reason}{count}")
        return "; ".join(parts)


def return_gate(run: Run, max_return: float, layer: int | None = None) -> ReturnGate:
    """Hold the return fraction of every fine-tuned checkpoint of the lineage against a threshold.

    Args:
        run: a measured run.
        max_return: the largest return fraction that passes.
        layer: a block; None is the headline layer.

    Raises:
        UsageError: the threshold is not finite, or the run has no such layer.
        RunFolderError: the run has no trajectory, or no drift table.
    """
    if not math.isfinite(max_return):
        raise UsageError("--max-return is no finite number", got=max_return, expected="a return fraction such as 0.2")
    layer = run.headline_layer if layer is None else layer
    if not 0 <= layer < run.n_layers:
        raise UsageError("No such layer in this run", got=layer, expected=f"0 to {run.n_layers - 1}")
    rows = _rows(run.drift(statistic="return_fraction", layer=layer))
    places = dict.fromkeys([*(_place(member) for member in run.tuned if member.arm != MIRROR), *rows])
    if not places:
        raise RunFolderError(f"{run.path} has no trajectory to check")
    reasons = {place: _why_unmeasured(place, rows.get(place)) for place in places}
    finite = {place: value for place, (value, _) in rows.items() if math.isfinite(value)}
    furthest = max(finite, key=finite.__getitem__, default=None)
    return ReturnGate(
        max_return=max_return,
        layer=layer,
        furthest=None if furthest is None else finite[furthest],
        furthest_at=furthest,
        unmeasured={str(place): reason for place, reason in reasons.items() if reason},
        witness=run.lineage.witness_label,
    )


def check_return(run: Run, max_return: float, layer: int | None = None) -> str:
    """One sentence that says every trajectory stayed at or under `max_return`.

    Raises:
        GateTripped: a checkpoint went further back (named, with its fraction), or the return fraction of one is
            missing or no finite number (named, with the reason).
        UsageError: see `return_gate`.
        RunFolderError: see `return_gate`.
    """
    gate = return_gate(run, max_return, layer)
    if not gate.passed:
        raise GateTripped(gate.sentence)
    return gate.sentence


def _place(member: Member) -> Place:
    return Place(arm=member.arm, seed=member.seed, step=member.step)


def _rows(drift: pd.DataFrame) -> dict[Place, tuple[float, str | None]]:
    """Value and reason of every fine-tuned checkpoint that has a row; a mirror does not begin at the aligned model."""
    tuned = drift.loc[~drift["arm"].isin([*ROLES, MIRROR]), ["arm", "seed", "step", "value", "reason"]]
    return {
        Place(arm=arm, seed=seed, step=step): (float(value), reason if isinstance(reason, str) else None)
        for arm, seed, step, value, reason in tuned.itertuples(index=False, name=None)
    }


def _why_unmeasured(place: Place, row: tuple[float, str | None] | None) -> str | None:
    """Why a checkpoint has no return fraction; None where it has one, or is the aligned model itself, at step 0."""
    if row is None:
        return "was not measured"
    value, reason = row
    if math.isinf(value):
        return "is infinite"
    if math.isfinite(value) or (place.step == 0 and reason):
        return None
    return f"is not defined: {reason}" if reason else "is not defined"
