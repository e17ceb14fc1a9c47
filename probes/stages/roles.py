"""The first stages of every run, up to its directions: prompts, activations, the headline's layer, noise."""

from __future__ import annotations

from probes.behaviour.swapped import opening_scores, swap_by_scores
from probes.errors import LineageError
from probes.models import ModelHost
from probes.models.learned import learned_nothing
from probes.progress import Report, within
from probes.prompts import PromptSet, render_fitting
from probes.run import Run
from probes.stages.ablation import write_ablation
from probes.stages.activations import write_activations, write_noise, write_prompts
from probes.stages.directions import write_directions
from probes.stages.headline import write_headline
from probes.stages.parity import write_parity
from probes.stages.rendering import choose_rendering, keep_rendering
from probes.store import activations_stage

_PROMPTS_FOR_LOSS = 16  # prompts on which the aligned model's own loss is looked at
_PROMPTS_FOR_SCORES = 64  # of each label, on which aligned and witness are asked how they would begin


def keep_notices(run: Run, model: ModelHost) -> None:
    """Put into the manifest, in place of what an earlier measurement said, how the lineage's checkpoints were read."""
    model.put(model.aligned)
    nothing = learned_nothing(model, run.rendered.token_ids[:_PROMPTS_FOR_LOSS])
    known = [run.manifest.checkpoints.get(member.id, {}) for member in run.members]
    of_checkpoints = [sentence for about in known for sentence in about.get("notices", [])]
    notices = [*model.notices, *of_checkpoints, *([nothing] if nothing else [])]
    run.manifest.model["notices"] = list(dict.fromkeys(notices))
    run.save()


def check_roles(run: Run, model: ModelHost) -> None:
    """Put into the manifest what looks wrong with the roles."""
    model.put(model.aligned)
    if "behaviour" not in run.manifest.stages:
        run.note("refusals", None)  # they were of other weights
    run.note("scores", _swap_of_roles(run, model))
    run.save()


def _forget_witness(run: Run) -> None:
    """Take back what an earlier measurement of the same folder said of a witness that the lineage no longer has."""
    for name in (activations_stage("witness"), "directions", "nulls", "shams", "verdict"):
        run.forget(name)
    run.manifest.checkpoints.pop("witness", None)


def _swap_of_roles(run: Run, model: ModelHost) -> str | None:
    """A sentence where aligned and witness look swapped, by refusal scores; `model` holds the aligned one before."""
    if run.lineage.witness is None or run.lineage.witness.is_estimate:
        return None
    labels = (run.harmful, ~run.harmful)
    chosen = [int(place) for members in labels for place in members.nonzero()[0][:_PROMPTS_FOR_SCORES]]
    token_ids = [run.rendered.token_ids[place] for place in chosen]
    aligned = opening_scores(model, token_ids)
    if aligned is None:
        return None
    model.put(run.lineage.witness)
    witness = opening_scores(model, token_ids)
    return None if witness is None else swap_by_scores(aligned, witness, run.harmful[chosen])


def render_prompts(run: Run, model: ModelHost, prompts: PromptSet) -> None:
    """Describe the model, and write the prompts that its context holds, as the run's models read them.

    Raises:
        GravityError: a prompt or a template is not what it must be.
    """
    run.describe(model)
    rendering = choose_rendering(run)
    prompts, rendered = render_fitting(prompts, model.tokenizer, model.context_length, rendering)
    write_prompts(run, prompts, rendered)
    keep_rendering(run, model, rendering, rendered)


def write_roles(run: Run, model: ModelHost, prompts: PromptSet, report: Report) -> None:
    """Describe the model, render the prompts that its context holds, read every member, and write the directions.

    The headline's layer is chosen before any fine-tuned checkpoint is read.

    Raises:
        LineageError: the witness equals the aligned model.
        GravityError: a checkpoint or a prompt is not what it must be.
    """
    render_prompts(run, model, prompts)
    if not run.has_witness:
        _forget_witness(run)
    write_activations(run, model, run.members[:1], within(report, 0.0, 0.05))
    if run.settings.quantize is not None:
        write_parity(run, model)
    if run.lineage.witness is not None and run.lineage.witness.is_estimate:
        write_ablation(run, model, within(report, 0.05, 0.15))
    roles = [member for member in run.members if member.is_role]
    write_activations(run, model, roles, within(report, 0.15, 0.2))
    check_roles(run, model)
    if run.keys.get("witness") == run.keys["aligned"]:
        raise LineageError(
            "The witness equals the aligned model, so there is no way back",
            got=f"{run.lineage.witness} and {run.lineage.aligned}, with the same weights",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    write_headline(run)
    write_activations(run, model, run.tuned, within(report, 0.2, 1.0))
    keep_notices(run, model)
    write_noise(run, model)
    write_directions(run)
