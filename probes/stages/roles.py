"""The first stages of every run, up to its directions: prompts, activations, noise."""

from __future__ import annotations

from probes.errors import LineageError
from probes.models import ModelHost
from probes.progress import Report
from probes.prompts import PromptSet, render
from probes.run import Run
from probes.stages.activations import write_activations, write_noise, write_prompts
from probes.stages.directions import write_directions


def write_roles(run: Run, model: ModelHost, prompts: PromptSet, report: Report) -> None:
    """Describe the model, render the prompts, read every member's activations, and write the directions.

    Raises:
        LineageError: the witness equals the aligned model.
        GravityError: a checkpoint or a prompt is not what it must be.
    """
    run.describe(model)
    write_prompts(run, prompts, render(prompts, model.tokenizer, model.context_length))
    write_activations(run, model, report)
    if run.keys["witness"] == run.keys["aligned"]:
        raise LineageError(
            "The witness equals the aligned model, so there is no way back",
            got=f"{run.lineage.witness} and {run.lineage.aligned}, with the same weights",
            next_step="Give the earlier, more permissive checkpoint as the witness.",
        )
    write_noise(run, model)
    write_directions(run)
