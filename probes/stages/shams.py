"""Stage `shams.parquet`: how far back checkpoints point that are only noise, draw by draw.

A sham drift is the aligned model with noise of the checkpoint's own drift norm on every tensor; a sham witness is the
aligned model with noise of the witness's. Each is loaded into the model that is open, read through the ordinary
extraction on the harmful prompts, and taken off again; nothing but the resulting cosines is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.activations import collect
from probes.drift import Grams, crossfit_grams
from probes.lineage import Member
from probes.models import ModelHost
from probes.models.weight_space import drift_norms, noised
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages import stage
from probes.store import fingerprint

if TYPE_CHECKING:
    import pandas as pd

DRIFT, WITNESS = "sham_drift", "sham_witness"
_COLUMNS = ["null", "draw", "checkpoint", "layer", "cosine"]
_FLUSH_SECONDS = 2.0


def write_shams(run: Run, model: ModelHost, report: Report) -> pd.DataFrame:
    """Complete `shams.parquet` to the number of draws asked for; draws that are there are kept.

    Returns:
        Columns null, draw, checkpoint, layer, cosine: the cross-fitted alignment of that draw.
    """
    _begin_shams(run)
    settings, table = run.settings, run.read_table("shams")
    there = set(table[["null", "draw", "checkpoint"]].itertuples(index=False, name=None))
    bench = _Bench.of(run, model)
    rows = table.to_dict("records")
    saved = time.monotonic()
    wanted = [(source, draw) for source in bench.sources() for draw in range(settings.shams)]
    norms: dict[str, Mapping[str, float]] = {}
    for done, ((null, member), draw) in enumerate(wanted):
        report(Progress("drawing shams", done, len(wanted), f"{member.id} {draw + 1}/{settings.shams}"))
        if (null, draw, _owner(null, member, bench)) not in there:
            if member.id not in norms:
                norms = {member.id: drift_norms(model, member.ref)}
            rows += [dict(zip(_COLUMNS, row, strict=True)) for row in bench.draw(null, member, draw, norms[member.id])]
            if time.monotonic() - saved > _FLUSH_SECONDS:
                run.write_table("shams", _in_order(rows))
                saved = time.monotonic()
    ordered = _in_order(rows)
    run.write_table("shams", ordered)
    return ordered[ordered["draw"] < settings.shams]


@stage("shams", version=1, needs=("activations",), settings=("seed", "splits"))
def _begin_shams(run: Run) -> None:
    """An empty table where there is none of these checkpoints: draws are added to it one by one."""
    import pandas as pd

    run.write_table("shams", pd.DataFrame([], columns=_COLUMNS))


def _owner(null: str, member: Member, bench: _Bench) -> str:
    """The checkpoint whose row tells that a draw is there: a sham witness has a row for every checkpoint."""
    return member.id if null == DRIFT else bench.members[0].id


def _in_order(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The same rows in the same order, whatever order they were drawn in."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.sort_values(_COLUMNS[:4], ignore_index=True).astype(
        {"draw": "int64", "layer": "int64", "cosine": "float64"}
    )


@dataclass(frozen=True)
class _Bench:
    """What every draw needs: the open model, the harmful prompts, and the true activations on them."""

    run: Run
    model: ModelHost
    members: tuple[Member, ...]
    tokens: tuple[tuple[int, ...], ...]
    aligned: np.ndarray
    witness: np.ndarray

    @classmethod
    def of(cls, run: Run, model: ModelHost) -> _Bench:
        return cls(
            run=run,
            model=model,
            members=run.tuned,
            tokens=tuple(ids for ids, keep in zip(run.rendered.token_ids, run.harmful, strict=True) if keep),
            aligned=_layers(run, "aligned"),
            witness=_layers(run, "witness"),
        )

    def sources(self) -> Iterator[tuple[str, Member]]:
        """The witness first, then every fine-tuned checkpoint."""
        if self.members:
            yield WITNESS, Member("witness", "witness", 0, 0, self.run.lineage.witness)
        for member in self.members:
            yield DRIFT, member

    def draw(
        self, null: str, member: Member, draw: int, norms: Mapping[str, float]
    ) -> Iterator[tuple[str, int, str, int, float]]:
        """One sham and its cosines: of itself (drift), or of every checkpoint towards it (witness)."""
        with noised(self.model, norms, seed=self._seed(null, member, draw)):
            sham, _ = collect(
                self.model,
                self.tokens,
                position=self.run.settings.position,
                batch_tokens=self.run.settings.batch_tokens,
            )
        if null == DRIFT:
            yield from self._cosines(null, draw, member.id, self.witness, sham)
        else:
            for each in self.members:
                yield from self._cosines(null, draw, each.id, sham, _layers(self.run, each.id))

    def _cosines(
        self, null: str, draw: int, name: str, witness: np.ndarray, tuned: np.ndarray
    ) -> Iterator[tuple[str, int, str, int, float]]:
        every = np.ones(len(self.tokens), dtype=bool)
        for layer, (start, back, end) in enumerate(zip(self.aligned, witness, tuned, strict=True)):
            grams, settings = Grams.of(start, back, end, every), self.run.settings
            cosine = crossfit_grams(grams, self.run.harmful, splits=settings.splits, seed=settings.seed)
            yield null, draw, name, layer, cosine

    def _seed(self, null: str, member: Member, draw: int) -> int:
        """Its own for every draw, and the same in every run."""
        return int(fingerprint([self.run.settings.seed, null, member.id, draw])[:12], 16)


def _layers(run: Run, checkpoint: str) -> np.ndarray:
    """Activations of the harmful prompts [layer, prompt, d_model]."""
    file = run.activation_file(checkpoint)
    return np.stack([file.layer(layer)[run.harmful] for layer in range(file.n_layers)])
