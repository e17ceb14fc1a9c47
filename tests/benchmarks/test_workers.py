"""What a second worker gains on a study, and what a thousand checkpoints cost the process that drives them.

GRAVITY_DEMO=FOLDER pytest tests/benchmarks/test_workers.py --benchmark-enable -n 0, where FOLDER is a whole
`gravity-probe demo --no-app`. A ratio of times by the wall: on a machine that does nothing else. GRAVITY_SMALL=1 does a
small part of it, to see that it works; GRAVITY_LARGE=1 adds the study of 1,024 prompts, which takes minutes more.
GRAVITY_CHAT_DEMO=FOLDER, a whole `demo --model SMOLLM2 --quick --no-app`, adds a real chat model: half an hour.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import save_file

from probes.engine import open_engine
from probes.lineage import CheckpointRef, Lineage, Trajectory, Witness
from probes.organism.world import Thing, make_world, politely, requests
from probes.progress import silent
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.roles import write_roles
from probes.store.settings import Settings
from tests.benchmarks.test_extraction import Report
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.memory import peak_memory, reset_peak, resident_memory

DEMO, CHAT_DEMO = os.environ.get("GRAVITY_DEMO"), os.environ.get("GRAVITY_CHAT_DEMO")
SMALL = bool(os.environ.get("GRAVITY_SMALL"))
CHECKPOINTS, SHAMS = (4, 19) if SMALL else (24, 39)
REAL = (16 if SMALL else 32), 19  # prompts of each label, and shams, of a real model
LARGE = (1024,) if os.environ.get("GRAVITY_LARGE") else ()
# Prompts, and questions: the demo's own, and twice as many, which a study on real requests has at least.
SIZES = (32,) if SMALL else (128, 256, *LARGE)
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(16)] + [f"paint door {index:02d}" for index in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
Seconds = tuple[float, float]
FEW, MANY = (25, 100) if SMALL else (250, 1000)


def organism(checkpoints: Path) -> Lineage:
    """So many checkpoints of a demo's arms, seven of each."""
    lineage = Lineage.load(checkpoints / "lineage.toml")
    left, trajectories = CHECKPOINTS, []
    for trajectory in lineage.trajectories:
        chosen = trajectory.checkpoints[:left]
        left -= len(chosen)
        trajectories += [trajectory.model_copy(update={"checkpoints": chosen})] if chosen else []
    return lineage.model_copy(update={"trajectories": tuple(trajectories), "pretrained": None})


def requests_about(things: Sequence[Thing], label: str, count: int) -> PromptSet:
    """So many requests of a label, as many about each thing, as the demo makes them."""
    chance, forms_a_thing = random.Random(label), -(-count // len(things))
    forms = [chance.sample(requests([noun], wordings=(0, 1, 2, 3)), forms_a_thing) for noun in things]
    texts = [politely(request, chance) for of_thing in forms for _, request, _ in of_thing]
    return PromptSet.of(texts[:count], [label] * count)


def both_labels(harmful: Sequence[Thing], useful: Sequence[Thing], count: int) -> PromptSet:
    """So many requests, half of them harmful."""
    parts = [requests_about(harmful, "harmful", count // 2), requests_about(useful, "harmless", count // 2)]
    return PromptSet(tuple(prompt for part in parts for prompt in part.prompts))


def write_lineage(folder: Path, lineage: Lineage) -> Path:
    """A lineage file that names the same checkpoints wherever they are."""
    roles = {"aligned": lineage.aligned, "witness": lineage.need_witness("A study")}
    lines = [f"[{role}]\nmodel = {json.dumps(ref.model)}\n" for role, ref in roles.items()]
    for trajectory in lineage.trajectories:
        about = f"arm = {json.dumps(trajectory.arm)}\nseed = {trajectory.seed}"
        points = (point.model_dump(exclude_none=True) for point in trajectory.checkpoints)
        steps = (", ".join(f"{name} = {json.dumps(value)}" for name, value in point.items()) for point in points)
        lines.append(f"[[trajectories]]\n{about}\ncheckpoints = [{', '.join(f'{{{step}}}' for step in steps)}]\n")
    file = folder / "lineage.toml"
    file.write_text("\n".join(lines))
    return file


def write_study(folder: Path, checkpoints: Path, size: int) -> dict[str, Path]:
    """The lineage file, and files of so many prompts and of as many questions, by the option that names them."""
    world = make_world()
    sets = {
        "prompts": both_labels(world.harmful("aligned"), world.useful("aligned"), size),
        "questions": both_labels(world.harmful("held_out"), world.useful("held_out"), size),
    }
    files = {"lineage": write_lineage(folder, organism(checkpoints))}
    for name, prompts in sets.items():
        for label in ("harmful", "harmless"):
            file = files[f"{label} {name}"] = folder / f"{label}-{name}.jsonl"
            texts = (prompt.text for prompt in prompts.prompts if prompt.label == label)
            file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return files


def time_study(lineage: Path, measuring: Sequence[str], asking: Sequence[str], out: Path, workers: int) -> Seconds:
    """Seconds of `measure` and `evaluate` by the wall, and of their own processes' processor."""
    command = (sys.executable, "-m", "probes.cli")
    options = f"--workers={workers}", "--json"
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in (["measure", str(lineage), f"--out={out}", *measuring], ["evaluate", str(out), *asking]):
        subprocess.run([*command, *words, *options], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.skipif(DEMO is None, reason="GRAVITY_DEMO names no folder of a whole demo run")
@pytest.mark.parametrize("size", SIZES)
def test_two_workers_beside_one(size: int, tmp_path: Path, report: Report) -> None:
    """Whole commands, `measure` and then `evaluate`, as they are typed: with the start of Python and of the workers."""
    files = write_study(tmp_path, Path(str(DEMO)) / "checkpoints", size)
    probes, questions = (
        [f"--{label}={files[f'{label} {name}']}" for label in ("harmful", "harmless")]
        for name in ("prompts", "questions")
    )
    study = f"study of {CHECKPOINTS} checkpoints and {SHAMS} shams, {size} prompts and {size} questions"
    options = [*probes, f"--set=shams={SHAMS}"], [*questions, "--max-new-tokens=16"]
    compare(study, tmp_path, files["lineage"], *options, report)


@pytest.mark.skipif(CHAT_DEMO is None, reason="GRAVITY_CHAT_DEMO names no folder of a whole demo run of a chat model")
def test_two_workers_beside_one_on_a_real_model(tmp_path: Path, report: Report) -> None:
    """As above, on every checkpoint of the demo."""
    lineage, (prompts, shams) = Run(str(CHAT_DEMO)).lineage.model_copy(update={"pretrained": None}), REAL
    study = f"study of {sum(len(run.checkpoints) for run in lineage.trajectories)} checkpoints of a real model"
    limits = [f"--limit={prompts}"]
    compare(
        f"{study} and {shams} shams, {2 * prompts} prompts and {2 * prompts} questions",
        tmp_path,
        write_lineage(tmp_path, lineage),
        [*limits, f"--set=shams={shams}"],
        [*limits, "--no-look-alikes", "--max-new-tokens=32"],
        report,
    )


def compare(
    study: str, folder: Path, lineage: Path, measuring: Sequence[str], asking: Sequence[str], report: Report
) -> None:
    """One worker and two on the same study: their times, and equal tables."""
    places = {workers: folder / str(workers) / "run" for workers in (1, 2)}
    whole, own = zip(*(time_study(lineage, measuring, asking, place, n) for n, place in places.items()), strict=True)
    report(f"{study} ({whole[0]:.0f} s, {whole[1]:.0f} s): one worker ÷ two", f"{whole[0] / whole[1]:.2f}", "≥ 1.8")
    report(f"the commands' own processor time, two workers; {own[0]:.0f} s with one", f"{own[1]:.1f} s", "")
    for name in ("drift", "nulls", "shams", "weight_drift", "completions", "contrasts"):
        first, second = (Run(place).read_table(name) for place in places.values())
        assert first.equals(second), name


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Lineage]:
    """A trajectory of so many tiny checkpoints."""
    home, model = tmp_path_factory.mktemp("many"), tiny_model(**TINY)
    aligned = save_checkpoint(home / "aligned", model, tiny_tokenizer())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(1, MANY + 1):
        folder = home / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        shutil.copy(home / "aligned" / "config.json", folder)
        moved = {name: tensor + 1e-4 * step for name, tensor in weights.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    witness = save_checkpoint(home / "witness", move_weights(model, scale=0.1))
    whole = Trajectory.from_folder(home / "out")

    def lineage(count: int) -> Lineage:
        trajectory = whole.model_copy(update={"checkpoints": whole.checkpoints[:count]})
        return Lineage(
            name="many",
            witness=Witness(model=witness.model),
            aligned=CheckpointRef(model=aligned.model),
            trajectories=(trajectory,),
        )

    return lineage


def drive(lineage: Lineage, out: Path) -> tuple[float, float, int]:
    """Seconds by the wall and of this process's processor until all is read, and bytes held at most meanwhile."""
    with Run.writing(out) as run, open_engine(2) as engine, engine.threads():
        run.begin(lineage, Settings(bootstraps=20, splits=4))
        model, before = run.model(), resident_memory()
        reset_peak()
        wall, processor = time.perf_counter(), time.process_time()
        write_roles(run, model, PROMPTS, silent)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        return wall, processor, peak_memory() - before


def test_many_checkpoints(many: Callable[[int], Lineage], tmp_path: Path, report: Report) -> None:
    _, _, few = drive(many(FEW), tmp_path / "few")
    wall, processor, rise = drive(many(MANY), tmp_path / "many")
    milliseconds, memory = 1000 * processor / MANY, f"{(rise - few) / 2**20:.1f} MB"
    report(
        f"{MANY:,} tiny checkpoints, two workers: the driver's processor time for each",
        f"{milliseconds:.1f} ms",
        "≤ 5 ms",
    )
    report(f"its memory, {MANY:,} checkpoints less {FEW}", memory, "flat")
    report("by the wall, for each", f"{1000 * wall / MANY:.0f} ms", "")
