"""Stage `readings/`: activations of every checkpoint at other tokens than the run's own position.

`readings/responses/` is each prompt's mean over the tokens of the aligned model's answer; the answers are kept in
`readings/answers.json`, the same for every checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from probes.activations import extract
from probes.behaviour.answer_means import AnswerMeans
from probes.behaviour.generate import generate
from probes.errors import RunFolderError
from probes.lineage import Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.run import Run
from probes.stages.activations import about_activations
from probes.stages.jobs import StageJob
from probes.store import ALIGNED, ActivationFile, ActivationWriter, activations_stage, fingerprint

ANSWERS = "readings/answers"
RESPONSES = "responses"
SELECTED = "selected"
READINGS = (RESPONSES, SELECTED)  # as the contrasts are called that look at them
_VERSION = 2
_ANSWERS_VERSION = 3
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


def answer_jobs(run: Run) -> list[StageJob]:
    """What writes the aligned model's answers, and reads them; nothing where the run holds them."""
    made_from = fingerprint([_ANSWERS_VERSION, [run.input_of(activations_stage(ALIGNED))], {}, {}])
    if run.holds(ANSWERS, made_from):
        return []
    run.forget(_stage_of(RESPONSES, ALIGNED))  # of earlier answers
    return [StageJob("Answers of the aligned model", ANSWERS, made_from, _write_answers)]


def _write_answers(run: Run, model: ModelHost, report: Report) -> None:
    """Write `readings/answers.json`: greedy answers as token ids; and their reading, by the passes that make them.

    One token more is made than is kept, so that the last one that is kept is read. In less than float32, passes over
    one token round otherwise than those over a whole text, and answers are read as at any other checkpoint.
    """

    def show(done: int, count: int) -> None:
        report(Progress("asking the aligned model", done, count))

    model.put(model.aligned)
    prompts = run.rendered.token_ids
    means = AnswerMeans(model, len(prompts))
    longer = generate(model, prompts, max_new_tokens=_LONGEST + 1, done=show, listen=means.listen)
    answers = [ids[:_LONGEST] for ids in longer]
    run.write_json(ANSWERS, answers)
    reads_all = means.tokens.tolist() == list(map(len, answers))  # else the context has ended before
    if reads_all and model.precision <= np.finfo(np.float32).eps:
        with _writing(run, model, ALIGNED, over_answers(run)) as writer:
            for layer in range(-1, model.n_layers):
                writer.write(layer, range(len(prompts)), means.of_layer(layer))


def over_answers(run: Run) -> Wanted:
    """Each prompt with the aligned model's answer, to be averaged over the answer's tokens."""
    token_ids, answers = run.rendered.token_ids, run.read_json(ANSWERS)
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


def reading_jobs(run: Run, members: Sequence[Member], request: Wanted) -> list[StageJob]:
    """What reads those checkpoints whose file is not there."""
    sha256, jobs = request.sha256, []
    for member in members:
        if _reading_of(run, request.name, member.id) != sha256:
            name, stage_name = f"{request.name.capitalize()} read by {member.id}", _stage_of(request.name, member.id)
            jobs.append(StageJob(name, stage_name, _key(run, member.id, sha256), partial(_read, member, request)))
    return jobs


def _read(member: Member, request: Wanted, run: Run, model: ModelHost, report: Report) -> None:
    report(Progress("reading answers", 0, 1, member.id))
    model.put_merged(member.ref)
    budget = run.manifest.model.get("batch_tokens")
    with _writing(run, model, member.id, request) as writer:
        extract(model, request.token_ids, writer.write, spans=request.spans, batch_tokens=budget)


def _writing(run: Run, model: ModelHost, checkpoint: str, request: Wanted) -> AbstractContextManager[ActivationWriter]:
    """The file of a reading, to be written."""
    shape = (model.n_layers, len(request.token_ids), model.d_model)
    about = {"key": _key(run, checkpoint, request.sha256), "wanted": request.sha256, "reading": request.name}
    path, about = _path(run, request.name, checkpoint), {**about_activations(run, model), **about}
    return run.writing_activations(path, shape, run.settings.store_dtype, about)


@dataclass(frozen=True)
class Readings:
    """The readings of a run that fit its checkpoints and prompts as they are now.

    Attributes:
        digests: what was read, by the reading's name; only those that the aligned model has.
        places: the files by reading and checkpoint; a checkpoint whose file is missing, or says something else than
            the aligned model's, is not among them.
    """

    digests: dict[str, str]
    places: dict[tuple[str, str], Path]

    @classmethod
    def of(cls, run: Run, checkpoints: Sequence[str]) -> Readings:
        """Find them."""
        digests = {name: sha256 for name in READINGS if (sha256 := _reading_of(run, name, ALIGNED))}
        places = {
            (name, checkpoint): _path(run, name, checkpoint)
            for name, sha256 in digests.items()
            for checkpoint in checkpoints
            if _reading_of(run, name, checkpoint) == sha256
        }
        return cls(digests, places)

    def layer(self, checkpoint: str, layer: int) -> dict[str, np.ndarray | None]:
        """Every reading of a checkpoint at a layer [prompt, d_model]; None where others have it and it has not."""
        return {
            name: ActivationFile(path).layer(layer) if (path := self.places.get((name, checkpoint))) else None
            for name in self.digests
        }

    def document(self) -> list[Any]:
        """What was read where, for the fingerprint of what is made from it."""
        return [self.digests, sorted(self.places)]


def forget_reading(run: Run, name: str) -> None:
    """Delete a reading that is no longer wanted."""
    for stage_name in [stage_key for stage_key in run.manifest.stages if stage_key.startswith(f"readings/{name}/")]:
        run.forget(stage_name)
    shutil.rmtree(run.path / "readings" / name, ignore_errors=True)


def _stage_of(name: str, checkpoint: str) -> str:
    return f"readings/{name}/{checkpoint}"


def _path(run: Run, name: str, checkpoint: str) -> Path:
    return run.path / "readings" / name / f"{checkpoint}.safetensors"


def _key(run: Run, checkpoint: str, digest: str) -> str:
    return fingerprint([_VERSION, run.manifest.checkpoints[checkpoint]["key"], digest])


def _reading_of(run: Run, name: str, checkpoint: str) -> str | None:
    """What a reading's file was read for; None where there is none, it has changed, or is of other weights."""
    path = _path(run, name, checkpoint)
    if not path.is_file():
        return None
    try:
        run.check(path)
        about = ActivationFile(path).about
    except RunFolderError:
        return None
    digest = about.get("wanted", "")
    return digest if about.get("key") == _key(run, checkpoint, digest) else None
