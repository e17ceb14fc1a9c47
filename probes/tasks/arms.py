"""Arms side by side: the same data in the same order, with and without every effect of the guard, then measured.

`run_arms` works on the organism's history, through the plain loop that its own arms use, and on any lineage with a file
of data, through the Trainer. `probes.tasks.arms_table` reads the finished run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.behaviour.evaluation import Evaluation
from probes.behaviour.task_file import read_task
from probes.errors import UsageError
from probes.guard.callback import ReversionGuard
from probes.guard.guarded_direction import GuardedDirection
from probes.guard.loop import Schedule, shuffled, train
from probes.guard.material import layers_of
from probes.guard.modes import HARMLESS, MODES, WATCH, Options, make_effect
from probes.guard.record import begin_run
from probes.guard.step import Guard
from probes.guard.training import CHECKPOINTS, Training, fine_tune
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.organism import Recipe
from probes.organism.checkpoints import load, save, single_thread, whole
from probes.organism.lessons import Writer, benign, penalty_requests
from probes.organism.recipe import GuardSettings, Phase
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import Size, make_world, vocabulary
from probes.progress import Progress, Report, silent, within
from probes.prompts import PromptSet, default_prompts
from probes.run import Run
from probes.store.settings import Settings
from probes.tasks.measure import write_stages
from probes.tasks.restore import Lineages, restore

BASELINE = "baseline"
RESTORED = {"restore": "scaled", "restore:exact": "exact", "restore:along": "along"}
EVERY_ARM = (BASELINE, *(mode for mode in MODES if mode != WATCH), *RESTORED)
DRAWN = ("control:random", "control:covariance", "control:sham")  # controls that draw their direction
_HELD_OUT = 64  # examples of a data file that are kept back for the task's loss, at most
_TRAINING = 0.6  # share of the time
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Experiment:
    """What is trained.

    Attributes:
        arms: names from `EVERY_ARM`, or `all`; `control:random:3` is draw 3 of a drawn control.
        seeds: trainings of each arm, from seed 0.
        draws: directions of each drawn control; from two on they are `control:random:0`, `control:random:1` and so
            on, and a control alone takes the direction of its training's seed.
        steps: optimiser steps; None is the organism's own, or 100.
        learning_rate: its peak; None is the organism's own, or the method's.
        rows: examples in a batch; None likewise.
        method: full or LoRA; the organism is always trained in full.
        layers: guarded layers.
        strength: λ of every arm; None is each one's own.
        max_return: budget of `block:budget`.
        match: same ratio of gradients in every arm.
        last: keep the last step alone.
    """

    arms: tuple[str, ...] = (BASELINE, "block", "push", "control:random")
    seeds: int = 1
    draws: int = 1
    steps: int | None = None
    learning_rate: float | None = None
    rows: int | None = None
    method: Literal["full", "lora"] = "full"
    layers: tuple[int, ...] | None = None
    strength: float | None = None
    max_return: float | None = None
    match: float | None = None
    last: bool = False

    @property
    def chosen(self) -> tuple[str, ...]:
        """The arms in the order of `EVERY_ARM`; the baseline is always among them.

        Raises:
            UsageError: there is no such arm.
        """
        named = {name for arm in self.arms for name in ((arm,) if arm != "all" else EVERY_ARM)} | {BASELINE}
        unknown = sorted(arm for arm in named if mode_and_draw(arm)[0] not in EVERY_ARM)
        if unknown:
            raise UsageError("There is no such arm", got=unknown[0], expected=", ".join(EVERY_ARM))
        drawn = {draw for arm in named for draw in self._draws_of(arm)}
        return tuple(sorted(drawn, key=_in_order))

    def _draws_of(self, arm: str) -> tuple[str, ...]:
        if arm in DRAWN and self.draws > 1:
            return tuple(f"{arm}:{draw}" for draw in range(self.draws))
        return (arm,)

    def options(self, arm: str, seed: int) -> Options:
        """What an arm's effect is told; its data keep the order of the seed, whatever it draws."""
        draw = mode_and_draw(arm)[1]
        return Options(strength=self.strength, seed=seed if draw is None else draw, max_return=self.max_return or 0.0)


def mode_and_draw(arm: str) -> tuple[str, int | None]:
    """`control:random:3` is draw 3 of `control:random`; other arms have no draw."""
    mode, _, draw = arm.rpartition(":")
    return (mode, int(draw)) if mode in DRAWN and draw.isdecimal() else (arm, None)


def _in_order(arm: str) -> tuple[int, int]:
    mode, draw = mode_and_draw(arm)
    return EVERY_ARM.index(mode), -1 if draw is None else draw


class OrganismBench:
    """Trains arms of the organism: its own lessons, its own penalty prompts, the plain loop."""

    def __init__(self, history: Path, asked: Experiment) -> None:
        """Read what the history was made with."""
        raw = json.loads((history / "history.json").read_text(encoding="utf-8"))["recipe"]
        recipe = _recipe(raw)
        changes: dict[str, Any] = {"steps": asked.steps, "learning_rate": asked.learning_rate, "rows": asked.rows}
        phase = dataclasses.replace(recipe.benign, **{name: each for name, each in changes.items() if each is not None})
        self._recipe, self._asked, self._history = dataclasses.replace(recipe, benign=phase), asked, history
        self._world = make_world(recipe.size)
        self._tokenizer = make_tokenizer(vocabulary(self._world))
        self.lineage = Lineage.load(history / "lineage.toml").model_copy(update={"trajectories": ()})
        self.probe = PromptSet.from_labelled(history / "probe.jsonl")
        self.evaluation = Evaluation(
            PromptSet.from_labelled(history / "evaluation.jsonl"), task=read_task(history / "task.jsonl")
        )
        self.about = {"history": str(history), "phase": dataclasses.asdict(phase)}

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that are saved."""
        last = self._recipe.benign.steps
        return (
            (last,) if self._asked.last else tuple(sorted({*(n for n in self._recipe.checkpoints if n < last), last}))
        )

    def train(self, arm: str, seed: int, material: Run, folder: Path, told: Told) -> Path:
        """One training; returns the folder of its `checkpoint-N`."""
        phase, writer = self._recipe.benign, Writer(self._tokenizer)
        with single_thread(), whole(folder) as beside:
            model = load(self._history / "aligned")
            guard = self._guard(arm, seed, material, writer)
            if guard is not None:
                guard.attach(model, self._tokenizer)

            def after(step: int, _: float) -> None:
                if step in self.steps:
                    save(model, self._tokenizer, beside / f"checkpoint-{step}")
                told(step, phase.steps)

            examples = [writer.lesson(lesson) for lesson in benign(self._world, seed=seed)]
            train(
                model,
                shuffled(examples, rows=phase.rows, steps=phase.steps, seed=seed, pad=writer.pad),
                Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor),
                guard=guard,
                on_step=after,
            )
        return folder

    def _guard(self, arm: str, seed: int, material: Run, writer: Writer) -> Guard | None:
        if arm == BASELINE:
            return None
        chosen = self._asked.layers or self._recipe.guard.layers
        vectors = material.direction("reversion")
        direction = GuardedDirection.from_vectors(vectors, layers_of(chosen, vectors, material.n_layers))
        effect = make_effect(mode_and_draw(arm)[0], material, direction, self._asked.options(arm, seed))
        asked = penalty_requests(self._world, harmful=arm != HARMLESS)
        ids = [writer.prompt(request) for request in asked]
        return Guard(effect, ids, rows=self._recipe.guard.rows, seed=seed, match=self._asked.match)


class LineageBench:
    """Trains arms of any lineage on a file of data, through the Trainer."""

    def __init__(
        self, file: Path, data: Path, asked: Experiment, probe: PromptSet | None, penalty: PromptSet | None
    ) -> None:
        """Read lineage and data; the last tenth of the data, at most 64 examples, is kept for the task's loss."""
        self.lineage = Lineage.load(file).model_copy(update={"trajectories": ()})
        task = read_task(data)
        kept = max(1, min(_HELD_OUT, len(task) // 10))
        self._task, self._asked, self._penalty = task[:-kept], asked, penalty
        self.probe = probe or default_prompts("probe")
        self.evaluation = Evaluation(default_prompts("evaluation"), task=task[-kept:])
        self._steps = asked.steps or 100
        self.about = {"lineage": str(file), "data": str(data), "task": len(task), "penalty": penalty and penalty.sha256}

    def train(self, arm: str, seed: int, material: Run, folder: Path, told: Told) -> Path:
        """One training; returns the folder of its `checkpoint-N`."""
        asked = self._asked
        training = Training(
            method=asked.method,
            steps=self._steps,
            learning_rate=asked.learning_rate,
            rows=asked.rows or 8,
            seed=seed,
            save_every=self._steps if asked.last else None,
        )

        def make(_: Path) -> ReversionGuard:
            mode = WATCH if arm == BASELINE else mode_and_draw(arm)[0]
            return ReversionGuard(
                material.path,
                mode=mode,
                penalty=self._penalty,
                layers=asked.layers,
                match=asked.match,
                options=asked.options(arm, seed),
                every=self._steps,
                arm=arm,
                seed=seed,
            )

        done = folder / CHECKPOINTS
        if not (done / f"checkpoint-{self._steps}" / "trainer_state.json").is_file():
            report: Report = lambda progress: told(progress.step, progress.steps)  # noqa: E731
            fine_tune(self.lineage.aligned, self._task, folder, training, make, {"arm": arm}, report=report)
        return done


def run_arms(
    history: Path,
    out: Path,
    asked: Experiment,
    *,
    data: Path | None = None,
    probe: PromptSet | None = None,
    penalty: PromptSet | None = None,
    report: Report = silent,
) -> Run:
    """Train every arm at every seed, measure and judge them all in one run folder.

    Args:
        history: the organism's history or a demo run that holds it; or, with `data`, a lineage file.
        out: run folder, new or of the same experiment.
        asked: what is trained.
        data: requests with answers.
        probe: probe prompts of a lineage.
        penalty: penalty prompts of a lineage.
        report: told where the work is.

    Raises:
        UsageError: neither a history nor a lineage with data, an unknown arm, or the folder holds another experiment.
    """
    arms = asked.chosen
    bench = _bench(history, data, asked, probe, penalty)
    settings = Settings(nulls=False)
    # More arms, seeds and draws go on with the same run; another training does not.
    fixed = {name: value for name, value in dataclasses.asdict(asked).items() if name not in ("arms", "seeds", "draws")}
    about = {**bench.about, **fixed}
    given = {"arms": json.loads(json.dumps(about))}
    _refuse_another(out, given)
    material = begin_run(out, bench.lineage, bench.probe, settings, given)
    # What earlier calls have trained in this run stays part of it.
    before = {(each.arm, each.seed): each for each in material.lineage.trajectories}
    runs = [(arm, seed) for arm in arms for seed in range(asked.seeds)]
    found: dict[tuple[str, int], Trajectory] = {}
    for number, (arm, seed) in enumerate(runs):
        if arm == "control:drift" and not any(each.arm == BASELINE for each in material.lineage.trajectories):
            known = bench.lineage.with_trajectories(
                tuple(each for (name, _), each in found.items() if name == BASELINE)
            )
            _measure(known, bench, out, given)
            material = Run(out)
        share = within(report, _TRAINING * number / len(runs), _TRAINING * (number + 1) / len(runs))
        found[arm, seed] = _trained(bench, arm, seed, material, out, found, share)
    every = {**before, **found}
    places = sorted(every, key=lambda each: (_in_order(each[0]), each[1]))
    lineage = bench.lineage.with_trajectories(tuple(every[place] for place in places))
    return _measure(lineage, bench, out, given, within(report, _TRAINING, 1.0), judged=True)


def _measure(
    lineage: Lineage,
    bench: OrganismBench | LineageBench,
    out: Path,
    given: Mapping[str, Any],
    report: Report = silent,
    *,
    judged: bool = False,
) -> Run:
    with Run.writing(out) as run:
        run.begin(lineage, Settings(nulls=False), given)
        write_stages(run, bench.probe, bench.evaluation if judged else None, report)
    return Run(out)


def _trained(
    bench: OrganismBench | LineageBench,
    arm: str,
    seed: int,
    material: Run,
    out: Path,
    found: Mapping[tuple[str, int], Trajectory],
    report: Report,
) -> Trajectory:
    """One arm at one seed, trained unless it is there."""
    folder = out / CHECKPOINTS / f"{arm.replace(':', '-')}-s{seed}"
    if arm in RESTORED:
        last = found[BASELINE, seed].checkpoints[-1]
        target = folder / f"checkpoint-{last.step}"
        if not target.is_dir():
            refs = Lineages(
                CheckpointRef(model=last.model, adapter=last.adapter), bench.lineage.aligned, bench.lineage.witness
            )
            restore(refs, target, form=RESTORED[arm])
        return Trajectory.from_folder(folder, arm=arm, seed=seed)
    told: Told = lambda step, steps: report(Progress(arm, step, steps, f"seed {seed}"))  # noqa: E731
    if isinstance(bench, LineageBench) or not folder.is_dir():
        folder = bench.train(arm, seed, material, folder, told)
    return Trajectory.from_folder(folder, arm=arm, seed=seed)


def _bench(
    history: Path, data: Path | None, asked: Experiment, probe: PromptSet | None, penalty: PromptSet | None
) -> OrganismBench | LineageBench:
    for folder in (history, history / CHECKPOINTS):
        if (folder / "history.json").is_file():
            return OrganismBench(folder, asked)
    if history.is_file() and data is not None:
        return LineageBench(history, data, asked, probe, penalty)
    raise UsageError(
        "There is nothing to train arms on",
        got=str(history),
        expected="the organism's history (or a demo run with its checkpoints), or a lineage file with --data",
        next_step="Make a history: gravity-probe demo --no-app.",
    )


def _refuse_another(out: Path, given: Mapping[str, Any]) -> None:
    if not (out / "run.json").is_file():
        return
    found = Run(out).manifest.config_given
    if found != given:
        raise UsageError(f"{out} holds another run", next_step="Give --out a new folder.")


def _recipe(raw: Mapping[str, Any]) -> Recipe:
    """A recipe as the history keeps it."""
    made: dict[str, Any] = dict(raw)
    made["size"] = Size(**raw["size"])
    for name in ("pretraining", "helpful", "alignment", "benign"):
        made[name] = Phase(**raw[name])
    made["guard"] = GuardSettings(**{**raw["guard"], "layers": tuple(raw["guard"]["layers"])})
    made["checkpoints"] = tuple(raw["checkpoints"])
    return Recipe(**made)


__all__ = ["BASELINE", "DRAWN", "EVERY_ARM", "Experiment", "mode_and_draw", "run_arms"]
