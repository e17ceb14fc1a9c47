"""The fine-tuning arms: the same benign lessons in the same order, with and without a penalty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from probes.activations import collect
from probes.directions.controls import random_vectors
from probes.directions.vectors import Vectors
from probes.guard.guarded_direction import GuardedDirection
from probes.guard.loop import Schedule, shuffled, train
from probes.guard.penalties.projection import Projection
from probes.guard.step import Guard
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.organism.checkpoints import load, save, single_thread, whole
from probes.organism.lessons import Writer, benign, penalty_requests, probe_requests
from probes.organism.recipe import Recipe
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import make_world, vocabulary

# Arm → (form of the penalty, whether it looks along a random direction instead).
ARMS: dict[str, tuple[str | None, bool]] = {
    "baseline": (None, False),
    "block": ("hinge", False),
    "push": ("push", False),
    "control:random": ("hinge", True),
}
OnStep = Callable[[int, float], None]


def arm_folder(history: Path, arm: str, seed: int) -> Path:
    """Where an arm's checkpoints lie."""
    return history / "arms" / f"{arm.replace(':', '-')}-s{seed}"


def reversion_vectors(history: Path, recipe: Recipe) -> torch.Tensor:
    """Witness minus aligned, mean activations on the harmful probe prompts, [layer, d_model], float64."""
    writer = Writer(make_tokenizer(vocabulary(make_world(recipe.size))))
    prompts = [writer.prompt(request) for request in probe_requests(make_world(recipe.size))["harmful"]]
    host = ModelHost(CheckpointRef(model=str(history / "aligned")), device="cpu")
    aligned, _ = collect(host, prompts)
    host.put(CheckpointRef(model=str(history / "witness")))
    witness, _ = collect(host, prompts)
    return torch.tensor(witness.mean(axis=1, dtype="float64") - aligned.mean(axis=1, dtype="float64"))


def train_arm(
    history: Path, recipe: Recipe, arm: str, seed: int, vectors: torch.Tensor, on_step: OnStep | None = None
) -> Path:
    """Fine-tune the aligned model in one arm and save its checkpoints; an arm that is whole is left as it is.

    Args:
        history: folder of the history, with `aligned`.
        recipe: what to do.
        arm: a name from `ARMS`.
        seed: of the data's order, the same for all arms, and of what an arm draws for itself.
        vectors: raw reversion vectors, [layer, d_model].
        on_step: called with step and loss.

    Returns:
        The folder with its `checkpoint-N`.
    """
    folder = arm_folder(history, arm, seed)
    if folder.is_dir():
        return folder
    world = make_world(recipe.size)
    tokenizer = make_tokenizer(vocabulary(world))
    writer = Writer(tokenizer)
    with single_thread(), whole(folder) as beside:
        model = load(history / "aligned")
        examples = [writer.lesson(lesson) for lesson in benign(world, seed=seed)]
        phase = recipe.benign
        keep = _saver(model, tokenizer, beside, recipe.checkpoints, on_step)
        train(
            model,
            shuffled(examples, rows=phase.rows, steps=phase.steps, seed=seed, pad=writer.pad),
            Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor),
            guard=_guard(model, writer, recipe, arm, seed, vectors),
            on_step=keep,
        )
    return folder


def _guard(
    model: LlamaForCausalLM, writer: Writer, recipe: Recipe, arm: str, seed: int, vectors: torch.Tensor
) -> Guard | None:
    form, at_random = ARMS[arm]
    if form is None:
        return None
    direction = GuardedDirection.from_vectors(
        Vectors.of_raw("reversion", tuple(range(len(vectors))), vectors.numpy()), recipe.guard.layers
    )
    if at_random:
        direction = direction.turned_along(random_vectors(direction.layers, len(vectors), vectors.shape[1], seed))
    strength = recipe.guard.push if form == "push" else recipe.guard.block
    prompts = [writer.prompt(request) for request in penalty_requests(make_world(recipe.size))]
    guard = Guard(Projection(direction, form, strength=strength), prompts, rows=recipe.guard.rows, seed=seed)
    guard.attach(model)
    return guard


def _saver(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    steps: tuple[int, ...],
    on_step: OnStep | None,
) -> OnStep:
    def after(step: int, loss: float) -> None:
        if step in steps:
            save(model, tokenizer, folder / f"checkpoint-{step}")
        if on_step is not None:
            on_step(step, loss)

    return after
