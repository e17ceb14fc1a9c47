"""The organism's whole life on disk: three phases, then the arms, the prompts to measure it by, and a lineage file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from probes.errors import GravityError
from probes.guard.loop import Example, Schedule, shuffled, train
from probes.organism import lessons
from probes.organism.arms import ARMS, arm_folder
from probes.organism.checkpoints import load, new_model, save, single_thread, whole
from probes.organism.crew import Crew
from probes.organism.recipe import DEFAULT, QUICK_RECIPE, Recipe
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import World, make_world, vocabulary
from probes.progress import Progress, Report, silent
from probes.store import write_json

LINEAGE = "lineage.toml"
_IDENTITY = "history.json"
_NAMES = {"pretrained": "pretraining", "witness": "helpful-only tuning", "aligned": "safety alignment"}


class OrganismError(GravityError):
    """A history that cannot be trained, or gone on with, as asked."""


def train_history(
    folder: Path,
    *,
    seed: int = 0,
    arm_seeds: Sequence[int] = (0,),
    quick: bool = False,
    progress: Report | None = None,
    recipe: Recipe | None = None,
    processes: int = 2,
) -> Path:
    """Train the organism from random weights to the end of every arm, or go on where that was broken off.

    Args:
        folder: gets `pretrained`, `witness`, `aligned` and `arms/<arm>-s<seed>/checkpoint-N`, all Hugging Face
            folders, and `probe.jsonl`, `evaluation.jsonl`, `task.jsonl`.
        seed: of the initial weights and of the order and wording of all lessons up to the aligned model.
        arm_seeds: one fine-tuning run of each arm for each; all arms of a seed see the same data in the same order.
        quick: fewer steps, the same stages.
        progress: told about every step.
        recipe: sizes and lengths, in place of the default and of `quick`.
        processes: how many arms train at a time; 1 trains them here.

    Returns:
        The lineage file.

    Raises:
        OrganismError: the folder holds a history of another seed or recipe.
    """
    recipe = recipe or (QUICK_RECIPE if quick else DEFAULT)
    folder.mkdir(parents=True, exist_ok=True)
    _check_identity(folder, {"seed": seed, "recipe": json.loads(json.dumps(dataclasses.asdict(recipe)))})
    world = make_world(recipe.size)
    _write_prompts(folder, world)
    runs = [(arm, arm_seed) for arm_seed in arm_seeds for arm in ARMS]
    meter = _Meter(recipe, len(runs), progress or silent)
    # The crew starts now: its processes load torch on the second core while the phases train on the first.
    with Crew(folder, recipe, [run for run in runs if not arm_folder(folder, *run).is_dir()], processes) as crew:
        with single_thread():
            _train_phases(folder, world, recipe, seed, meter)
        meter.skip_arms(len(runs) - len(crew.runs))
        crew.work(meter.arm)
    return _write_lineage(folder, runs)


def _train_phases(folder: Path, world: World, recipe: Recipe, seed: int, meter: _Meter) -> None:
    tokenizer = make_tokenizer(vocabulary(world))
    writer = lessons.Writer(tokenizer)
    before: Path | None = None
    for place, (role, phase) in enumerate(recipe.phases.items()):
        target = folder / role
        if not target.is_dir():
            model = new_model(recipe, tokenizer, seed) if before is None else load(before)
            train(
                model,
                shuffled(
                    _examples(role, world, writer, recipe, seed),
                    rows=phase.rows,
                    steps=phase.steps,
                    seed=10 * seed + place,
                    pad=writer.pad,
                ),
                Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor),
                on_step=lambda step, loss, role=role: meter.phase(role, step, loss),  # type: ignore[misc]
            )
            with whole(target) as beside:
                save(model, tokenizer, beside)
        meter.end_phase(role)
        before = target


def _examples(role: str, world: World, writer: lessons.Writer, recipe: Recipe, seed: int) -> list[Example]:
    if role == "pretrained":
        return [writer.text(text) for text in lessons.pretraining(world, passes=recipe.passes, seed=seed)]
    taught = lessons.helpful_only if role == "witness" else lessons.alignment
    return [writer.lesson(lesson) for lesson in taught(world, seed=seed)]


def _check_identity(folder: Path, identity: dict[str, Any]) -> None:
    file = folder / _IDENTITY
    if not file.is_file():
        write_json(file, identity)
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    if found != identity:
        same_seed = found.get("seed") == identity["seed"]
        raise OrganismError(
            f"{folder} holds another organism",
            got="another recipe (quick or not)" if same_seed else f"seed {found.get('seed')}",
            expected="the same recipe" if same_seed else f"seed {identity['seed']}",
            next_step="Give another folder, or delete this one.",
        )


def _write_prompts(folder: Path, world: World) -> None:
    for name, asked in (
        ("probe", lessons.probe_requests(world)),
        ("evaluation", lessons.evaluation_requests(world)),
    ):
        rows = [{"text": text, "label": label} for label, texts in asked.items() for text in texts]
        _write_lines(folder / f"{name}.jsonl", rows)
    _write_lines(
        folder / "task.jsonl",
        [{"prompt": lesson.request, "completion": lesson.answer} for lesson in lessons.task(world)],
    )


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _write_lineage(folder: Path, runs: Sequence[tuple[str, int]]) -> Path:
    lines = [
        'name = "organism"',
        'description = "A small Llama with a whole history, trained on the spot."',
        "",
        '[pretrained]\nmodel = "./pretrained"',
        '\n[witness]\nmodel = "./witness"\nkind = "helpful-only"',
        '\n[aligned]\nmodel = "./aligned"',
    ]
    for arm, seed in runs:
        where = arm_folder(folder, arm, seed).relative_to(folder).as_posix()
        lines.append(f'\n[[trajectories]]\narm = "{arm}"\nseed = {seed}\nfolder = "./{where}"')
    path = folder / LINEAGE
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class _Meter:
    """Turns steps of phases and arms into one share of the whole, counted in rows of text seen."""

    def __init__(self, recipe: Recipe, arms: int, report: Report) -> None:
        self._report, self._recipe = report, recipe
        self._ended = 0
        self._step_rows = recipe.benign.rows + recipe.guard.rows
        self._arm_rows = recipe.benign.steps * self._step_rows
        self._arm_steps: dict[tuple[str, int], int] = {}
        self._skipped = 0
        self._all = sum(phase.steps * phase.rows for phase in recipe.phases.values()) + arms * self._arm_rows

    def phase(self, role: str, step: int, loss: float) -> None:
        phase = self._recipe.phases[role]
        self._send(_NAMES[role], step, phase.steps, loss, self._ended + step * phase.rows)

    def end_phase(self, role: str) -> None:
        phase = self._recipe.phases[role]
        self._ended += phase.steps * phase.rows

    def skip_arms(self, count: int) -> None:
        self._skipped = count * self._arm_rows

    def arm(self, arm: str, seed: int, step: int, loss: float) -> None:
        steps = self._recipe.benign.steps
        self._arm_steps[arm, seed] = step
        seen = sum(self._arm_steps.values()) * self._step_rows
        self._send(f"fine-tuning, {arm}", step, steps, loss, self._ended + self._skipped + seen)

    def _send(self, phase: str, step: int, steps: int, loss: float, rows: int) -> None:
        self._report(Progress(phase, step, steps, note=f"loss {loss:.3f}", fraction=min(1.0, rows / self._all)))
