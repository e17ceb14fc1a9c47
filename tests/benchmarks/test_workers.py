"""What a second worker gains on a study, and what a thousand checkpoints cost the process that drives them.

GRAVITY_DEMO=FOLDER pytest tests/benchmarks/test_workers.py --benchmark-enable -n 0, where FOLDER is a whole
`gravity-probe demo --no-app`. A ratio of times by the wall: on a machine that does nothing else. GRAVITY_SMALL=1 does a
small part of it, to see that it works.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import save_file

from probes.behaviour.evaluation import Evaluation
from probes.engine import Engine, open_engine
from probes.lineage import CheckpointRef, Lineage, Trajectory, Witness
from probes.organism.world import Thing, make_world, politely, requests
from probes.progress import silent
from probes.prompts import PromptSet
from probes.run import Run
from probes.stages.roles import write_roles
from probes.store.settings import Settings
from probes.tasks.evaluate import Asking, evaluate
from probes.tasks.measure import measure
from tests.benchmarks.test_extraction import Report
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.memory import peak_memory, reset_peak, resident_memory

DEMO = os.environ.get("GRAVITY_DEMO")
SMALL = bool(os.environ.get("GRAVITY_SMALL"))
CHECKPOINTS, SHAMS = (4, 19) if SMALL else (24, 39)
# Prompts, and questions: the demo's own, and twice as many, which a study on real requests has at least.
SIZES = (32,) if SMALL else (128, 256)
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PROMPTS = PromptSet.of(
    [f"break lock {index:02d}" for index in range(16)] + [f"paint door {index:02d}" for index in range(16)],
    ["harmful"] * 16 + ["harmless"] * 16,
)
FEW, MANY = (25, 100) if SMALL else (250, 1000)


class TimedEngine(Engine):
    """Knows how long it was asked to do tasks: what can be split."""

    seconds = 0.0

    def complete(self, tasks, report=silent):
        """As any engine."""
        start = time.perf_counter()
        yield from super().complete(tasks, report)
        self.seconds += time.perf_counter() - start


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


def time_study(checkpoints: Path, out: Path, workers: int, size: int) -> tuple[float, float, float]:
    """Seconds of the whole study, of those in which tasks were done, and of this process's processor."""
    lineage, world = organism(checkpoints), make_world()
    prompts = both_labels(world.harmful("aligned"), world.useful("aligned"), size)
    questions = both_labels(world.harmful("held_out"), world.useful("held_out"), size)
    start, processor = time.perf_counter(), time.process_time()
    engine = open_engine(workers)
    engine.__class__ = TimedEngine
    with engine:
        measure(lineage, prompts, out, Settings(shams=SHAMS))
        evaluate(out, Evaluation(questions, max_new_tokens=16), Asking())
    return time.perf_counter() - start, engine.seconds, time.process_time() - processor


@pytest.mark.skipif(DEMO is None, reason="GRAVITY_DEMO names no folder of a whole demo run")
@pytest.mark.parametrize("size", SIZES)
def test_two_workers_beside_one(size: int, tmp_path: Path, report: Report) -> None:
    checkpoints, times = Path(str(DEMO)) / "checkpoints", []
    for workers in (1, 2):
        # A process of its own, as a command has one: neither finds the libraries loaded, nor a neighbour's activations.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            out = tmp_path / str(workers) / "run"
            times.append(alone.submit(time_study, checkpoints, out, workers, size).result())
    whole, split, own = zip(*times, strict=True)
    study = f"study of {CHECKPOINTS} checkpoints and {SHAMS} shams, {size} prompts and {size} questions"
    report(f"{study} ({whole[0]:.0f} s): one worker ÷ two", f"{whole[0] / whole[1]:.2f}", "≥ 1.8")
    report(f"of it, what can be split ({split[0]:.0f} s): one worker ÷ two", f"{split[0] / split[1]:.2f}", "")
    report(f"the command's own processor time, two workers; {own[0]:.0f} s with one", f"{own[1]:.1f} s", "")
    for name in ("drift", "nulls", "shams", "weight_drift", "completions", "contrasts"):
        first, second = (Run(tmp_path / str(n) / "run").read_table(name) for n in (1, 2))
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
