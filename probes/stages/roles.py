"""The first stages of every run, up to its directions: what it is made from, prompts, activations, noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.errors import LineageError
from probes.lineage import Lineage
from probes.models import ModelHost
from probes.progress import Report
from probes.prompts import PromptSet, Rendered, render
from probes.stages.activations import write_activations, write_noise, write_prompts
from probes.stages.directions import write_directions
from probes.stages.settings import Settings
from probes.store import RunFolder


def open_host(lineage: Lineage, settings: Settings) -> ModelHost:
    """The aligned model of a lineage, as the settings say."""
    return ModelHost(
        lineage.aligned,
        device=settings.device,
        dtype=settings.dtype,
        allow_pickle=settings.allow_pickle,
        allow_unrelated=settings.allow_unrelated,
    )


def open_aligned(run: RunFolder, lineage: Lineage, device: str | None = None) -> ModelHost:
    """The run's aligned model, opened as the run did."""
    config = run.manifest.config
    return ModelHost(
        lineage.aligned,
        device=device or config["device"],
        dtype=config["dtype"],
        allow_pickle=config["allow_pickle"],
        allow_unrelated=config["allow_unrelated"],
    )


def write_roles(
    run: RunFolder,
    lineage: Lineage,
    host: ModelHost,
    prompts: PromptSet,
    settings: Settings,
    given: Mapping[str, Any],
    report: Report,
) -> tuple[Rendered, dict[str, str]]:
    """Describe the run, read every member's activations, and write the directions.

    Returns:
        The rendered prompts, and each member's key.

    Raises:
        LineageError: the witness equals the aligned model.
        GravityError: a checkpoint or a prompt is not what it must be.
    """
    rendered = render(prompts, host.tokenizer, host.context_length)
    _describe(run, lineage, host, settings, given)
    write_prompts(run, prompts, rendered, settings)
    keys = write_activations(run, lineage, host, rendered, settings, report)
    if keys["witness"] == keys["aligned"]:
        raise LineageError(
            "The witness equals the aligned model, so there is no way back",
            got=f"{lineage.witness} and {lineage.aligned}, with the same weights",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    write_noise(run, lineage, host, rendered, prompts.harmful, settings, keys["aligned"])
    write_directions(run, lineage, prompts.harmful, keys)
    return rendered, keys


def _describe(run: RunFolder, lineage: Lineage, host: ModelHost, settings: Settings, given: Mapping[str, Any]) -> None:
    """Put into the manifest what this run is made from, before any work."""
    manifest = run.manifest
    manifest.status = "running"
    manifest.config_given = dict(given)
    manifest.config = {**settings.model_dump(), "headline_layer": settings.headline(host.n_layers)}
    manifest.lineage = lineage.portable(run.path).model_dump()
    manifest.model = {**manifest.model, **host.about}
    run.save()
