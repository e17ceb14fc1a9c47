"""The first stages of every run, up to its directions: prompts, activations, the headline's layer, noise."""

from __future__ import annotations

from probes.errors import LineageError
from probes.models import ModelHost
from probes.models.learned import learned_nothing
from probes.progress import Report, within
from probes.prompts import PromptSet, fit_to_context, render
from probes.run import Run
from probes.stages.ablation import write_ablation
from probes.stages.activations import write_activations, write_noise, write_prompts
from probes.stages.directions import write_directions
from probes.stages.headline import write_headline
from probes.store import activations_stage

_PROMPTS_FOR_LOSS = 64  # prompts on which the aligned model's own loss is looked at


def keep_notices(run: Run, model: ModelHost) -> None:
    """Put into the manifest what was read in another way than one might think, and a model that has learned nothing."""
    model.put(model.aligned)
    nothing = learned_nothing(model, run.rendered.token_ids[:_PROMPTS_FOR_LOSS])
    notices = [*run.lineage.notices, *model.notices, *([nothing] if nothing else [])]
    run.manifest.model["notices"] = list(dict.fromkeys([*run.manifest.model.get("notices", []), *notices]))
    run.save()


def _forget_witness(run: Run) -> None:
    """Take back what an earlier measurement of the same folder said of a witness that the lineage no longer has."""
    for name in (activations_stage("witness"), "directions", "nulls", "shams", "verdict"):
        run.forget(name)
    run.manifest.checkpoints.pop("witness", None)


def write_roles(run: Run, model: ModelHost, prompts: PromptSet, report: Report) -> None:
    """Describe the model, render the prompts that its context holds, read every member, and write the directions.

    The headline's layer is chosen before any fine-tuned checkpoint is read.

    Raises:
        LineageError: the witness equals the aligned model.
        GravityError: a checkpoint or a prompt is not what it must be.
    """
    run.describe(model)
    prompts, _ = fit_to_context(prompts, model.tokenizer, model.context_length)
    write_prompts(run, prompts, render(prompts, model.tokenizer, model.context_length))
    if not run.has_witness:
        _forget_witness(run)
    write_activations(run, model, run.members[:1], within(report, 0.0, 0.05))
    if run.lineage.witness is not None and run.lineage.witness.is_estimate:
        write_ablation(run, model, within(report, 0.05, 0.15))
    roles = [member for member in run.members if member.is_role]
    write_activations(run, model, roles, within(report, 0.15, 0.2))
    keep_notices(run, model)
    if run.keys.get("witness") == run.keys["aligned"]:
        raise LineageError(
            "The witness equals the aligned model, so there is no way back",
            got=f"{run.lineage.witness} and {run.lineage.aligned}, with the same weights",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    write_headline(run)
    write_activations(run, model, run.tuned, within(report, 0.2, 1.0))
    write_noise(run, model)
    write_directions(run)
