"""What guards take from a measured run beyond its activations: directions to guard, shams, the span of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probes.activations import collect
from probes.directions.controls import control
from probes.directions.measured import Measured, activations_by_layer
from probes.directions.refusal import refusal_axis
from probes.directions.reversion import reversion_vectors
from probes.directions.vectors import Vectors
from probes.drift.comparison import selectivity
from probes.errors import PromptError
from probes.guard.guarded_direction import GuardError
from probes.guard.model_in_training import undisturbed
from probes.models.view import ModelView
from probes.models.weight_space import drift_norms, merged_weights, noised
from probes.prompts import PromptSet, render
from probes.run import Run
from probes.store import ALIGNED

_BASELINE = "baseline"
_SAMPLE = 32  # prompts that tell whether a model is the aligned one


def direction_of(run: Run, direction: str | Vectors) -> Vectors:
    """A direction to guard: one of the run's by name, or vectors of any origin that fit its model.

    `refusal` needs no fit: where the run has none, it is made of the probe prompts' activations.

    Raises:
        RunFolderError: the run has no direction of this name; those that it has are named.
        UsageError: the direction is that of another model.
    """
    if isinstance(direction, Vectors):
        vectors = direction
    elif direction == "refusal" and direction not in run.directions:
        vectors = refusal_of(run)
    else:
        vectors = run.direction(direction)
    run.owner.refuse_foreign(vectors)
    return vectors


def refusal_of(run: Measured) -> Vectors:
    """The aligned model's refusal axis on the probe prompts, at the token where they were read."""
    return refusal_axis(activations_by_layer(run, ALIGNED), run.harmful)


def control_of(run: Measured, name: str, layers: Sequence[int], seed: int) -> Vectors:
    """A control at some layers, with what it is made from read from the run or its models.

    Raises:
        GuardError: `control:drift` or `control:sham`, and there is no run, or no baseline in it.
    """
    if name == "control:sham":
        shams = sham_activations(whole_run(run), layers, seed)
        aligned = [run.activations(ALIGNED, layer) for layer in layers]
        return replace(reversion_vectors(aligned, shams, run.harmful, name), layers=tuple(layers))
    checkpoint = last_of_baseline(whole_run(run)) if name == "control:drift" else None
    return control(run, name, layers, seed=seed, checkpoint=checkpoint)


def selective_layers(run: Measured, layers: Sequence[int]) -> tuple[int, ...]:
    """Of some layers, those where witness and aligned model differ more on harmful prompts than on harmless ones.

    The choice of the Safety-Direction Penalty (arXiv 2608.23497): `selectivity` above 1. Between which two models it is
    taken there we do not know; these two are there before any fine-tuning.

    Raises:
        GuardError: there is none.
        StatisticsError: fewer than 4 prompts of either class.
    """
    pairs = [(run.activations(ALIGNED, layer), run.activations("witness", layer)) for layer in layers]
    ratios = {layer: selectivity(*pair, run.harmful) for layer, pair in zip(layers, pairs, strict=True)}
    chosen = tuple(layer for layer, ratio in ratios.items() if ratio > 1)
    if not chosen:
        raise GuardError(
            "Alignment changed harmful prompts no more than harmless ones at every guarded layer",
            got=", ".join(f"{ratio:.2f} at layer {layer}" for layer, ratio in ratios.items()),
            expected="a ratio above 1 somewhere",
            next_step="Guard other layers: --layer.",
        )
    return chosen


def whole_run(measured: Measured) -> Run:
    """The run folder with its models.

    Raises:
        GuardError: these are activations alone.
    """
    if not isinstance(measured, Run):
        raise GuardError("This mode needs a measured run", got="activations alone", next_step="Measure a run first.")
    return measured


def last_of_baseline(run: Run) -> str:
    """The last checkpoint of the run's first baseline.

    Raises:
        GuardError: the run holds no baseline.
    """
    baselines = [trajectory for trajectory in run.lineage.trajectories if trajectory.arm == _BASELINE]
    if not baselines:
        raise GuardError(
            "The drift control needs a drift",
            expected="a run with a baseline",
            next_step="Measure a baseline first.",
        )
    return baselines[0].checkpoint_id(baselines[0].checkpoints[-1].step)


def sham_activations(run: Run, layers: Sequence[int], seed: int) -> Float[np.ndarray, "layer prompt d_model"]:
    """Activations of a witness that is none: the aligned model with noise of the witness's own norms."""
    host = run.model()
    rendered = render(run.prompts, host.tokenizer, host.context_length, run.rendering)
    norms = drift_norms(host, run.lineage.need_witness("A sham witness", weights=True))
    with noised(host, norms, seed):
        sham, _ = collect(host, rendered.token_ids, layers=list(layers))
    return sham[list(layers)]


def weight_span(run: Run) -> dict[str, Tensor]:
    """θ_H − θ_S of every weight by name, in float32 on the CPU."""
    witness = run.lineage.need_witness("The span of the alignment's weights", weights=True)
    host = run.model()
    aligned = merged_weights(host, run.lineage.aligned)
    return {name: tensor - aligned[name] for name, tensor in merged_weights(host, witness).items()}


def distance(run: Run, live: ModelView, layer: int) -> float:
    """How far a model's mean activation over harmful prompts, at most 32, is from the aligned model's at a layer.

    In units of the reversion.
    """
    rendered = render(run.prompts, live.tokenizer, live.context_length, run.rendering)
    harmful = np.flatnonzero(run.harmful)[:_SAMPLE]
    with undisturbed(live.model, live.tokenizer):
        activations, _ = collect(live, [rendered.token_ids[int(place)] for place in harmful], layers=[layer])
    displacement = activations[layer].astype(np.float64) - run.activations(ALIGNED, layer)[harmful]
    return float(np.linalg.norm(displacement.mean(axis=0)) / run.direction("reversion").at(layer)[1])


def refuse_overlap(run: Run, penalty: PromptSet) -> None:
    """Penalty prompts must have no part in the direction or in the evaluation.

    Raises:
        PromptError: some do; they are named.
    """
    refuse_shared(penalty, run.prompts.texts, "probe")
    if run.has_json("evaluation"):
        document = run.read_json("evaluation")
        questions = [*document["prompts"], *(document["look_alikes"] or [])]
        refuse_shared(penalty, (row[0] for row in questions), "evaluation")


def refuse_shared(penalty: PromptSet, texts: Iterable[str], use: str) -> None:
    """Refuse penalty prompts that have another use too.

    Raises:
        PromptError: some have; they are named by their ids.
    """
    known = set(texts)
    shared = [prompt.id for prompt in penalty.prompts if prompt.text in known]
    if shared:
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise PromptError(
            f"Penalty prompts are among the {use} prompts",
            got=", ".join(shared[:5]) + more,
            next_step="Give the penalty prompts of its own; what they are measured on must be new to them.",
        )


def layers_of(layers: Sequence[int] | None, vectors: Vectors, n_layers: int) -> tuple[int, ...]:
    """The guarded layers: as asked; else all but the first fourth, where a prompt is still being read.

    Of a direction that is known at some layers alone, those of them; where all lie in the first fourth, all of them.
    """
    if layers is not None:
        return tuple(layers)
    defined = [layer for layer, norm in zip(vectors.layers, vectors.norm, strict=True) if norm > 0]
    if len(vectors.layers) == n_layers:
        defined = list(vectors.layers)
    return tuple(layer for layer in defined if layer >= n_layers // 4) or tuple(defined)
