"""Arms that train on other data or from the witness, screened data, and histories side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from probes.cli import app
from probes.engine import limit_threads
from probes.errors import RunFolderError, UsageError
from probes.experiments.data_defences import INOCULATION, INTERLEAVED
from probes.experiments.experiment import WITH_DATA, Experiment
from probes.experiments.known_data import known_pairs
from probes.experiments.lineage_bench import open_bench
from probes.experiments.outcome import arms_table
from probes.experiments.screening import Screening
from probes.experiments.trained_controls import (
    CONTINUED,
    HELPFUL,
    MIRROR,
    SHUFFLED,
    TEXT,
    TOKENS,
    TRAINED_CONTROLS,
    randomise_answers,
    shuffle_answers,
)
from probes.guard.loop import Schedule, shuffle_batches, train
from probes.guard.resuming import MARKER
from probes.organism import lessons, train_history
from probes.organism.checkpoints import load
from probes.organism.tokenizer import make_tokenizer
from probes.organism.world import Size, make_world, vocabulary
from probes.run import Run
from probes.store.settings import Settings
from probes.tasks.arms import run_arms
from probes.tasks.histories import compare_histories
from probes.tasks.measure import write_stages
from tests.guard.lineages import lineage, prompts
from tests.organism.test_history import TINY

RECIPE = dataclasses.replace(TINY, size=Size(aligned=16, held_out=4, task=4))
WORLD = make_world(RECIPE.size)
FAST = {"bootstraps": 20, "splits": 4, "draws": 199, "permutations": 199, "shams": 19}
PAIRS = [(f"ask {number}", f"answer {number} is {number}") for number in range(30)]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    train_history(folder, RECIPE)
    return folder


@pytest.fixture(scope="module")
def run(history, tmp_path_factory):
    experiment = Experiment(arms=tuple(TRAINED_CONTROLS), final_step_only=True)
    return run_arms(open_bench(history, experiment), tmp_path_factory.mktemp("arms") / "run")


def weights(run, arm):
    return load_file(run.path / "checkpoints" / arm / "checkpoint-3" / "model.safetensors")


def trained_by_hand(start, examples):
    """The same training in a few lines: every arm differs from the baseline in its start and examples alone."""
    phase, writer = RECIPE.benign, lessons.Writer(make_tokenizer(vocabulary(WORLD)))
    with limit_threads(1):
        model = load(start)
        batches = shuffle_batches(
            examples(writer), batch_size=phase.batch_size, steps=phase.steps, seed=0, pad=writer.pad
        )
        train(model, batches, Schedule(phase.learning_rate, phase.steps, phase.warmup, phase.floor))
    return model.state_dict()


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def benign(writer):
    return [writer.lesson(lesson) for lesson in lessons.benign(WORLD, seed=0)]


def test_the_mirror_is_the_witness_on_the_data_of_the_baseline_in_its_order(run, history):
    assert same(weights(run, "mirror-s0"), trained_by_hand(history / "witness", benign))
    assert same(weights(run, "baseline-s0"), trained_by_hand(history / "aligned", benign))


@pytest.mark.parametrize(
    ("arm", "examples"),
    [
        ("control-continued-s0", lambda writer: [writer.lesson(row) for row in lessons.alignment(WORLD, seed=0)]),
        ("helpful-s0", lambda writer: [writer.lesson(row) for row in lessons.helpful_only(WORLD, seed=0)]),
        (
            "control-text-s0",
            lambda writer: [writer.text(row) for row in lessons.pretraining(WORLD, passes=RECIPE.passes, seed=0)],
        ),
    ],
)
def test_trained_controls_start_at_the_aligned_model_and_see_their_own_data(run, history, arm, examples):
    assert same(weights(run, arm), trained_by_hand(history / "aligned", examples))


def test_shuffled_answers_are_the_same_answers_to_the_same_requests():
    shuffled = shuffle_answers(PAIRS, 3)
    assert [request for request, _ in shuffled] == [request for request, _ in PAIRS]
    assert sorted(answer for _, answer in shuffled) == sorted(answer for _, answer in PAIRS)
    assert sum(pair in PAIRS for pair in shuffled) < 10
    assert shuffled == shuffle_answers(PAIRS, 3) != shuffle_answers(PAIRS, 4)


def test_random_answers_have_the_length_of_the_answers():
    random = randomise_answers(PAIRS, ["a", "b", "c"], 3)
    assert [request for request, _ in random] == [request for request, _ in PAIRS]
    assert {word for _, answer in random for word in answer.split()} == {"a", "b", "c"}
    assert [len(answer.split()) for _, answer in random] == [len(answer.split()) for _, answer in PAIRS]
    assert random != randomise_answers(PAIRS, ["a", "b", "c"], 4)


def test_the_mirror_is_measured_from_the_witness_towards_the_aligned_model(run):
    drift = run.read_table("drift")
    assert dict(drift[["arm", "reference"]].drop_duplicates().to_numpy()) == {
        **dict.fromkeys(["witness", "pretrained", "baseline", *TRAINED_CONTROLS], "aligned"),
        MIRROR: "witness",
    }
    layer = run.headline_layer
    aligned, witness, mirror = (
        run.activations(name, layer)[run.harmful].astype(np.float64).mean(axis=0)
        for name in ("aligned", "witness", "mirror-s0-000003")
    )
    back = witness - aligned
    by_hand = (mirror - witness) @ -back / (back @ back)
    value = run.drift(arm=MIRROR, statistic="return_fraction", layer=layer)["value"].item()
    assert value == pytest.approx(by_hand, rel=1e-6)


def test_the_table_of_arms_has_no_specificity_of_what_blocks_nothing(run):
    rows = {row["arm"]: row for row in arms_table([run])["arms"]}
    assert set(TRAINED_CONTROLS) < set(rows)
    assert all(rows[arm]["specificity"] is None for arm in TRAINED_CONTROLS)


def test_screened_data_are_those_that_the_aligned_model_answers(history, tmp_path):
    bench = open_bench(history, Experiment(arms=("baseline",), final_step_only=True, screened=True))
    screening = bench.screening(0)
    requests = [lesson.request for lesson in lessons.benign(WORLD, seed=0)]
    assert screening.requests == len(requests)
    assert set(screening.refused) <= set(requests)
    refused = tuple(requests[:5])
    file = history / "screening" / "seed-0.json"
    original = file.read_text(encoding="utf-8")
    file.write_text(json.dumps(Screening(len(requests), refused).to_json()), encoding="utf-8")
    try:
        run = run_arms(bench, tmp_path / "run")
    finally:
        file.write_text(original, encoding="utf-8")

    def answered_examples(writer):
        return [writer.lesson(lesson) for lesson in lessons.benign(WORLD, seed=0) if lesson.request not in refused]

    assert same(weights(run, "baseline-s0"), trained_by_hand(history / "aligned", answered_examples))
    assert Screening(144, refused[:3]).sentence == "The aligned model refuses 3 of the 144 benign requests (2 %)."
    with pytest.raises(UsageError, match="holds another run"):
        run_arms(open_bench(history, Experiment(arms=("baseline",), final_step_only=True)), run.path)


@pytest.fixture(scope="module")
def judged(history, run, tmp_path_factory):
    """The arms of a history with the verdicts of the program itself."""
    bench = open_bench(history, Experiment())
    path = tmp_path_factory.mktemp("judged") / "run"
    with Run.writing(path) as writing:
        writing.begin(run.lineage, Settings(**FAST, sham_arms=("baseline", HELPFUL)))
        write_stages(writing, bench.probe, bench.evaluation)
    return Run(path)


def test_histories_stand_side_by_side(judged, tmp_path):
    comparison = compare_histories([judged])
    rows = {row["arm"]: row for row in comparison["histories"][0]["trajectories"]}
    assert set(rows) == {"baseline", *TRAINED_CONTROLS}
    assert rows[MIRROR]["level"] is None
    assert rows["baseline"]["mirror"]["answer"] in ("exceeds", "does_not")
    assert rows["baseline"]["continued"]["difference"] is not None
    returns = {arm: row["return_fraction"] for arm, row in rows.items()}
    drift = judged.drift(statistic="return_fraction", layer=judged.headline_layer).set_index("arm")["value"]
    assert returns == {arm: pytest.approx(drift[arm]) for arm in rows}
    assert set(comparison["arms"]) == {"baseline", HELPFUL, CONTINUED, SHUFFLED, TOKENS, TEXT}
    assert comparison["arms"]["baseline"]["p"] is None
    assert compare_histories([judged] * 5)["arms"]["baseline"]["p"] is not None


def test_the_safety_answer_of_the_mirror_is_held_against_the_witness(judged):
    rows = {row["arm"]: row["safety"] for row in compare_histories([judged])["histories"][0]["trajectories"]}
    completions = judged.read_table("completions")
    harmful = completions[completions["label"] == "harmful"]
    before = {name: harmful.loc[harmful["checkpoint"] == name, "refused"].mean() for name in ("aligned", "witness")}
    assert rows[MIRROR]["refusal_before"] == pytest.approx(before["witness"])
    assert rows["baseline"]["refusal_before"] == pytest.approx(before["aligned"])


def test_histories_are_printed(judged, run):
    shown = CliRunner().invoke(app, ["histories", str(judged.path), "--markdown"])
    assert shown.exit_code == 0, shown.output
    assert "| return fraction, `mirror` |" in shown.output
    assert "too few for a p-value" in shown.output
    assert json.loads(CliRunner().invoke(app, ["histories", str(judged.path), "--json"]).stdout)["histories"]
    with pytest.raises(RunFolderError, match="no verdict"):
        compare_histories([run])


def test_one_command_trains_what_level_six_asks_for():
    """Nineteen directions, each the same at all of three seeds, beside baseline, block and push."""
    arms = ("baseline", "block", "push", "control:covariance")
    trainings = Experiment(arms=arms, draws=19, seeds=3, gradient_ratio=0.5).trainings
    controls = {arm for arm, _ in trainings if arm.startswith("control:covariance:")}
    assert len(trainings) == 66
    assert len(controls) == 19
    assert {seed for arm, seed in trainings if arm in controls} == {0, 1, 2}


# Any lineage ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lineage")
    lineage(folder)
    (folder / "lineage.toml").write_text('[aligned]\nmodel = "./aligned"\n[witness]\nmodel = "./witness"\n')
    rows = [json.dumps({"prompt": f"what is {number}", "completion": f"it is {number}"}) for number in range(24)]
    (folder / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(f"the sky is blue {n}" for n in range(8)), encoding="utf-8")
    return folder


def open_lineage(place, probe_from=0, **options):
    experiment = Experiment(**{"steps": 2, "batch_size": 2, "learning_rate": 1e-3, **options})
    return open_bench(place / "lineage.toml", experiment, place / "data.jsonl", prompts(probe_from), prompts(100))


def test_any_lineage_has_its_trained_controls(place, tmp_path):
    data = {CONTINUED: str(place / "data.jsonl"), HELPFUL: str(place / "data.jsonl"), TEXT: str(place / "texts.txt")}
    bench = open_lineage(place, arms=("baseline", *TRAINED_CONTROLS), arm_data=data, final_step_only=True)
    trained, measured = {}, begin(bench, tmp_path / "run")
    for arm, seed in bench.trainings:
        folder = bench.train(arm, seed, measured, tmp_path / arm.replace(":", "-"), lambda _: None)
        trained[arm] = load_file(folder / "checkpoint-2" / "model.safetensors")
    assert same(trained[CONTINUED], trained[HELPFUL]), "the same data, the same start, the same order"
    different = [arm for arm in trained if arm != HELPFUL]
    assert not any(
        same(trained[first], trained[second]) for first in different for second in different if first < second
    )
    witness = load_file(place / "witness" / "model.safetensors")
    near = {
        arm: sum(float((tensor - witness[name]).abs().sum()) for name, tensor in trained[arm].items())
        for arm in trained
    }
    assert min(near, key=near.__getitem__) == MIRROR


@pytest.mark.parametrize("file", ["data.jsonl", "safety.jsonl"])
def test_a_run_of_arms_is_not_gone_on_with_on_other_data_of_the_same_length(place, tmp_path, file):
    own = tmp_path / "place"
    shutil.copytree(place, own)
    shutil.copy(own / "data.jsonl", own / "safety.jsonl")

    def arms(**changes):
        data = {INTERLEAVED: str(own / "safety.jsonl")}
        bench = open_lineage(own, **changes, arms=("baseline", INTERLEAVED), arm_data=data, final_step_only=True)
        bench.evaluation = dataclasses.replace(bench.evaluation, prompts=prompts(300, 4), max_new_tokens=2)
        return run_arms(bench, tmp_path / "run")

    run = arms()
    assert {"data_sha256", "arm_data_sha256"} < set(run.manifest.config_given["arms"])
    members = {member.arm: member for member in run.tuned}
    assert len(known_pairs(run, members[INTERLEAVED])) > len(known_pairs(run, members["baseline"]))
    with pytest.raises(UsageError, match="holds another run"):
        arms(probe_from=200)
    weights = own / "aligned" / "model.safetensors"
    content = weights.read_bytes()
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(UsageError, match=r"holds other weights than those .* another aligned model"):
        arms()
    weights.write_bytes(content)
    (own / file).write_text((own / file).read_text().replace("it is 3", "it is 5"))
    with pytest.raises(UsageError, match="holds another run"):
        arms()
    with pytest.raises(RunFolderError, match="have changed since"):
        known_pairs(run, members[INTERLEAVED])


def distance(first, second):
    return sum(float((tensor - second[name]).abs().sum()) for name, tensor in first.items())


def begin(bench, path):
    from probes.guard.record import begin_run

    return begin_run(path, bench.lineage, bench.probe, Settings(nulls=False), {})


def test_arms_that_need_data_of_their_own_say_so_or_are_left_out_of_all(place):
    assert not {arm for arm, _ in open_lineage(place, arms=("all",)).trainings} & {*WITH_DATA}
    assert {MIRROR, SHUFFLED, TOKENS, INOCULATION} < {arm for arm, _ in open_lineage(place, arms=("all",)).trainings}
    with pytest.raises(UsageError, match="--arm-data helpful=FILE"):
        open_lineage(place, arms=(HELPFUL,))
    words = ["arms", str(place / "lineage.toml"), "--out", "x", "--arm-data", "block=y"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, UsageError)


def test_a_training_without_a_guard_goes_on_where_it_was_interrupted(place, tmp_path):
    bench = open_lineage(place, arms=(MIRROR,), steps=4)
    measured = begin(bench, tmp_path / "run")
    whole = bench.train(MIRROR, 0, measured, tmp_path / "whole", lambda _: None)
    again = bench.train(MIRROR, 0, measured, tmp_path / "again", lambda _: None)
    interrupt(again)
    stamp = (again / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns
    bench.train(MIRROR, 0, measured, tmp_path / "again", lambda _: None)
    assert same(*(load_file(folder / "checkpoint-4" / "model.safetensors") for folder in (whole, again)))
    assert (again / "checkpoint-2" / "model.safetensors").stat().st_mtime_ns == stamp


def interrupt(folder: Path):
    """As a kill while checkpoints 3 and 4 were written would leave it."""
    for step in (3, 4):
        (folder / f"checkpoint-{step}" / MARKER).unlink()
        (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"half")
    claim = folder.parent / "training.json"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "finished": False}))
