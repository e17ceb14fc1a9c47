"""Stage `readings/`: activations of every checkpoint at other tokens than the run's own position.

`readings/responses/` is each prompt's mean over the tokens of the aligned model's answer; the answers are kept in
`readings/answers.json`, the same for every checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.activations import extract
from probes.behaviour.generate import generate
from probes.errors import RunFolderError
from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.store import ALIGNED, ActivationFile, ActivationWriter, RunFolder, fingerprint

RESPONSES = "responses"
SELECTED = "selected"
_VERSION = 2
_LONGEST = 24


@dataclass(frozen=True)
class Wanted:
    """What is read of each prompt.

    Attributes:
        name: the folder.
        token_ids: the prompts, with whatever stands behind them.
        spans: (first, past the last) of the tokens that are averaged.
    """

    name: str
    token_ids: Sequence[Sequence[int]]
    spans: Sequence[tuple[int, int]]

    @property
    def sha256(self) -> str:
        """Hash of tokens and spans."""
        return fingerprint([[list(ids) for ids in self.token_ids], [list(span) for span in self.spans]])


def answered(run: RunFolder, host: ModelHost, token_ids: Sequence[Sequence[int]], report: Report) -> Wanted:
    """The aligned model's answers to the prompts, generated once; `host` holds the aligned model afterwards."""
    made_from = fingerprint([_VERSION, run.manifest.checkpoints["aligned"]["key"], _LONGEST])
    if not run.holds("readings/answers", made_from):
        with run.stage("readings/answers", made_from):
            host.put(host.aligned)
            told = lambda done, count: report(Progress("asking the aligned model", done, count))  # noqa: E731
            run.write_json("readings/answers", generate(host, token_ids, max_new_tokens=_LONGEST, done=told))
    answers = run.read_json("readings/answers")
    texts = [[*ids, *answer] for ids, answer in zip(token_ids, answers, strict=True)]
    # Where the model says nothing at all, the place where it would begin is read.
    spans = [
        (len(ids), len(text)) if len(text) > len(ids) else (len(ids) - 1, len(ids))
        for ids, text in zip(token_ids, texts, strict=True)
    ]
    return Wanted(RESPONSES, texts, spans)


def at_position(name: str, token_ids: Sequence[Sequence[int]], position: int) -> Wanted:
    """One token of each prompt, counted from its end."""
    return Wanted(name, token_ids, [(len(ids) + position, len(ids) + position + 1) for ids in token_ids])


def write_reading(run: RunFolder, member: Member, host: ModelHost, wanted: Wanted) -> None:
    """Read one checkpoint, unless the file is there; leaves the checkpoint in `host` where it was read."""
    if _kept(run, wanted.name, member.id) == wanted.sha256:
        return
    host.put(member.ref)
    writer = ActivationWriter(
        _path(run, wanted.name, member.id),
        n_layers=host.n_layers,
        n_prompts=len(wanted.token_ids),
        d_model=host.d_model,
        dtype=run.manifest.config["store_dtype"],
        about={
            "key": _key(run, member.id, wanted.sha256),
            "wanted": wanted.sha256,
            "hook": "blocks.{l}.hook_resid_post",
            "site": "resid_post",
            "index_base": "0",
            "n_layers": str(host.n_layers),
            "final_norm_included": "false",
            "reading": wanted.name,
        },
    )
    try:
        budget = run.manifest.model.get("batch_tokens")
        extract(host, wanted.token_ids, writer.write, spans=wanted.spans, batch_tokens=budget)
    except BaseException:
        writer.abort()
        raise
    writer.close()


@dataclass(frozen=True)
class Kept:
    """The readings of a run that fit its checkpoints and prompts as they are now.

    Attributes:
        wanted: what was read, by the reading's name; only those that the aligned model has.
        places: the files by reading and checkpoint; a checkpoint whose file is missing, or says something else than
            the aligned model's, is not among them.
    """

    wanted: dict[str, str]
    places: dict[tuple[str, str], Path]

    @classmethod
    def of(cls, run: RunFolder, checkpoints: Sequence[str]) -> Kept:
        """Find them."""
        wanted = {name: found for name in (RESPONSES, SELECTED) if (found := _kept(run, name, ALIGNED))}
        places = {
            (name, checkpoint): _path(run, name, checkpoint)
            for name, sha256 in wanted.items()
            for checkpoint in checkpoints
            if _kept(run, name, checkpoint) == sha256
        }
        return cls(wanted, places)

    def layer(self, checkpoint: str, layer: int) -> dict[str, np.ndarray | None]:
        """Every reading of a checkpoint at a layer [prompt, d_model]; None where others have it and it has not."""
        return {
            name: ActivationFile(path).layer(layer) if (path := self.places.get((name, checkpoint))) else None
            for name in self.wanted
        }

    @property
    def made_from(self) -> list[Any]:
        """For fingerprints."""
        return [self.wanted, sorted(self.places)]


def forget_reading(run: RunFolder, name: str) -> None:
    """Delete a reading that is no longer wanted."""
    shutil.rmtree(run.path / "readings" / name, ignore_errors=True)


def _path(run: RunFolder, name: str, checkpoint: str) -> Path:
    return run.path / "readings" / name / f"{checkpoint}.safetensors"


def _key(run: RunFolder, checkpoint: str, wanted: str) -> str:
    return fingerprint([_VERSION, run.manifest.checkpoints[checkpoint]["key"], wanted])


def _kept(run: RunFolder, name: str, checkpoint: str) -> str | None:
    """What a reading's file was read for; None where there is none, or it is of other weights or prompts."""
    path = _path(run, name, checkpoint)
    if not path.is_file():
        return None
    try:
        about = ActivationFile(path).about
    except RunFolderError:
        return None
    wanted = about.get("wanted", "")
    return wanted if about.get("key") == _key(run, checkpoint, wanted) else None
