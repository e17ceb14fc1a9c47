"""One prompt to a checkpoint of a run, answered with and without a direction."""

from __future__ import annotations

from dataclasses import dataclass

from probes.errors import UsageError
from probes.interventions.steering import Answer, Mode, answer_steered
from probes.prompts import PromptSet, render
from probes.run import Run
from probes.store import ALIGNED


@dataclass(frozen=True)
class Steered:
    """Three answers to one prompt.

    Attributes:
        checkpoint: who answered.
        direction: its name.
        layers: where it acted; `ablate` takes it out at every block.
        mode: how.
        coefficient: how much, in units of the direction's norm.
        norms: that norm at each of the layers.
        answers: as it is, under the direction, under a random direction of the same norm.
    """

    checkpoint: str
    direction: str
    layers: tuple[int, ...]
    mode: str
    coefficient: float
    norms: tuple[float, ...]
    answers: tuple[Answer, Answer, Answer]


@dataclass(frozen=True)
class Steering:
    """What is done to the answer.

    Attributes:
        direction: a fitted or imported direction, as it is at the aligned model.
        checkpoint: who answers.
        layers: where the direction acts; None is the layer that its selection chose, else the run's headline layer.
        mode: add coefficient × norm × direction, ablate it at every block, or clamp its projection.
        coefficient: in units of the direction's norm at that layer.
        max_new_tokens: length of the answers.
        seed: of the random direction.
        device: None is as the run was measured.
    """

    direction: str
    checkpoint: str = ALIGNED
    layers: tuple[int, ...] | None = None
    mode: Mode = "add"
    coefficient: float = 1.0
    max_new_tokens: int = 32
    seed: int = 0
    device: str | None = None


def steer(run: Run, prompt: str, steering: Steering) -> Steered:
    """Answer a prompt with and without a direction of a run.

    Args:
        run: a run whose checkpoints are still where they were.
        prompt: one request, which gets the aligned model's chat template.
        steering: the direction, and how it acts.

    Raises:
        LineageError: no such checkpoint.
        UsageError: the prompt is empty, the direction is not known at a layer or belongs to another model, or the
            intervention cannot be (see `answer_steered`).
        RunFolderError: the run has no such direction.
        CheckpointError: the checkpoint is no longer where it was.
    """
    if not prompt.strip():
        raise UsageError("The prompt is empty", next_step="Give --prompt what the model shall be asked.")
    ref = run.lineage.ref(steering.checkpoint)
    vectors = run.direction(steering.direction)
    run.owner.refuse_foreign(vectors)
    places = steering.layers or (run.layer_of(vectors),)
    norms = tuple(vectors.at(layer)[1] for layer in places)
    model = run.model(steering.device)
    model.put(ref)
    prompts = PromptSet.of([prompt], ["harmful"])
    ids = render(prompts, model.tokenizer, model.context_length, run.rendering).token_ids[0]
    answers = answer_steered(
        model,
        ids,
        vectors,
        places,
        mode=steering.mode,
        coefficient=steering.coefficient,
        max_new_tokens=steering.max_new_tokens,
        seed=steering.seed,
    )
    return Steered(steering.checkpoint, steering.direction, places, steering.mode, steering.coefficient, norms, answers)
