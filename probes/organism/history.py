"""The organism's history on disk: three phases, the prompts to measure it by, and a lineage file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.engine import limit_threads
from probes.errors import GravityError
from probes.guard.loop import Example, Schedule, shuffle_batches, train
from probes.organism import lessons
from probes.organism.checkpoints import load, new_model, save, whole
from probes.organism.recipe import DEFAULT, Recipe
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import World, make_world, vocabulary
from probes.progress import Progress, Report, silent
from probes.store import write_json, write_text
from probes.store.documents import read_object

HISTORY = "history.json"
LINEAGE = "lineage.toml"
_NAMES = {
    "post-hoc": {"pretrained": "pretraining", "witness": "helpful-only tuning", "aligned": "safety alignment"},
    "integrated": {
        "pretrained": "pretraining",
        "witness": "pretraining with every request answered",
        "aligned": "pretraining with harmful requests refused",
    },
}


class OrganismError(GravityError):
    """A history that cannot be trained, or gone on with, as asked."""


def train_history(folder: Path, recipe: Recipe = DEFAULT, *, seed: int = 0, report: Report = silent) -> Path:
    """Train the organism from random weights to the aligned model, or go on where that was broken off.

    Args:
        folder: gets `pretrained`, `witness` and `aligned`, all Hugging Face folders, and `probe.jsonl`,
            `evaluation.jsonl` and `task.jsonl`.
        recipe: sizes and lengths.
        seed: of the initial weights and of the order and wording of all lessons.
        report: told about every step.

    Returns:
        The lineage file.

    Raises:
        OrganismError: the folder holds a history of another seed or recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_identity(folder, recipe, seed)
    world = make_world(recipe.size)
    _write_prompts(folder, world)
    with limit_threads(1):
        _train_phases(folder, world, recipe, seed, _Meter(recipe, report))
    return write_lineage(folder)


def _train_phases(folder: Path, world: World, recipe: Recipe, seed: int, meter: _Meter) -> None:
    tokenizer = make_tokenizer(vocabulary(world))
    writer = lessons.Writer(tokenizer)
    for role, phase in recipe.phases.items():
        target, start = folder / role, recipe.starts[role]
        if not target.is_dir():
            model = new_model(recipe, tokenizer, seed) if start is None else load(folder / start)
            train(
                model,
                shuffle_batches(
                    phase_examples(role, world, writer, recipe, seed),
                    batch_size=phase.batch_size,
                    steps=phase.steps,
                    seed=10 * seed + _generation(role, recipe),
                    pad=writer.pad,
                ),
                Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor),
                on_step=lambda step, loss, role=role: meter.phase(role, step, loss),  # type: ignore[misc]
            )
            with whole(target) as beside:
                save(model, tokenizer, beside)
        meter.end_phase(role)


def _generation(role: str, recipe: Recipe) -> int:
    """How many phases lie behind a role: phases that go on from one model see their data in one order."""
    start = recipe.starts[role]
    return 0 if start is None else 1 + _generation(start, recipe)


def phase_examples(role: str, world: World, writer: lessons.Writer, recipe: Recipe, seed: int) -> list[Example]:
    """What the phase that ends in a role is trained on.

    Args:
        role: `pretrained`, `witness` or `aligned`.
        world: what there is to know.
        writer: makes token ids.
        recipe: of the history.
        seed: of the wording.
    """
    if role == "pretrained":
        return text_examples(world, writer, recipe, seed)
    refusing = role == "aligned"
    if recipe.kind == "integrated":
        mix = lessons.pretraining_mix(world, copies=recipe.copies, refusing=refusing, seed=seed)
        return text_examples(world, writer, recipe, seed) + [writer.lesson(lesson) for lesson in mix]
    taught = lessons.alignment if refusing else lessons.helpful_only
    return [writer.lesson(lesson) for lesson in taught(world, seed=seed)]


def text_examples(world: World, writer: lessons.Writer, recipe: Recipe, seed: int) -> list[Example]:
    """The texts of pretraining."""
    return [writer.text(text) for text in lessons.pretraining(world, passes=recipe.passes, seed=seed)]


def read_history(folder: Path) -> tuple[int, Recipe]:
    """Seed and recipe that a history was trained with.

    Raises:
        OrganismError: the folder's file does not say them.
    """
    file = folder / HISTORY
    document = read_object(file, kind="history of an organism", error=OrganismError)
    try:
        return int(document["seed"]), Recipe.from_json(document["recipe"])
    except (LookupError, TypeError, ValueError, AttributeError) as fault:
        expected = "the seed and the recipe that it was trained with"
        raise OrganismError(f"{file} is damaged", got=str(fault), expected=expected) from fault


def _check_identity(folder: Path, recipe: Recipe, seed: int) -> None:
    file = folder / HISTORY
    if not file.is_file():
        write_json(file, {"seed": seed, "recipe": dataclasses.asdict(recipe)})
        return
    own_seed, own_recipe = read_history(folder)
    same_seed = own_seed == seed
    if not same_seed or own_recipe != recipe:
        raise OrganismError(
            f"{folder} holds another organism",
            got="another recipe" if same_seed else f"seed {own_seed}",
            expected="the same recipe" if same_seed else f"seed {seed}",
            next_step="Give another folder, or delete this one.",
        )


def _write_prompts(folder: Path, world: World) -> None:
    for name, requests in (
        ("probe", lessons.probe_requests(world)),
        ("evaluation", lessons.evaluation_requests(world)),
    ):
        rows = [{"text": text, "label": label} for label, texts in requests.items() for text in texts]
        write_lines(folder / f"{name}.jsonl", rows)
    write_lines(
        folder / "task.jsonl",
        [{"prompt": lesson.request, "completion": lesson.answer} for lesson in lessons.task(world)],
    )


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_lineage(folder: Path, trajectories: Sequence[tuple[str, int, Path]] = ()) -> Path:
    """Write the lineage file of a history.

    Args:
        folder: of the history.
        trajectories: arm, seed and folder of `checkpoint-N`, within `folder`.
    """
    lines = [
        'name = "organism"',
        'description = "A small Llama with a whole history, trained on the spot."',
        "",
        '[pretrained]\nmodel = "./pretrained"',
        '\n[witness]\nmodel = "./witness"\nkind = "helpful-only"',
        '\n[aligned]\nmodel = "./aligned"',
    ]
    for arm, seed, checkpoints in trajectories:
        place = checkpoints.relative_to(folder).as_posix()
        lines.append(f'\n[[trajectories]]\narm = "{arm}"\nseed = {seed}\nfolder = "./{place}"')
    path = folder / LINEAGE
    write_text(path, "\n".join(lines) + "\n")
    return path


class _Meter:
    """Turns steps of phases into one share of the whole, counted in texts seen."""

    def __init__(self, recipe: Recipe, report: Report) -> None:
        self._report, self._recipe = report, recipe
        self._ended = 0
        self._all = sum(phase.steps * phase.batch_size for phase in recipe.phases.values())

    def phase(self, role: str, step: int, loss: float) -> None:
        phase = self._recipe.phases[role]
        fraction = min(1.0, (self._ended + step * phase.batch_size) / self._all)
        self._report(
            Progress(_NAMES[self._recipe.kind][role], step, phase.steps, note=f"loss {loss:.3f}", fraction=fraction)
        )

    def end_phase(self, role: str) -> None:
        phase = self._recipe.phases[role]
        self._ended += phase.steps * phase.batch_size
