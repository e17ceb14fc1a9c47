"""Stage `ablated`: the refusal direction that is taken out of the aligned model where it stands in for the witness.

`directions/ablated.safetensors` is the direction, `ablated.json` every candidate with its scores. No weights are
written: the witness is the aligned model under hooks (`ModelHost.put`), and an estimate wherever it is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from probes.directions.selection import Candidate, Rule, Selection, select
from probes.directions.vectors import Vectors
from probes.errors import StatisticsError
from probes.interventions.candidates import Asked, candidates
from probes.models import ModelHost
from probes.progress import Progress, Report
from probes.run import ABLATION, Run
from probes.stages import stage
from probes.stages.directions import describe_model, write_vectors
from probes.store import ALIGNED, activations_stage


def write_ablation(run: Run, model: ModelHost, report: Report) -> None:
    """Select the direction that an ablated witness is read without, and hand it to the model.

    Candidates are the harmful − harmless means of the aligned model at the run's token, on fold A, and are scored on
    prompts of fold B (arXiv 2406.11717). Where none passes the published rule the one that misses it least is taken,
    and the witness's label says so.

    Raises:
        PromptError: the tokenizer knows no word that begins a refusal, so that no candidate can be scored.
        StatisticsError: no candidate has scores.
    """
    _write_ablation(run, model, report)
    passes = run.read_json(ABLATION)["passes_rule"]
    witness = run.lineage.witness
    assert witness is not None
    run.place(run.lineage.model_copy(update={"witness": witness.model_copy(update={"passes_rule": passes})}))
    model.ablation.direction = run.ablated_direction


@stage(ABLATION, version=1, needs=(activations_stage(ALIGNED), "prompts"))
def _write_ablation(run: Run, model: ModelHost, report: Report) -> None:
    rule, position = Rule(), run.settings.position
    layers = range(max(1, int(rule.depth * model.n_layers)))
    questions = Asked.of(run.rendered.token_ids, run.harmful, run.fold)
    model.put(model.aligned)

    def show(done: int, count: int) -> None:
        report(Progress("scoring refusal candidates", done, count))

    scored, vectors = candidates(model, questions, [position], show, layers=layers)
    selection = select(scored, model.n_layers, rule)
    chosen, fails = _take_best(selection)
    about = {
        **describe_model(run, run.members[0]),
        "method": "refusal",
        "concept": "harmful against harmless requests; what an ablated witness is read without",
        "orientation": "harmless towards harmful",
        "position": str(position),
        "selected_layer": str(chosen.layer),
    }
    write_vectors(run, Vectors.of_raw(ABLATION, tuple(range(model.n_layers)), vectors[0], about), ALIGNED)
    run.write_json(ABLATION, _document(scored, selection, chosen, fails))


def _take_best(selection: Selection) -> tuple[Candidate, tuple[str, ...]]:
    """The selected candidate, or the one that fails least, with what it fails."""
    chosen, fails = (selection.chosen, ()) if selection.chosen else selection.nearest[0]
    if not math.isfinite(chosen.bypass):
        raise StatisticsError(
            "No refusal direction can be selected, so no ablated witness can be made",
            got="no candidate with finite scores",
            next_step="Measure without a witness, or give one.",
        )
    return chosen, fails


def _document(
    scored: Sequence[Candidate], selection: Selection, chosen: Candidate, fails: Sequence[str]
) -> dict[str, Any]:
    return {
        "estimate": True,
        "passes_rule": not fails,
        "passing": selection.passing,
        "fails": list(fails),
        "chosen": chosen.published_row(),
        "candidates": [candidate.published_row() for candidate in scored],
    }
