"""Stages `prompts.parquet`, `activations/` and `noise.parquet`: every checkpoint read on the same token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from probes.activations import automatic_batch_tokens, extract
from probes.lineage import CheckpointRef, Member
from probes.models import ModelHost
from probes.models.prefix import prefix_length
from probes.progress import Progress, Report
from probes.prompts import PromptSet, Rendered
from probes.run import Run
from probes.stages import stage
from probes.stages.jobs import StageJob, complete_stages
from probes.store import ALIGNED, activations_stage, fingerprint

_EXTRACTION = 4  # raise when a change alters the numbers, so that older files are not taken over


@stage("prompts", version=2, settings=("seed",))
def write_prompts(run: Run, prompts: PromptSet, rendered: Rendered) -> None:
    """Write `prompts.parquet`: texts, labels, folds, and the token ids that every checkpoint gets."""
    frame = prompts.to_frame()
    frame["fold"] = prompts.folds(run.settings.seed)
    frame["tokens"] = [len(ids) for ids in rendered.token_ids]
    frame["token_ids"] = [list(ids) for ids in rendered.token_ids]
    frame["tokens_sha256"] = [fingerprint(list(ids)) for ids in rendered.token_ids]
    run.manifest.prompts = {
        "sha256": prompts.sha256,
        "rendered_sha256": rendered.sha256,
        "template": "chat template of the aligned model" if rendered.template else "none: raw text",
        "harmful": int(prompts.harmful.sum()),
        "harmless": int((~prompts.harmful).sum()),
        "left_out": [list(pair) for pair in rendered.left_out],  # id and tokens of those the context does not hold
        "notices": list(rendered.notices),
    }
    run.write_table("prompts", frame)
    run.refresh()


def write_activations(run: Run, model: ModelHost, members: Sequence[Member], report: Report) -> None:
    """Measure the members of the lineage that are not measured yet, each a stage of its own.

    What it is made from is its key: the fingerprint of weights, token ids, position and precision. A file with the
    same key of a neighbour under the same root is taken over, not measured again.
    """
    places = {member.id: str(member.ref) for member in run.lineage.portable(run.path).members()}
    about, jobs = {}, []
    for member in members:
        weights = model.weights_sha256(member.ref)
        key = _key(run, model, weights)
        about[member.id] = {"place": places[member.id], "weights_sha256": weights, "key": key}
        if not run.holds(activations_stage(member.id), key):
            name = f"Checkpoint {member.id} ({member.ref})"
            jobs.append(StageJob(name, activations_stage(member.id), key, partial(_measure, member, key)))
    run.begin_stages(job.stage for job in jobs)
    jobs = [job for job in jobs if not _adopt(run, job)]
    if jobs:  # one budget for all of them, wherever they are done: other batches round differently
        run.manifest.model.setdefault("batch_tokens", automatic_batch_tokens(model))
    waiting = {job.stage for job in jobs}
    for member in members:
        if activations_stage(member.id) not in waiting:  # is there, or was adopted: is listed before any is read
            known = about.pop(member.id)
            _keep_checkpoint(run, member, known, _known_notices(run, model, member, known))
    numbers = {}
    for job, (member, notices, deciding) in complete_stages(run, model, jobs, report):
        _keep_checkpoint(run, member, about.pop(member.id), notices)
        numbers[job.name] = deciding
    for job in jobs:
        run.manifest.model |= numbers[job.name]
    for member in members:
        run.manifest.checkpoints[member.id] = run.manifest.checkpoints.pop(member.id)
    run.save()


def _adopt(run: Run, job: StageJob) -> bool:
    """Take over what a neighbour has measured; whether there was such a file."""
    with run.stage_record(job.made_from) as record:
        adopted = run.adopt_activations(job.stage.removeprefix(activations_stage("")), job.made_from)
    if adopted:
        run.keep_stage(job.stage, record, one_of_many=True)
    return adopted


def _known_notices(run: Run, model: ModelHost, member: Member, about: Mapping[str, str]) -> list[str]:
    """What was said of a checkpoint that was measured before; where it lay elsewhere then, what there is to say now."""
    known = run.manifest.checkpoints.get(member.id, {})
    if (known.get("key"), known.get("place")) == (about["key"], about["place"]):
        return list(known.get("notices", []))
    return _put_and_hear(model, member.ref)


def _put_and_hear(model: ModelHost, ref: CheckpointRef) -> list[str]:
    """Put a checkpoint into the model; returns what there is to say of it, though it was said before."""
    before, model.notices = model.notices, []
    try:
        model.put(ref)
        return list(model.notices)
    finally:
        model.notices = list(dict.fromkeys([*before, *model.notices]))


def _keep_checkpoint(run: Run, member: Member, about: Mapping[str, str], notices: Sequence[str]) -> None:
    known = run.manifest.checkpoints.get(member.id, about)
    if known.get("weights_sha256", about["weights_sha256"]) != about["weights_sha256"]:
        run.forget("behaviour")  # its tables are of the weights that were here before
    run.manifest.checkpoints[member.id] = {**about} | ({"notices": list(notices)} if notices else {})
    run.save_in_time()


@stage("noise", version=_EXTRACTION, needs=(activations_stage("aligned"),))
def write_noise(run: Run, rows: list[dict[str, Any]]) -> None:
    """Write `noise.parquet`: how far the mean moves per layer when the aligned model is read in another batch order.

    `rows` are those of `read_noise`.
    """
    import pandas as pd

    run.write_table("noise", pd.DataFrame(rows))


def read_noise(run: Run, model: ModelHost, report: Report) -> list[dict[str, Any]]:
    """A row a layer, for `write_noise`: the aligned model read once more, the other way round."""
    report(Progress("measuring noise", 0, 1, ALIGNED))
    first, harmful = run.activation_file(ALIGNED), run.harmful
    sums = np.zeros((first.n_layers + 1, model.d_model))  # the embedding, layer −1, is the last

    def add(layer: int, prompts: Sequence[int], rows: np.ndarray) -> None:
        sums[layer] += rows[harmful[list(prompts)]].sum(axis=0, dtype=np.float64)

    model.put(run.lineage.aligned)
    settings = run.settings
    extract(
        model,
        run.rendered.token_ids,
        add,
        position=settings.position,
        batch_tokens=settings.batch_tokens,
        reverse=True,
    )
    return [
        {"layer": layer, "noise": _distance(first.layer(layer)[harmful], sums[layer] / harmful.sum())}
        for layer in range(-1, first.n_layers)
    ]


def about_activations(run: Run, model: ModelHost) -> dict[str, str]:
    """What an activation file says of itself."""
    return {
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": str(model.n_layers),
        "final_norm_included": "false",
        "position": str(run.settings.position),
        "tokens_sha256": run.rendered.sha256,
        "model_dtype": str(model.about["dtype"]),
    }


def _key(run: Run, model: ModelHost, weights: str) -> str:
    settings = run.settings
    return fingerprint(
        [
            _EXTRACTION,
            weights,
            run.rendered.sha256,
            settings.position,
            settings.store_dtype,
            str(model.about["dtype"]),
            *filter(None, [run.settings.quantize]),
        ]
    )


def _measure(
    member: Member, key: str, run: Run, model: ModelHost, report: Report
) -> tuple[Member, list[str], dict[str, Any]]:
    """Read one checkpoint; returns it, what there is to say of it, and the numbers that decide the last bits."""
    report(Progress("reading activations", 0, 1, member.id))
    notices = _put_and_hear(model, member.ref)
    token_ids, settings = run.rendered.token_ids, run.settings
    shape = (model.n_layers, len(token_ids), model.d_model)
    about = {**about_activations(run, model), "key": key}
    budget = settings.batch_tokens or run.manifest.model["batch_tokens"]
    with run.writing_activations(run.activations_path(member.id), shape, settings.store_dtype, about) as writer:
        used = extract(model, token_ids, writer.write, position=settings.position, batch_tokens=budget)
    shared = prefix_length(model, token_ids, before=_first_position(run))
    return member, notices, {"batch_tokens": used, "threads": torch.get_num_threads(), "shared_prefix": shared}


def _first_position(run: Run) -> int:
    """The earliest position, from a prompt's start, that is read of any prompt."""
    return min(len(ids) + run.settings.position for ids in run.rendered.token_ids)


def _distance(rows: np.ndarray, mean: np.ndarray) -> float:
    return float(np.linalg.norm(mean - rows.mean(axis=0, dtype=np.float64)))
