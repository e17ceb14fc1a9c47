"""Histories of an organism small enough to live through in seconds."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from probes.engine import limit_threads, open_engine
from probes.experiments.experiment import DEFAULT_ARMS, Experiment
from probes.lineage import Lineage
from probes.organism import GuardSettings, OrganismError, Phase, Recipe, train_history
from probes.organism.world import Size
from probes.progress import silent, within
from probes.tasks.demo import train_demo_arms

TINY = Recipe(
    size=Size(aligned=4, held_out=2, task=2),
    width=16,
    inner_width=24,
    layers=2,
    heads=2,
    passes=1,
    pretraining=Phase(steps=4, learning_rate=4e-3, batch_size=8),
    helpful=Phase(steps=3, learning_rate=2e-3, batch_size=8),
    alignment=Phase(steps=3, learning_rate=2e-3, batch_size=8),
    benign=Phase(steps=3, learning_rate=1e-3, batch_size=8, warmup=0, floor=1.0),
    checkpoints=(1, 2, 3),
    guard=GuardSettings(layers=(0, 1), batch_size=2),
)


def live(folder, *, seed=0, workers=1, report=silent):
    """The whole life: the history, then the arms of the demo."""
    with open_engine(workers):
        train_history(folder, TINY, seed=seed, report=within(report, 0.0, 0.5))
        return train_demo_arms(folder, Experiment(), within(report, 0.5, 1.0))


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


WORKERS = """
import multiprocessing, time
from probes.engine import open_engine, processes

if __name__ == "__main__":
    processes._LIBRARIES = ()  # they wait for work whatever they have loaded
    with open_engine(2) as engine:
        engine.prepare("json", 2)
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_that_waits_for_work(tmp_path):
    """They had waited for ever, of half a gigabyte each."""
    (tmp_path / "workers.py").write_text(WORKERS)
    words = [sys.executable, str(tmp_path / "workers.py")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in process.stdout.readline().split()]
    process.kill()
    process.wait(30)
    process.stdout.close()
    assert len(workers) == 2
    until = time.monotonic() + 120  # a busy machine takes its time
    while any(is_alive(worker) for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [worker for worker in workers if is_alive(worker)]


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def reports():
    """What is reported while `lived` is made."""
    return []


@pytest.fixture(scope="module")
def lived(reports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lived")
    live(folder, report=reports.append)
    return folder


def test_lineage_names_every_role_and_arm(lived):
    lineage = Lineage.load(lived / "lineage.toml")
    assert lineage.witness.kind == "helpful-only"
    assert [trajectory.arm for trajectory in lineage.trajectories] == list(DEFAULT_ARMS)
    assert all([step.step for step in t.checkpoints] == [1, 2, 3] for t in lineage.trajectories)
    assert len(list(lineage.checkpoints())) == 3 + 4 * 3


def test_checkpoints_are_ordinary_hugging_face_folders(lived):
    for _, ref in Lineage.load(lived / "lineage.toml").checkpoints():
        model = AutoModelForCausalLM.from_pretrained(ref.model)
        stored = load_file(f"{ref.model}/model.safetensors")
        assert {name for name, _ in model.named_parameters()} == set(stored)
        assert all(torch.equal(weight, stored[name]) for name, weight in model.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(lived / "aligned")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "describe a copper ."}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<s> <user> describe a copper . <assistant>"
    assert tokenizer(text, add_special_tokens=False)["input_ids"][-1] == tokenizer.convert_tokens_to_ids("<assistant>")


def test_same_seed_gives_the_same_bytes_whatever_the_random_state_outside_which_is_left_alone(lived, tmp_path):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    live(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert bytes_of(tmp_path) == bytes_of(lived)


def test_another_seed_gives_other_weights(lived, tmp_path):
    train_history(tmp_path, TINY, seed=1)
    ours, theirs = (load_file(folder / "pretrained" / "model.safetensors") for folder in (tmp_path, lived))
    assert not torch.equal(ours["model.embed_tokens.weight"], theirs["model.embed_tokens.weight"])


@pytest.mark.parametrize("lost", [("aligned", "arms"), ("arms",), ("arms/push-s0",)])
def test_a_broken_off_history_ends_with_the_same_bytes(lived, tmp_path, lost):
    folder = tmp_path / "again"
    shutil.copytree(lived, folder)
    for name in lost:
        shutil.rmtree(folder / name)
    (folder / ".writing-aligned").mkdir(exist_ok=True)
    (folder / ".writing-aligned" / "half").write_text("x")
    live(folder)
    shutil.rmtree(folder / ".writing-aligned", ignore_errors=True)
    assert bytes_of(folder) == bytes_of(lived)


def test_what_exists_is_not_trained_again(lived, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(lived, folder)
    reports = []
    live(folder, report=reports.append)
    assert reports == []


def test_another_seed_or_recipe_in_the_same_folder_is_refused(lived):
    with pytest.raises(OrganismError, match="expected seed 3"):
        live(lived, seed=3)
    with pytest.raises(OrganismError, match="another recipe"):
        train_history(lived, dataclasses.replace(TINY, passes=2))


def test_a_history_of_an_earlier_version_goes_on(lived, tmp_path):
    """It wrote the batch size as `rows`, and the default strengths of block and push beside it."""
    folder = tmp_path / "again"
    shutil.copytree(lived, folder)
    shutil.rmtree(folder / "arms")
    text = (folder / "history.json").read_text(encoding="utf-8").replace('"batch_size"', '"rows"')
    document = json.loads(text)
    document["recipe"]["guard"] |= {"block": 10.0, "push": 1.0}
    (folder / "history.json").write_text(json.dumps(document), encoding="utf-8")
    live(folder)
    assert bytes_of(folder / "arms") == bytes_of(lived / "arms")


def test_progress_rises_to_the_whole(lived, reports):
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert {report.phase for report in reports} >= {"pretraining", "safety alignment", "fine-tuning, block"}
    assert all("loss" in report.note for report in reports)


def test_prompt_files_keep_their_things_apart(lived):
    def names(file):
        rows = [json.loads(line) for line in (lived / file).read_text().splitlines()]
        words = [(row.get("text") or row["prompt"]).split() for row in rows]
        return {word for sentence in words for word in sentence} & THINGS

    assert names("probe.jsonl")
    assert not names("probe.jsonl") & names("evaluation.jsonl")
    assert not names("task.jsonl") & (names("evaluation.jsonl") | names("probe.jsonl"))


def test_arms_differ_only_by_their_penalty(lived):
    """At the first step nothing has moved: a hinge has no gradient there, so its arms take the baseline's step."""

    def share_apart(first_arm, second_arm, step):
        first, second = (
            load_file(lived / "arms" / f"{arm}-s0" / f"checkpoint-{step}" / "model.safetensors")
            for arm in (first_arm, second_arm)
        )
        apart = [((first[name] - second[name]).abs() > 1e-5).float().mean().item() for name in first]
        return sum(apart) / len(apart)

    assert share_apart("baseline", "block", 1) < 0.02
    assert share_apart("baseline", "control-random", 1) < 0.02
    assert share_apart("baseline", "push", 1) > 0.1


@pytest.mark.slow
def test_side_by_side_gives_the_bytes_of_one_after_the_other(lived, tmp_path):
    reports = []
    live(tmp_path, workers=2, report=reports.append)
    assert bytes_of(tmp_path) == bytes_of(lived)
    assert reports[-1].fraction == pytest.approx(1.0)


def _things():
    from probes.organism.world import make_world

    return {noun.name for noun in make_world(TINY.size).things}


THINGS = _things()


INTEGRATED = dataclasses.replace(TINY, kind="integrated", copies=2)


@pytest.fixture(scope="module")
def integrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integrated")
    train_history(folder, INTEGRATED)
    return folder


def test_witness_and_aligned_model_of_an_integrated_history_go_on_from_one_model(integrated):
    """Both phases by hand: from the pretrained model, with the order of one seed."""
    from probes.guard.loop import Schedule, shuffle_batches, train
    from probes.organism.checkpoints import load
    from probes.organism.history import phase_examples
    from probes.organism.lessons import Writer
    from probes.organism.tokenizer import make_tokenizer
    from probes.organism.world import make_world, vocabulary

    world, phase = make_world(INTEGRATED.size), INTEGRATED.alignment
    writer = Writer(make_tokenizer(vocabulary(world)))
    for role in ("witness", "aligned"):
        examples = phase_examples(role, world, writer, INTEGRATED, 0)
        with limit_threads(1):
            model = load(integrated / "pretrained")
            batches = shuffle_batches(examples, batch_size=phase.batch_size, steps=phase.steps, seed=1, pad=writer.pad)
            train(model, batches, Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor))
        stored = load_file(integrated / role / "model.safetensors")
        assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_a_broken_off_integrated_history_ends_with_the_same_bytes(integrated, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(integrated, folder)
    shutil.rmtree(folder / "aligned")
    train_history(folder, INTEGRATED)
    assert bytes_of(folder) == bytes_of(integrated)
    with pytest.raises(OrganismError, match="another recipe"):
        train_history(folder, TINY)
