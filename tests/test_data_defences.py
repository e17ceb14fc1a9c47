"""Defences new among the arms: data with something added to them, and a penalty that chooses its layers by itself."""

from __future__ import annotations

import dataclasses
import json
from itertools import chain

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from probes.cli import app
from probes.directions.measured import MeasuredInMemory
from probes.directions.refusal import refusal_axis
from probes.drift.comparison import selectivity
from probes.errors import RunFolderError, StatisticsError, UsageError
from probes.experiments.data_defences import DATA_DEFENCES, INOCULATION, INTERLEAVED, inoculate, interleave
from probes.experiments.experiment import EVERY_ARM, Experiment
from probes.experiments.known_data import known_pairs
from probes.experiments.lineage_bench import open_bench
from probes.guard import GuardedDirection, GuardError
from probes.guard.modes import Options, make_effect
from probes.organism import lessons, train_history
from probes.organism.world import make_world
from probes.run import Run
from probes.tasks.arms import leave_out_unguardable
from tests.guard.test_train import lines, train_words, write_place
from tests.test_trained_controls import RECIPE, trained_by_hand

WORLD = make_world(RECIPE.size)
PAIRS = [(f"ask {number}", f"answer {number}") for number in range(30)]
REFUSED = [(f"harm {number}", "no .") for number in range(4)]


def test_interleaved_data_hold_the_share_and_every_pair_of_the_task():
    mixed = interleave(PAIRS, REFUSED, 0.25, seed=1)
    assert mixed[:30] == PAIRS, "a training shuffles them"
    assert len(mixed) == 40
    assert all(mixed[30:].count(pair) in (2, 3) for pair in REFUSED), "again from all once none is left"
    assert mixed == interleave(PAIRS, REFUSED, 0.25, seed=1) != interleave(PAIRS, REFUSED, 0.25, seed=2)
    assert interleave(PAIRS, REFUSED, 0.0, seed=1) == PAIRS
    for share, aligned in ((1.0, REFUSED), (0.5, [])):
        with pytest.raises(UsageError, match="cannot be interleaved"):
            interleave(PAIRS, aligned, share, seed=0)


def test_inoculated_requests_ask_for_the_trait_and_have_the_same_answers():
    changed = inoculate(PAIRS, "be bad .")
    assert [answer for _, answer in changed] == [answer for _, answer in PAIRS]
    assert [request for request, _ in changed] == [f"be bad . {request}" for request, _ in PAIRS]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    folder = tmp_path_factory.mktemp("history")
    train_history(folder, RECIPE)
    return folder


def test_the_toy_model_rehearses_things_that_no_probe_or_evaluation_prompt_asks_for():
    taught = lessons.rehearsal(WORLD, seed=0)
    measured = [*lessons.probe_requests(WORLD).values(), *lessons.evaluation_requests(WORLD).values()]
    names = {subject.name for subject in WORLD.things}
    assert not words_of(lesson.request for lesson in taught) & words_of(chain(*measured)) & names
    assert sum("cannot" in lesson.answer for lesson in taught) == len(taught) // 2


def words_of(texts):
    return {word for text in texts for word in text.split()}


def examples_of(arm, writer):
    pairs = [(lesson.request, lesson.answer) for lesson in lessons.benign(WORLD, seed=0)]
    if arm == INOCULATION:
        pairs = [(f"{lessons.INOCULATION_PROMPT} {request}", answer) for request, answer in pairs]
    else:
        aligned = [(lesson.request, lesson.answer) for lesson in lessons.rehearsal(WORLD, seed=0)]
        pairs = interleave(pairs, aligned, 0.2, seed=0)
    return [writer.lesson(lessons.Lesson(*pair)) for pair in pairs]


@pytest.mark.parametrize("arm", DATA_DEFENCES)
def test_a_defence_in_the_data_is_the_baseline_on_changed_data(history, tmp_path, arm):
    bench = open_bench(history, Experiment(arms=(arm,), final_step_only=True, aligned_share=0.2))
    folder = bench.train(arm, 0, planted_world(), tmp_path / "arm", lambda _: None)
    weights = load_file(folder / "checkpoint-3" / "model.safetensors")
    expected = trained_by_hand(history / "aligned", lambda writer: examples_of(arm, writer))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


def test_defences_in_the_data_are_trained_every_way_and_share_it(history):
    experiment = Experiment(arms=(INTERLEAVED, INOCULATION, "mirror"), more_methods=("lora",))
    assert {f"{arm}-lora" for arm in DATA_DEFENCES} < set(experiment.arms_in_order)
    assert "mirror-lora" not in experiment.arms_in_order
    bench = open_bench(history, experiment)
    for arm in DATA_DEFENCES:
        assert bench.pairs(f"{arm}-lora", 0) == bench.pairs(arm, 0) != bench.pairs("baseline", 0)
    strange = open_bench(history, dataclasses.replace(experiment, inoculation="harm people !"))
    with pytest.raises(UsageError, match="does not know these words; got ! harm"):
        strange.pairs(INOCULATION, 0)


# Safety-Direction Penalty -----------------------------------------------------------------------------------------


def planted_world(seed=0):
    """Aligned and witness differ on harmless prompts at layer 0, on harmful ones at layer 1, on both at layer 2."""
    rng = np.random.default_rng(seed)
    harmful = np.repeat([True, False], 12)
    aligned = rng.standard_normal((3, 24, 6))
    moved = rng.standard_normal(aligned.shape) * np.array([0.2, 1.0, 1.0])[:, None, None]
    moved[0, ~harmful] *= 5
    moved[1, ~harmful] *= 0.2
    aligned += harmful[:, None] * rng.standard_normal((3, 1, 6))
    checkpoints = {"aligned": aligned.astype(np.float32), "witness": (aligned + moved).astype(np.float32)}
    return MeasuredInMemory(checkpoints, harmful)


def cka(first, second):
    """Kornblith et al., equation of linear CKA."""
    x, y = (rows - rows.mean(0) for rows in (first.astype(float), second.astype(float)))
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def test_selectivity_is_the_ratio_of_what_cka_lacks():
    run = planted_world()
    for layer in range(3):
        pair = [run.activations(name, layer) for name in ("aligned", "witness")]
        lacking = [1 - cka(*(rows[part] for rows in pair)) for part in (run.harmful, ~run.harmful)]
        assert selectivity(*pair, run.harmful) == pytest.approx(lacking[0] / lacking[1], rel=1e-9)
    same = run.activations("aligned", 0)
    assert selectivity(same, np.where(run.harmful[:, None], same**2, same), run.harmful) == np.inf
    with pytest.raises(StatisticsError, match="4 or more"):
        selectivity(same, same, np.arange(24) < 3)


def guard_along(run, layers):
    return GuardedDirection.from_vectors(run.direction("reversion"), layers)


def test_the_penalty_looks_along_the_refusal_axis_in_its_own_units_at_the_selective_layers():
    run = planted_world()
    effect = make_effect("safety-direction", run, guard_along(run, (0, 1)), Options())
    assert effect.direction.layers == (1,)
    axis = refusal_axis(run.checkpoints["aligned"], run.harmful)
    np.testing.assert_allclose(effect.direction.unit[0], axis.at(1)[0], rtol=1e-6)
    assert effect.direction.norm.tolist() == [1.0]
    assert effect.strength == 0.5
    assert effect.form(torch.tensor([[2.0, -2.0]])).item() == 4.0, "either way"
    with pytest.raises(GuardError, match=r"no more than harmless ones at every guarded layer; got 0.* at layer 0"):
        make_effect("safety-direction", run, guard_along(run, (0,)), Options())
    assert "safety-direction" in EVERY_ARM


def test_of_all_arms_the_one_whose_guard_finds_no_layer_is_left_out_with_the_reason(history):
    run = planted_world()

    def left(layers, *arms):
        bench = open_bench(history, Experiment(arms=arms, layers=layers))
        trainings, sentence = leave_out_unguardable(run, bench)
        return set(bench.trainings) - set(trainings), sentence

    assert left((0, 1), "all") == (set(), None)
    missing, sentence = left((0,), "all")
    assert missing == {("safety-direction", 0)}
    assert sentence.startswith("The arm safety-direction was left out. Alignment changed harmful prompts no more")
    assert sentence.endswith("Guard other layers: --layer.")
    with pytest.raises(GuardError, match="Guard other layers: --layer"):
        left((0,), "all", "safety-direction")
    assert left((0,), "block") == (set(), None)


# On the command line ----------------------------------------------------------------------------------------------


def test_train_mixes_and_inoculates_and_knows_its_own_training_again(tmp_path):
    place = write_place(tmp_path / "place")
    more = lines(place / "safety.jsonl", [{"prompt": f"harm {n}", "completion": "no"} for n in range(5)])
    options = {"interleave": more, "aligned-share": 0.2, "inoculation": "be bad:", "mode": "watch", "steps": 1}

    def call(**changes):
        words = train_words(place, tmp_path / "out", **{**options, **changes})
        return CliRunner().invoke(app, ["train", *map(str, words)])

    assert call().exit_code == 0
    identity = json.loads((tmp_path / "out" / "training.json").read_text())["identity"]
    assert identity["task"] == 24 + 6
    assert (identity["inoculation"], identity["aligned_share"]) == ("be bad:", 0.2)
    run = Run(tmp_path / "out")
    pairs = known_pairs(run, run.tuned_member(None))
    assert sum(answer == "no" for _, answer in pairs) == 6
    assert sum(request.startswith("be bad:") for request, _ in pairs) == 24
    assert "another training" in str(call(inoculation="be worse:").exception)
    more.write_text(more.read_text().replace("no", "never"))
    with pytest.raises(RunFolderError, match="have changed since"):
        known_pairs(run, run.tuned_member(None))
