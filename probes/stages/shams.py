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
from probes.lineage import CheckpointRef, Lineage, Member
from probes.models import ModelHost
from probes.models.weight_space import drift_norms, noised
from probes.progress import Progress, Report
from probes.prompts import Rendered
from probes.stages.settings import Settings
from probes.store import RunFolder, fingerprint

if TYPE_CHECKING:
    import pandas as pd

DRIFT, WITNESS = "sham_drift", "sham_witness"
_VERSION = 1
_COLUMNS = ["null", "draw", "checkpoint", "layer", "cosine"]
_FLUSH_SECONDS = 2.0


def write_shams(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    harmful: np.ndarray,
    rendered: Rendered,
    keys: dict[str, str],
    settings: Settings,
    report: Report,
) -> pd.DataFrame:
    """Complete `shams.parquet` to the number of draws asked for; draws that are there are kept.

    Returns:
        Columns null, draw, checkpoint, layer, cosine: the cross-fitted alignment of that draw.
    """
    import pandas as pd

    made_from = fingerprint([_VERSION, sorted(keys.items()), settings.seed, settings.splits])
    if not run.holds("shams", made_from):
        with run.stage("shams", made_from):
            run.write_table("shams", pd.DataFrame([], columns=_COLUMNS))
    table = run.read_table("shams")
    there = set(table[["null", "draw", "checkpoint"]].itertuples(index=False, name=None))
    bench = _Bench.of(run, lineage, host, harmful, rendered, settings)
    rows = table.to_dict("records")
    saved = time.monotonic()
    wanted = [(source, draw) for source in bench.sources() for draw in range(settings.shams)]
    norms: dict[str, Mapping[str, float]] = {}
    for done, ((null, member), draw) in enumerate(wanted):
        report(Progress("drawing shams", done, len(wanted), f"{member.id} {draw + 1}/{settings.shams}"))
        if (null, draw, _owner(null, member, bench)) not in there:
            if member.id not in norms:
                norms = {member.id: drift_norms(host, member.ref)}
            rows += [dict(zip(_COLUMNS, row, strict=True)) for row in bench.draw(null, member, draw, norms[member.id])]
            if time.monotonic() - saved > _FLUSH_SECONDS:
                run.write_table("shams", _ordered(rows))
                saved = time.monotonic()
    ordered = _ordered(rows)
    run.write_table("shams", ordered)
    return ordered[ordered["draw"] < settings.shams]


def _owner(null: str, member: Member, bench: _Bench) -> str:
    """The checkpoint whose row tells that a draw is there: a sham witness has a row for every checkpoint."""
    return member.id if null == DRIFT else bench.members[0].id


def _ordered(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The same rows in the same order, whatever order they were drawn in."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.sort_values(_COLUMNS[:4], ignore_index=True).astype(
        {"draw": "int64", "layer": "int64", "cosine": "float64"}
    )


@dataclass(frozen=True)
class _Bench:
    """What every draw needs: the open model, the harmful prompts, and the true activations on them."""

    run: RunFolder
    host: ModelHost
    witness_ref: CheckpointRef
    members: tuple[Member, ...]
    tokens: tuple[tuple[int, ...], ...]
    harmful: np.ndarray
    aligned: np.ndarray
    witness: np.ndarray
    settings: Settings

    @classmethod
    def of(
        cls,
        run: RunFolder,
        lineage: Lineage,
        host: ModelHost,
        harmful: np.ndarray,
        rendered: Rendered,
        settings: Settings,
    ) -> _Bench:
        return cls(
            run=run,
            host=host,
            witness_ref=lineage.witness,
            members=tuple(
                member for member in lineage.members() if member.id not in ("aligned", "witness", "pretrained")
            ),
            tokens=tuple(ids for ids, keep in zip(rendered.token_ids, harmful, strict=True) if keep),
            harmful=harmful,
            aligned=_layers(run, "aligned", harmful),
            witness=_layers(run, "witness", harmful),
            settings=settings,
        )

    def sources(self) -> Iterator[tuple[str, Member]]:
        """The witness first, then every fine-tuned checkpoint."""
        if self.members:
            yield WITNESS, Member("witness", "witness", 0, 0, self.witness_ref)
        for member in self.members:
            yield DRIFT, member

    def draw(
        self, null: str, member: Member, draw: int, norms: Mapping[str, float]
    ) -> Iterator[tuple[str, int, str, int, float]]:
        """One sham and its cosines: of itself (drift), or of every checkpoint towards it (witness)."""
        with noised(self.host, norms, seed=self._seed(null, member, draw)):
            sham, _ = collect(
                self.host,
                self.tokens,
                position=self.settings.position,
                batch_tokens=self.settings.batch_tokens,
            )
        if null == DRIFT:
            yield from self._cosines(null, draw, member.id, self.witness, sham)
        else:
            for each in self.members:
                yield from self._cosines(null, draw, each.id, sham, _layers(self.run, each.id, self.harmful))

    def _cosines(
        self, null: str, draw: int, name: str, witness: np.ndarray, tuned: np.ndarray
    ) -> Iterator[tuple[str, int, str, int, float]]:
        every = np.ones(len(self.tokens), dtype=bool)
        for layer, (start, back, end) in enumerate(zip(self.aligned, witness, tuned, strict=True)):
            grams = Grams.of(start, back, end, every)
            cosine = crossfit_grams(grams, self.harmful, splits=self.settings.splits, seed=self.settings.seed)
            yield null, draw, name, layer, cosine

    def _seed(self, null: str, member: Member, draw: int) -> int:
        """Its own for every draw, and the same in every run."""
        return int(fingerprint([self.settings.seed, null, member.id, draw])[:12], 16)


def _layers(run: RunFolder, checkpoint: str, harmful: np.ndarray) -> np.ndarray:
    """Activations of the harmful prompts [layer, prompt, d_model]."""
    file = run.activations(checkpoint)
    return np.stack([file.layer(layer)[harmful] for layer in range(file.n_layers)])
