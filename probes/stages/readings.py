"""Stage `readings/`: activations of every checkpoint at other tokens than the run's own position.

`readings/responses/` is each prompt's mean over the tokens of the aligned model's answer; the answers are kept in
`readings/answers.json`, the same for every checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.activations import extract
from probes.behaviour.generate import generate
from probes.errors import RunFolderError
from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.store import ActivationFile, ActivationWriter, RunFolder, fingerprint

RESPONSES = "responses"
_VERSION = 1
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
    key = fingerprint([_VERSION, run.manifest.checkpoints[member.id]["key"], wanted.sha256])
    path = reading_path(run, wanted.name, member.id)
    if _is_there(path, key):
        return
    host.put(member.ref)
    writer = ActivationWriter(
        path, n_layers=host.n_layers, n_prompts=len(wanted.token_ids), d_model=host.d_model,
        dtype=run.manifest.config["store_dtype"],
        about={"key": key, "hook": "blocks.{l}.hook_resid_post", "site": "resid_post", "index_base": "0",
               "n_layers": str(host.n_layers), "final_norm_included": "false", "reading": wanted.name},
    )  # fmt: skip
    try:
        budget = run.manifest.model.get("batch_tokens")
        extract(host, wanted.token_ids, writer.write, spans=wanted.spans, batch_tokens=budget)
    except BaseException:
        writer.abort()
        raise
    writer.close()


def reading_path(run: RunFolder, name: str, checkpoint: str) -> Path:
    """Where a reading lies, whether or not it is there."""
    return run.path / "readings" / name / f"{checkpoint}.safetensors"


def _is_there(path: Path, key: str) -> bool:
    if not path.is_file():
        return False
    try:
        return ActivationFile(path).about.get("key") == key
    except RunFolderError:
        return False
