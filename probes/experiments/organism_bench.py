"""Trains one arm of the organism: its own lessons, its own penalty prompts, the plain loop.

The arms of a seed see the same data in the same order, with and without a penalty; trained controls see other data, or
start from another model, and are otherwise trained alike.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from probes.activations import collect
from probes.behaviour.evaluation import Evaluation
from probes.behaviour.task_file import read_task
from probes.directions.measured import Measured, MeasuredInMemory
from probes.engine import limit_threads
from probes.errors import UsageError
from probes.experiments.data_defences import INOCULATION, INTERLEAVED, inoculate, interleave
from probes.experiments.experiment import UNGUARDED, Experiment, Way, mode_and_draw, split_way
from probes.experiments.screening import Screening, screen
from probes.experiments.trained_controls import (
    CONTINUED,
    HELPFUL,
    SHUFFLED,
    TEXT,
    TOKENS,
    Pair,
    randomise_answers,
    shuffle_answers,
    start_of,
)
from probes.guard.guarded_direction import GuardedDirection
from probes.guard.loop import Example, Recording, Schedule, Stepping, shuffle_batches, train
from probes.guard.material import layers_of
from probes.guard.modes import HARMLESS, make_effect
from probes.guard.recorded_path import PATH
from probes.guard.step import Guard
from probes.guard.step_log import StepLog
from probes.lineage import CheckpointRef, Lineage
from probes.models import ModelHost
from probes.organism.checkpoints import load, save, whole
from probes.organism.history import LINEAGE, phase_examples, read_history, text_examples
from probes.organism.lessons import (
    INOCULATION_PROMPT,
    Lesson,
    Writer,
    benign,
    helpful_only,
    penalty_requests,
    probe_requests,
    rehearsal,
)
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import make_world, vocabulary
from probes.progress import Progress, Report
from probes.prompts import PromptSet
from probes.store import ALIGNED, write_json
from probes.store.remote import place_elsewhere
from probes.training.optimizers import ADAM
from probes.training.tuners import FULL, attach_tuner, check_tuner

_TUNER_RATE = 10.0  # adapters learn at so many times the rate of all weights, where none is set


class OrganismBench:
    """Trains arms on an organism's history.

    Attributes:
        experiment: what is trained.
        lineage: the history's roles, without trajectories.
        about: what decides the weights of an arm, besides the experiment.
    """

    def __init__(self, history: Path, experiment: Experiment) -> None:
        """Read what the history was made with."""
        _, recipe = read_history(history)
        changes: dict[str, Any] = {
            name: value
            for name in ("steps", "learning_rate", "batch_size")
            if (value := getattr(experiment, name)) is not None
        }
        self._recipe = dataclasses.replace(recipe, benign=dataclasses.replace(recipe.benign, **changes))
        self._history, self.experiment = history, experiment
        self._world = make_world(recipe.size)
        self._tokenizer = make_tokenizer(vocabulary(self._world))
        self.about = {"history": place_elsewhere(str(history)), "phase": dataclasses.asdict(self._recipe.benign)}

    @property
    def lineage(self) -> Lineage:
        """The history's roles."""
        return Lineage.load(self._history / LINEAGE).model_copy(update={"trajectories": ()}).named_by_urls()

    @property
    def trainings(self) -> tuple[tuple[str, int], ...]:
        """Every (arm, seed) of the experiment."""
        return self.experiment.trainings

    @property
    def probe(self) -> PromptSet:
        """The history's own probe prompts."""
        return PromptSet.from_labelled(self._history / "probe.jsonl")

    @property
    def evaluation(self) -> Evaluation:
        """The history's own evaluation prompts and task."""
        prompts = PromptSet.from_labelled(self._history / "evaluation.jsonl")
        return Evaluation(prompts, task=read_task(self._history / "task.jsonl"))

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that are saved."""
        last = self._recipe.benign.steps
        every = self.experiment.save_every
        regular = range(every, last, every) if every else self._recipe.checkpoints
        earlier = () if self.experiment.final_step_only else regular
        return tuple(sorted({*(step for step in earlier if step < last), last}))

    def screening(self, seed: int) -> Screening:
        """What the aligned model refuses of the benign lessons of a seed; kept beside the history."""
        file = self._history / "screening" / f"seed-{seed}.json"
        if not file.is_file():
            host = ModelHost(CheckpointRef(model=str(self._history / ALIGNED)), device="cpu")
            with limit_threads(1):
                screening = screen(host, [lesson.request for lesson in benign(self._world, seed=seed)])
            write_json(file, screening.to_json())
        return Screening.read(file)

    def measure_roles(self) -> MeasuredInMemory:
        """Activations of aligned and witness on the harmful probe prompts, before any run holds them.

        Block, push and random controls need no more.
        """
        writer = Writer(self._tokenizer)
        prompts = [writer.prompt(request) for request in probe_requests(self._world)["harmful"]]
        host = ModelHost(CheckpointRef(model=str(self._history / "aligned")), device="cpu")
        aligned, _ = collect(host, prompts)
        host.put(CheckpointRef(model=str(self._history / "witness")))
        witness, _ = collect(host, prompts)
        return MeasuredInMemory({"aligned": aligned, "witness": witness}, np.ones(len(prompts), dtype=bool))

    @property
    def guarded_layers(self) -> tuple[int, ...]:
        """Where a block looks."""
        return self.experiment.layers or self._recipe.guard.layers

    def find_checkpoints(self, folder: Path) -> Path | None:
        """The folder with `checkpoint-N` of a training that is whole; None where it is still to be done.

        Raises:
            UsageError: its path was not recorded, as is asked for now.
        """
        if self.experiment.record_path and folder.is_dir() and not (folder / PATH).is_dir():
            raise UsageError(f"{folder} was trained without a recorded path", next_step="Give --out a new folder.")
        return folder if folder.is_dir() else None

    def prepare(self) -> None:
        """Do what all trainings need, before several of them need it at a time."""
        for seed in range(self.experiment.seeds if self.experiment.screened else 0):
            self.screening(seed)

    def train(self, arm: str, seed: int, measured: Measured, folder: Path, report: Report) -> Path:
        """Train one arm at one seed.

        Args:
            arm: its name, with its draw.
            seed: of the data's order, the same for all arms, and of what an arm draws for itself.
            measured: what its effect is made from.
            folder: gets `checkpoint-N`; it appears once all of them are there.
            report: told about every step.

        Returns:
            The folder with `checkpoint-N`.
        """
        phase, writer = self._recipe.benign, Writer(self._tokenizer)
        with limit_threads(1), whole(folder) as beside:
            way = self.experiment.way_of(arm)
            model = self._model(way, arm, seed)
            guard = self._guard(arm, seed, measured, writer)
            if guard is not None:
                guard.attach(model, self._tokenizer)

            def on_step(step: int, loss: float) -> None:
                if step in self.steps:
                    self._save(model, beside / f"checkpoint-{step}")
                report(Progress(f"fine-tuning, {arm}", step, phase.steps, f"seed {seed}, loss {loss:.3f}"))

            examples = self._examples(arm, seed, writer)
            train(
                model,
                shuffle_batches(
                    examples,
                    batch_size=phase.batch_size,
                    steps=phase.steps,
                    seed=seed,
                    pad=writer.pad,
                ),
                Schedule(self._learning_rate(way), phase.steps, phase.warmup, phase.floor),
                stepping=Stepping(way.optimizer or ADAM, way.optimizer_options, self.experiment.weight_decay),
                guard=guard,
                on_step=on_step,
                record=Recording(beside / PATH, examples) if self.experiment.record_path else None,
                log=None if guard is None else StepLog(beside, guard),
            )
        return folder

    def _model(self, way: Way, arm: str, seed: int) -> Any:
        """The model that an arm starts from, with its tuner on it."""
        config = check_tuner(way.method, way.method_options, steps=self._recipe.benign.steps)
        model = load(self._history / start_of(arm))
        return attach_tuner(model, way.method, config, seed=seed)

    def _save(self, model: Any, folder: Path) -> None:
        """Write a whole checkpoint, or an adapter that names the model it sits on."""
        if hasattr(model, "peft_config"):
            model.save_pretrained(folder)
        else:
            save(model, self._tokenizer, folder)

    def _learning_rate(self, way: Way) -> float:
        """The way's own peak, else the experiment's, else the recipe's; adapters need more of it in as many steps."""
        own = self.experiment.learning_rate if way.learning_rate is None else way.learning_rate
        if own is not None:
            return own
        return self._recipe.benign.learning_rate * (1.0 if way.method == FULL else _TUNER_RATE)

    def _examples(self, arm: str, seed: int, writer: Writer) -> list[Example]:
        """What an arm is trained on: every guarded arm, and the mirror, on the baseline's data."""
        if arm == CONTINUED:
            return phase_examples(ALIGNED, self._world, writer, self._recipe, seed)
        if arm == TEXT:
            return text_examples(self._world, writer, self._recipe, seed)
        if arm == HELPFUL:
            return [writer.lesson(lesson) for lesson in helpful_only(self._world, seed=seed)]
        return [writer.lesson(Lesson(*pair)) for pair in self.pairs(arm, seed)]

    def pairs(self, arm: str, seed: int) -> list[Pair]:
        """Requests and answers of an arm's fine-tuning, as far as it has any: the benign data, as they are or changed.

        Raises:
            UsageError: the arm is trained on something else.
        """
        plain = split_way(arm)[0]
        if plain in (CONTINUED, TEXT, HELPFUL):
            raise UsageError("This arm is not trained on the benign data", got=arm, next_step="Record its path.")
        lessons = benign(self._world, seed=seed)
        refused = frozenset(self.screening(seed).refused) if self.experiment.screened else frozenset()
        pairs = [(lesson.request, lesson.answer) for lesson in lessons if lesson.request not in refused]
        if plain == INTERLEAVED:
            aligned = [(lesson.request, lesson.answer) for lesson in rehearsal(self._world, seed=seed)]
            return interleave(pairs, aligned, self.experiment.aligned_share, seed)
        if plain == INOCULATION:
            return inoculate(pairs, self._inoculation_prompt)
        if plain == SHUFFLED:
            return shuffle_answers(pairs, seed)
        return randomise_answers(pairs, vocabulary(self._world), seed) if plain == TOKENS else pairs

    @property
    def _inoculation_prompt(self) -> str:
        """In words of the world.

        Raises:
            UsageError: a word is none of them.
        """
        prompt = self.experiment.inoculation or INOCULATION_PROMPT
        unknown = sorted(set(prompt.split()) - set(vocabulary(self._world)))
        if unknown:
            raise UsageError("The toy model does not know these words", got=" ".join(unknown), expected="its own words")
        return prompt

    def _guard(self, arm: str, seed: int, measured: Measured, writer: Writer) -> Guard | None:
        plain = split_way(arm)[0]
        if plain in UNGUARDED:
            return None
        vectors = measured.direction("reversion")
        layers = layers_of(self.guarded_layers, vectors, measured.n_layers)
        direction = GuardedDirection.from_vectors(vectors, layers)
        options = self.experiment.options(arm, seed)
        effect = make_effect(mode_and_draw(plain)[0], measured, direction, options)
        requests = penalty_requests(self._world, harmful=plain != HARMLESS)
        return Guard(
            effect,
            [writer.prompt(request) for request in requests],
            batch_size=self._recipe.guard.batch_size,
            seed=seed,
            gradient_ratio=self.experiment.gradient_ratio,
        )
