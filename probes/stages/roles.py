"""The first stages of every run, up to its directions: prompts, activations, the headline's layer, noise."""

from __future__ import annotations

from probes.errors import LineageError
from probes.models import ModelHost
from probes.progress import Report, within
from probes.prompts import PromptSet, render_fitting
from probes.run import Run
from probes.stages.ablation import write_ablation
from probes.stages.activations import write_activations, write_prompts
from probes.stages.directions import write_directions
from probes.stages.headline import write_headline
from probes.stages.parity import write_parity
from probes.stages.rendering import choose_rendering, keep_rendering
from probes.stages.role_checks import check_roles, keep_notices
from probes.store import activations_stage


def _forget_witness(run: Run) -> None:
    """Take back what an earlier measurement of the same folder said of a witness that the lineage no longer has."""
    for name in (activations_stage("witness"), "directions", "nulls", "shams", "verdict"):
        run.forget(name)
    run.manifest.checkpoints.pop("witness", None)


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
    witness, share = run.lineage.witness, 0.0
    if witness is None:
        _forget_witness(run)
    is_estimate = witness is not None and witness.is_estimate
    if is_estimate or run.settings.quantize is not None:  # both need the aligned model's activations
        share = 0.05
        write_activations(run, model, run.members[:1], within(report, 0.0, share))
    if run.settings.quantize is not None:
        write_parity(run, model)
    if is_estimate:
        write_ablation(run, model, within(report, share, 0.15))
        share = 0.15
    roles = [member for member in run.members if member.is_role]
    write_activations(run, model, roles, within(report, share, 0.2))
    if run.keys.get("witness") == run.keys["aligned"]:
        raise LineageError(
            "The witness equals the aligned model, so there is no way back",
            got=f"{run.lineage.witness} and {run.lineage.aligned}, with the same weights",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    write_headline(run)
    of_loss = check_roles(run, model, within(report, 0.2, 0.3))
    write_activations(run, model, run.tuned, within(report, 0.3, 1.0))
    keep_notices(run, model, of_loss)
    write_directions(run)
