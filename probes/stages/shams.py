"""Stage `shams.parquet`: the aligned model under weight noise that moves its activations as far as a fine-tuning did.

The noise of a draw has on every tensor the norm that fine-tuning has (of adapters the rank too), and is scaled as a
whole until the mean displacement of the harmful prompts at the headline layer is as long as the checkpoint's: a cosine
at a twentieth of the distance is another question. One noise is one draw, whichever checkpoint it is scaled to. Only
what the verdict needs is read: the last checkpoint of a trajectory, the harmful prompts, up to the headline layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.activations import collect_layer
from probes.directions.reversion import reversions_by_prompt
from probes.drift import splits_of_seed
from probes.errors import ActivationError
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.learned import next_token_loss
from probes.models.noise import DriftNorms
from probes.models.weight_space import drift_norms, noised, norms_up_to
from probes.nulls import NoiseScale, Sham, find_noise_scale, is_as_far
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import Work, complete_jobs
from probes.store import ALIGNED, fingerprint

if TYPE_CHECKING:
    import pandas as pd

_SEARCH_PROMPTS = 32
_FLUSH_SECONDS = 2.0


@dataclass(frozen=True)
class ShamRow:
    """One draw, held against the reversion and against the checkpoint that it is scaled to.

    Attributes:
        checkpoint: its name in the run.
        draw: which noise.
        drift: cross-fitted alignment of the sham with the reversion, at the headline layer.
        witness: the same of the checkpoint's displacement with the sham in the witness's place.
        first: the sham's mean displacement on half of the harmful prompts there, as of `nulls.Sham`.
        second: on the other half.
        scale: of the noise, in units of the fine-tuning's own weight norms.
        moved: length of its mean displacement on all harmful prompts, in units of the checkpoint's displacement.
        reached: whether it comes within 5 % of that displacement, on the prompts of the search.
        farthest: the longest displacement that the search saw, in the same units; below 1 where noise of no scale was
            seen to move them as far. NaN in draws of earlier versions, which did not say.
        loss: next-token loss on harmless prompts, in nats; a broken model is no null.
        loss_before: the aligned model's own.
        weight_drift: as `drift`, of the noise at the fine-tuning's own weight norm, on the prompts of the search.
        weight_moved: as `moved`, of that noise.
    """

    checkpoint: str
    draw: int
    drift: float
    witness: float
    first: list[float]
    second: list[float]
    scale: float
    moved: float
    reached: bool
    farthest: float
    loss: float
    loss_before: float
    weight_drift: float
    weight_moved: float


_COLUMNS = list(ShamRow.__dataclass_fields__)


def write_shams(run: Run, model: ModelHost, report: Report) -> None:
    """Complete `shams.parquet` to the number of draws asked for; draws that are there are kept.

    What an earlier version's search left short, today's may reach: such a draw is made anew. A model whose weights
    cannot be written over has none.
    """
    _begin_shams(run, run.headline_layer)
    members, count = sham_members(run) if model.is_whole else [], run.settings.shams
    rows = run.read_table("shams").to_dict("records")
    searched = {member.id for member in members}
    rows = [row for row in rows if row["reached"] or row.get("farthest", 0) > 0 or row["checkpoint"] not in searched]
    drawn = {(row["checkpoint"], row["draw"]) for row in rows}
    jobs: dict[str, Work] = {}
    for member in members:
        missing = [draw for draw in range(count) if (member.id, draw) not in drawn]
        if missing:
            basis = _Basis.of(run, model, member)
            jobs |= {f"Sham {draw + 1} of {member.id}": _Drawing(member, basis, draw) for draw in missing}
    saved = time.monotonic()
    for _, row in complete_jobs(run, model, jobs, report):
        rows.append(vars(row))
        if time.monotonic() - saved > _FLUSH_SECONDS:
            run.write_table("shams", _in_order(rows))
            saved = time.monotonic()
    run.write_table("shams", _in_order(rows))


def sham_members(run: Run) -> list[Member]:
    """The last checkpoint of every trajectory whose arm has shams; where the run has none of these arms, of the first.

    No arms at all in the settings is no shams.
    """
    arms, trajectories = run.settings.sham_arms, run.lineage.trajectories
    chosen = [trajectory for trajectory in trajectories if trajectory.arm in arms] or trajectories[: len(arms[:1])]
    last = {trajectory.checkpoint_id(trajectory.checkpoints[-1].step) for trajectory in chosen}
    return [member for member in run.tuned if member.id in last]


@stage("shams", version=2, needs=("activations", "prompts"), settings=("seed", "splits", "position"))
def _begin_shams(run: Run, layer: int) -> None:  # noqa: ARG001 - another headline layer, other shams
    """An empty table where there is none of these checkpoints at this layer: draws are added to it one by one."""
    run.write_table("shams", _in_order([]))


def _in_order(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The same rows in the same order, whatever order they were drawn in."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=_COLUMNS).sort_values(["checkpoint", "draw"], ignore_index=True)
    types = {"draw": "int64", "drift": "float64", "witness": "float64", "reached": "bool", "farthest": "float64"}
    return frame.astype(types)


@dataclass(frozen=True)
class _Basis:
    """What every draw of one checkpoint is scaled by and told apart from, computed once.

    Attributes:
        norms: how far fine-tuning moved every tensor.
        loss_before: the aligned model's loss on harmless prompts.
    """

    norms: DriftNorms
    loss_before: float

    @classmethod
    def of(cls, run: Run, model: ModelHost, member: Member) -> _Basis:
        norms = drift_norms(model, member.ref)
        model.put(model.aligned)
        return cls(norms, next_token_loss(model, _harmless_tokens(run)))


@dataclass(frozen=True)
class _Drawing:
    """One draw of one checkpoint."""

    member: Member
    basis: _Basis
    draw: int

    def __call__(self, run: Run, model: ModelHost, report: Report) -> ShamRow:
        """Make it."""
        report(Progress("drawing shams", 0, 1, f"{self.member.id} {self.draw + 1}"))
        return _Bench(run, model, self.member, self.basis).draw(self.draw)


def _harmless_tokens(run: Run) -> list[tuple[int, ...]]:
    """The harmless prompts on which a broken model would show."""
    tokens = zip(run.rendered.token_ids, run.harmful, strict=True)
    return [ids for ids, is_harmful in tokens if not is_harmful][:_SEARCH_PROMPTS]


class _Bench:
    """What every draw of one checkpoint needs: the open model, prompts, and the true activations at one layer."""

    def __init__(self, run: Run, model: ModelHost, member: Member, basis: _Basis) -> None:
        self.run, self.model, self.member, self.basis = run, model, member, basis
        self.layer, harmful = run.headline_layer, run.harmful
        tokens = zip(run.rendered.token_ids, harmful, strict=True)
        self.tokens = [ids for ids, is_harmful in tokens if is_harmful]
        aligned, witness, tuned = (run.activations(name, self.layer) for name in (ALIGNED, "witness", member.id))
        self.aligned, self.tuned = aligned[harmful].astype(np.float64), tuned[harmful].astype(np.float64)
        self.back = reversions_by_prompt([aligned], [witness], harmful)[0]
        first, second = splits_of_seed(harmful, run.settings.splits, run.settings.seed, run.groups)
        self.halves = first[:, harmful], second[:, harmful]

    @cached_property
    def searched(self) -> np.ndarray:
        """The harmful prompts that the search reads, spread over their order."""
        count = len(self.tokens)
        return np.unique(np.linspace(0, count - 1, min(_SEARCH_PROMPTS, count)).astype(int))

    def draw(self, draw: int) -> ShamRow:
        """Scale one noise, read it, and hold it against the reversion and the checkpoint."""
        seed = int(fingerprint([self.run.settings.seed, "sham", draw])[:12], 16)
        few, every = self.searched, np.arange(len(self.tokens))
        own = self._read(seed, 1.0, few)
        noise_scale = self._scale(seed, self._length(own, few), few)
        with noised(self.model, self._scaled_norms(noise_scale.scale), seed):
            rows = self._collect(every)
            loss = next_token_loss(self.model, _harmless_tokens(self.run))
        length = self._length(rows[few], few)
        sham = Sham.of(rows - self.aligned, self.back, self.tuned - self.aligned, self.halves)
        return ShamRow(
            checkpoint=self.member.id,
            draw=draw,
            drift=sham.drift,
            witness=sham.witness,
            first=sham.moves[0].astype(np.float32).tolist(),
            second=sham.moves[1].astype(np.float32).tolist(),
            scale=noise_scale.scale,
            moved=self._length(rows, every),
            reached=is_as_far(length),
            farthest=max(length, noise_scale.farthest),
            loss=loss,
            loss_before=self.basis.loss_before,
            weight_drift=self._cosine_with_reversion((own - self.aligned[few]).mean(axis=0)),
            weight_moved=self._length(own, few),
        )

    def _scale(self, seed: int, own: float, few: np.ndarray) -> NoiseScale:
        """The scale at which the noise moves the activations as far, searched on few prompts."""

        def read(scale: float) -> float:
            try:
                return self._length(self._read(seed, scale, few), few)
            except ActivationError:  # so much noise that activations are no longer finite
                return math.inf

        return find_noise_scale(read, own)

    def _read(self, seed: int, scale: float, prompts: np.ndarray) -> np.ndarray:
        """The layer under noise on what it depends on alone: the same bytes, and a large model's noise takes long."""
        norms = norms_up_to(self.model, self._scaled_norms(scale), self.layer)
        with noised(self.model, norms, seed):
            return self._collect(prompts)

    def _scaled_norms(self, scale: float) -> DriftNorms:
        norms = self.basis.norms
        return DriftNorms({name: scale * norm for name, norm in norms.items()}, norms.ranks)

    def _collect(self, prompts: Sequence[int] | np.ndarray) -> np.ndarray:
        settings = self.run.settings
        rows = collect_layer(
            self.model,
            [self.tokens[prompt] for prompt in prompts],
            self.layer,
            position=settings.position,
            batch_tokens=settings.batch_tokens or self.run.manifest.model.get("batch_tokens"),
        )
        return rows.astype(np.float64)

    def _length(self, rows: np.ndarray, prompts: np.ndarray) -> float:
        """Length of the mean displacement, in units of the checkpoint's own on the same prompts."""
        own, whole = (
            np.linalg.norm((ahead - self.aligned[prompts]).mean(axis=0)) for ahead in (rows, self.tuned[prompts])
        )
        return float(own / whole)

    def _cosine_with_reversion(self, move: np.ndarray) -> float:
        length = float(np.linalg.norm(move))
        return 0.0 if length == 0 else float(move @ self.run.direction("reversion").at(self.layer)[0] / length)
