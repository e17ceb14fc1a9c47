"""Stage `activations/`: the residual stream of every checkpoint on the same token ids."""

from __future__ import annotations

import numpy as np

from probes.activations import collect, extract
from probes.errors import ActivationError
from probes.lineage import CheckpointRef, Lineage, Member
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.prompts import PromptSet, Rendered
from probes.stages.settings import Settings
from probes.store import ActivationWriter, RunFolder, fingerprint

_EXTRACTION = 1  # raise when a change alters the numbers, so that older files are not taken over


def write_prompts(run: RunFolder, prompts: PromptSet, rendered: Rendered, settings: Settings) -> str:
    """Write `prompts.parquet` and return the fingerprint of prompts and token ids."""
    made_from = fingerprint([prompts.sha256, rendered.sha256, settings.seed])
    if not run.holds("prompts", made_from):
        with run.stage("prompts", made_from):
            frame = prompts.to_frame()
            frame["fold"] = prompts.folds(settings.seed)
            frame["tokens"] = [len(ids) for ids in rendered.token_ids]
            frame["tokens_sha256"] = [fingerprint(list(ids)) for ids in rendered.token_ids]
            run.manifest.prompts = {
                "sha256": prompts.sha256,
                "rendered_sha256": rendered.sha256,
                "template": "chat template of the aligned model" if rendered.template else "none: raw text",
                "harmful": int(prompts.harmful.sum()),
                "harmless": int((~prompts.harmful).sum()),
            }
            run.write_table("prompts", frame)
    return made_from


def write_activations(
    run: RunFolder, lineage: Lineage, host: ModelHost, rendered: Rendered, settings: Settings, report: Report
) -> dict[str, str]:
    """Measure every member that is not measured yet; returns each one's key.

    The key is the fingerprint of weights, token ids, position and precision. A file with the same key, of this run
    or of a neighbour under the same root, is taken over, not measured again.
    """
    members = list(lineage.members())
    places = {member.id: str(member.ref) for member in lineage.portable(run.path).members()}
    keys: dict[str, str] = {}
    for done, member in enumerate(members):
        report(Progress("reading activations", done, len(members), member.id))
        weights = host.weights_sha256(member.ref)
        key = fingerprint(
            [
                _EXTRACTION,
                weights,
                rendered.sha256,
                settings.position,
                settings.store_dtype,
                str(host.about["dtype"]),
            ]
        )
        keys[member.id] = key
        if not run.adopt_activations(member.id, key):
            _measure(run, member, host, rendered, settings, key)
        if run.manifest.checkpoints.get(member.id, {}).get("weights_sha256", weights) != weights:
            run.manifest.stages.pop("behaviour", None)  # its tables are of the weights that were here before
        run.manifest.checkpoints[member.id] = {
            "place": places[member.id],
            "weights_sha256": weights,
            "key": key,
        }
        run.save()
    report(Progress("reading activations", len(members), len(members)))
    return keys


def write_noise(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    rendered: Rendered,
    harmful: np.ndarray,
    settings: Settings,
    key: str,
) -> None:
    """Write `noise.parquet`: how far the mean moves per layer when the aligned model is read in another batch order."""
    made_from = fingerprint([_EXTRACTION, key])
    if run.holds("noise", made_from):
        return
    with run.stage("noise", made_from):
        import pandas as pd

        first = run.activations("aligned")
        again, embed = read(host, lineage.aligned, rendered, settings, reverse=True)
        rows = [
            {
                "layer": layer,
                "noise": _mean_distance(first.layer(layer), embed if layer == -1 else again[layer], harmful),
            }
            for layer in range(-1, first.n_layers)
        ]
        run.write_table("noise", pd.DataFrame(rows))


def read(
    host: ModelHost, ref: CheckpointRef, rendered: Rendered, settings: Settings, *, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Activations of `ref` in memory: ([layer, prompt, d_model], embedding [prompt, d_model])."""
    host.put(ref)
    return collect(
        host,
        rendered.token_ids,
        position=settings.position,
        batch_tokens=settings.batch_tokens,
        reverse=reverse,
    )


def _measure(run: RunFolder, member: Member, host: ModelHost, rendered: Rendered, settings: Settings, key: str) -> None:
    host.put(member.ref)
    writer = ActivationWriter(
        run.activations_path(member.id),
        n_layers=host.n_layers,
        n_prompts=len(rendered.token_ids),
        d_model=host.d_model,
        dtype=settings.store_dtype,
        about=_about(host, settings, rendered, key),
    )
    try:
        # The budget that was found first is kept for the run: other batches round differently.
        found = settings.batch_tokens or run.manifest.model.get("batch_tokens")
        used = extract(host, rendered.token_ids, writer.write, position=settings.position, batch_tokens=found)
        run.manifest.model["batch_tokens"] = used
    except ActivationError as error:
        writer.abort()
        raise ActivationError(
            f"Checkpoint {member.id} ({member.ref}): {error.what}", next_step=error.next_step
        ) from error
    except BaseException:
        writer.abort()
        raise
    writer.close()


def _about(host: ModelHost, settings: Settings, rendered: Rendered, key: str) -> dict[str, str]:
    return {
        "key": key,
        "hook": "blocks.{l}.hook_resid_post",
        "site": "resid_post",
        "index_base": "0",
        "n_layers": str(host.n_layers),
        "final_norm_included": "false",
        "position": str(settings.position),
        "tokens_sha256": rendered.sha256,
        "model_dtype": str(host.about["dtype"]),
    }


def _mean_distance(first: np.ndarray, again: np.ndarray, harmful: np.ndarray) -> float:
    moved = again[harmful].mean(axis=0, dtype=np.float64) - first[harmful].mean(axis=0, dtype=np.float64)
    return float(np.linalg.norm(moved))
