"""The forecast is the first step's share; what it is held against, its clusters, and when it may speak of returns."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from probes.attribution.baselines import bm25, projections
from probes.attribution.calibration import calibrate, calibrate_histories
from probes.attribution.clusters import cluster_texts, effective_number, sum_clusters
from probes.attribution.forecast import _EPSILON, Forecasts, forecast
from probes.attribution.rows_of_examples import Texts, example_tables
from probes.attribution.targets import SCREEN, Target, read_targets
from probes.behaviour.task import rendered_items
from probes.errors import PromptError, UsageError
from probes.guard.examples import Answered
from probes.lineage import CheckpointRef, Lineage
from probes.models.loading import load_tokenizer
from probes.organism import RECIPES
from probes.organism.lessons import benign
from probes.organism.lessons import task as held_out_task
from probes.organism.world import make_world
from probes.run import Run
from probes.store import write_json
from probes.tasks.recipe_calibration import calibration_of_recipe, curves_of, read_recipes
from tests.attribution.worlds import examples, probe, targets
from tests.builders import CONTEXT, WIDTH, tiny_tokenizer
from tests.guard.test_train import call, lines, train_words
from tests.guard.test_train import run as train


def test_the_forecast_is_that_of_autograd(replay):
    values = forecast(replay, probe(), targets()[:1]).values[0]
    weights = list(replay.weights.values())
    order = np.random.default_rng(0).permutation(24)
    squares = [torch.zeros_like(weight) for weight in weights]
    for batch in (order[:12].tolist(), order[12:].tolist()):
        tokens = sum(replay.examples[place].tokens for place in batch)
        loss = replay.losses(batch)(replay.weights).sum() / tokens
        for square, part in zip(squares, torch.autograd.grad(loss, weights), strict=True):
            square += part.square() / 2
    slope = read_targets(replay.view, probe(), targets()[:1], replay.weights)[0].gradient
    expected = []
    for loss in replay.losses(range(24))(replay.weights):
        parts = zip(torch.autograd.grad(loss, weights, retain_graph=True), squares, replay.weights, strict=True)
        expected.append(-sum(float((g * slope[n] / (s.sqrt() + _EPSILON))[s > 0].double().sum()) for g, s, n in parts))
    assert values == pytest.approx(np.array(expected), abs=1e-4 * np.abs(expected).max())


def test_losses_are_those_of_the_model_one_by_one(replay):
    row = examples()[3]
    with torch.no_grad():
        log = replay.view.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    own = [-float(log[place - 1, row.ids[place]]) for place in range(row.answer_start, len(row.ids))]
    losses = forecast(replay, probe(), targets()[:1]).losses
    assert losses[3] == pytest.approx(np.sum(own), rel=1e-5)


def test_projections_are_on_the_way_back_and_on_the_refusal_axis_where_that_is_not_known(replay, monkeypatch):
    monkeypatch.setattr(replay.view, "tokenizer", tiny_tokenizer())
    back = targets()[0]
    screen = Target(SCREEN, back.layer, back.weights, np.random.default_rng(1).standard_normal(WIDTH))
    texts = Texts([("ask", f"say {place}") for place in range(24)], ["harm"])
    for chosen, read_on in (([back, screen], back), ([screen], screen)):
        table = example_tables(replay, chosen, Forecasts([np.zeros(24)] * len(chosen), np.ones(24)), texts)[back.layer]
        unit = read_on.vector / np.linalg.norm(read_on.vector)
        along = projections(replay.view, replay.examples, {back.layer: unit})[back.layer]
        assert np.array_equal(table[["projection", "projection_difference"]].to_numpy().T, along, equal_nan=True)


def test_bm25_is_the_formula():
    texts = ["a bomb a bomb", "a cake", "bake the cake now please"]
    scores = bm25(texts, ["make bomb"])
    length = np.array([4, 2, 5])
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 * 2.5 / (2 + 1.5 * (0.25 + 0.75 * 4 / length.mean()))
    assert scores == pytest.approx([expected, 0, 0])


def test_bm25_is_that_of_another_library():
    """The scores of bm25s 0.3.16, `BM25(method="lucene", k1=1.5, b=0.75)`, which leaves the factor k₁ + 1 out."""
    texts = ["a bomb a bomb", "A cake!", "bake the cake now, please", "how to make the bomb"]
    first = np.array([0.39608410000801086, 0, 0, 0.6821105480194092])
    second = np.array([0.39608410000801086, 0.7155067920684814, 0.6821105480194092, 0])
    assert bm25(texts, ["make bomb"]) == pytest.approx(2.5 * first, rel=1e-6)
    assert bm25(texts, ["make bomb", "Bake a cake"]) == pytest.approx(2.5 * (first + second) / 2, rel=1e-6)
    assert bm25(["?", "!"], ["make bomb"]).tolist() == [0, 0]


def test_clusters_are_the_things_that_examples_are_about():
    nouns = ["quavum", "vanum", "quepik", "zeskar", "belax", "glulun"]
    words = ["who keeps the {}", "tell me of the {} please", "when do i get a {} today", "which season of {}"]
    texts = [form.format(noun) for form in words for noun in nouns]
    clusters = cluster_texts(texts)
    assert len(clusters.names) == 6
    assert all(len({clusters.of[place] for place in range(first, 24, 6)}) == 1 for first in range(6))
    assert all(any(noun in name for name in clusters.names) for noun in nouns)
    table = pd.DataFrame({"cluster": clusters.of, "cluster_name": np.array(clusters.names)[clusters.of], "share": 1.0})
    assert sum_clusters(table, ["share"])["share"].tolist() == [4] * 6
    assert cluster_texts(["same", "same"]).names == ("all",)


def test_many_texts_are_grouped_too():
    """Above 4,000 k-means takes over; groups are then smaller, and still of one thing each."""
    nouns = [f"noun{number}" for number in range(20)]
    clusters = cluster_texts([f"{noun} {noun}s keeper{noun}" for noun in nouns for _ in range(201)])
    places = np.repeat(np.arange(20), 201)
    assert all(len(set(places[clusters.of == cluster].tolist())) == 1 for cluster in range(len(clusters.names)))


def test_the_effective_number_counts_equal_parts():
    assert effective_number(np.ones(7)) == pytest.approx(7)
    assert effective_number(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert effective_number(np.zeros(3)) == 0


@pytest.mark.parametrize(("shift", "scatter"), [(0.0, 0.2), (0.3, 0.1)])
def test_a_further_run_lies_within_the_interval(shift, scatter):
    """Whole curves shifted, and steps scattered: the third of three planted runs, from the first two."""
    draw, inside = np.random.default_rng(0), 0
    steps = [1, 2, 5, 10, 20]
    for _ in range(200):
        noise = draw.normal(0, shift, (3, 1)) + draw.normal(0, scatter, (3, len(steps)))
        runs = [{s: 0.03 * s**0.6 * float(np.exp(e)) for s, e in zip(steps, row, strict=True)} for row in noise]
        curve, reason = calibrate(runs[:2], 0.1)
        assert reason is None
        low, _, high = curve.at(10)
        inside += low <= runs[2][10] <= high
    assert 175 <= inside <= 199


def test_an_exact_curve_is_found_and_goes_on_between_staying_and_rising():
    steps = [1, 2, 5, 10, 20]
    exact, _ = calibrate([{s: 0.03 * s**0.6 for s in steps}] * 2, 0.1)
    assert exact.at(7) == pytest.approx([0.03 * 7**0.6] * 3)
    assert exact.at(40) == pytest.approx([0.03 * 20**0.6, 0.03 * (20 * 40) ** 0.3, 0.03 * 40**0.6])
    assert exact.alarm_step == next(s for s in range(1, 99) if 0.03 * s**0.6 >= 0.1)
    assert exact.budget == exact.alarm_step - 1
    assert exact.shown_steps == [1, 2, 5, 10, 20, 50]
    assert exact.held_out is None


def held_out_returns(curves, count, last):
    """Every `count` runs of a history calibrate, up to a step, and the others are held against them."""
    inside, beyond = [], []
    for runs in curves.values():
        for chosen in itertools.combinations(range(len(runs)), count):
            short = [{s: runs[run][s] for s in runs[run] if s <= last} for run in chosen]
            calibration, _ = calibrate(short, 0.1)
            for run in set(range(len(runs))) - set(chosen):
                for step, value in runs[run].items():
                    low, _, high = calibration.at(step)
                    (inside if step <= last else beyond).append(low <= value <= high)
    return np.mean(inside), np.mean(beyond) if beyond else None


def test_coverage_on_held_out_seeds_of_the_organism_is_what_the_page_says():
    """Real returns of six histories in four orders of the data each."""
    curves = {}
    for own in read_recipes().values():
        curves.update(zip(own["returns"], curves_of(own), strict=True))
    page = (Path(__file__).parents[2] / "data/docs/attribution.md").read_text("utf-8")
    for count, last in ((2, 20), (2, 100), (3, 20), (3, 100)):
        inside, beyond = held_out_returns(curves, count, last)
        assert inside >= 0.85
        shown = "–" if beyond is None else f"{100 * beyond:.0f} %"
        assert f"| {count} | {last} | {100 * inside:.0f} % | {shown} |" in page
    whole, _ = calibrate(curves["post-hoc-1"], 0.1)
    assert whole.held_out.returns == 28
    assert 0.8 <= whole.held_out.coverage <= 1


def test_what_comes_with_the_program_holds_out_as_it_says():
    page = (Path(__file__).parents[2] / "data/docs/attribution.md").read_text("utf-8")
    for kind, own in read_recipes().items():
        calibration, _ = calibrate_histories(curves_of(own), 0.1)
        assert own["held_out"] == vars(calibration.held_out)
        inside, returns = own["held_out"]["inside"], own["held_out"]["returns"]
        low, value, high = (f"{number:.2f}" for number in calibration.at(100))
        assert f"| {kind} | {value} ({low} to {high}) | {inside} of {returns} " in page


def test_one_run_of_a_further_history_lies_within_the_interval():
    """Planted histories that differ, and runs of each that differ less; the fourth history from three."""
    draw, inside = np.random.default_rng(0), 0
    steps = [1, 2, 5, 10, 20]
    for _ in range(200):
        own = draw.normal(0, 0.4, (4, 1, 1)) + draw.normal(0, 0.1, (4, 3, 1)) + draw.normal(0, 0.1, (4, 3, len(steps)))
        runs = [
            [{s: 0.03 * s**0.6 * float(np.exp(e)) for s, e in zip(steps, row, strict=True)} for row in group]
            for group in own
        ]
        curve, _ = calibrate_histories(runs[:3], 0.1)
        assert (curve.runs, curve.of, curve.held_out.returns) == (3, "histories", 45)
        low, _, high = curve.at(10)
        inside += low <= runs[3][0][10] <= high
    assert 175 <= inside <= 199


def lineage_of(folder, recipe):
    folder.mkdir()
    write_json(folder / "history.json", {"seed": 7, "recipe": dataclasses.asdict(recipe)})
    return Lineage(name="organism", aligned=CheckpointRef(model=str(folder / "aligned")))


def test_a_history_of_a_known_recipe_is_calibrated_on_its_own_data_alone(tmp_path):
    recipe, quick = RECIPES["post-hoc"]
    lineage = lineage_of(tmp_path / "known", recipe)
    lessons = [(lesson.request, lesson.answer) for lesson in benign(make_world(recipe.size), seed=7)]
    asked_otherwise = [(lesson.request, lesson.answer) for lesson in held_out_task(make_world(recipe.size))]
    assert {answer for _, answer in asked_otherwise} == {answer for _, answer in lessons}
    calibration, why = calibration_of_recipe(lineage, lessons, None, 0.1)
    assert why is None
    assert (calibration.runs, calibration.of) == (3, "histories")
    for own, pairs, layer, reason in (
        (lineage_of(tmp_path / "quick", quick), lessons, None, "no runs of this recipe"),
        (lineage, [*lessons, ("how is it made ?", "in a way")], None, "not the data"),
        (lineage, lessons[1:], None, "not the data"),
        (lineage, asked_otherwise, None, "not the data"),
        (lineage, lessons, 1, "declared layer"),
        (lineage_of(tmp_path / "other", RECIPES["integrated"][0]), lessons, None, "differ by a factor of 123"),
        (Lineage(name="none", aligned=CheckpointRef(model="org/model")), lessons, None, "two short runs"),
    ):
        calibration, why = calibration_of_recipe(own, pairs, layer, 0.1)
        assert calibration is None
        assert reason in why


@pytest.mark.parametrize(
    "curves", [[{1: 0.1, 2: -0.1, 5: -0.2}, {1: 0.1, 2: 0.1, 5: -0.3}], [{1: 0.1, 2: 0.1, 5: 0.2, 9: 0.3}, {5: 0.2}]]
)
def test_what_is_no_curve_is_not_calibrated(curves):
    curve, reason = calibrate(curves, 0.1)
    assert curve is None
    assert "not calibrated" in reason


def words_of(place, lineage="lineage.toml"):
    files = ("--harmful", place / "harmful.txt", "--harmless", place / "harmless.txt")
    return ("forecast", place / lineage, "--data", place / "data.jsonl", *files)


def test_of_a_long_answer_as_much_is_read_as_a_training_reads(place, tmp_path):
    rows = [json.loads(line) for line in (place / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    long = {**rows[0], "completion": "it is " * 200}
    words = [*words_of(place), "--data", lines(tmp_path / "long.jsonl", [*rows, long])]
    lengths = [row["length"] for row in json.loads(call(*words, "--json"))["examples"]]
    tokenizer = load_tokenizer(place / "aligned")
    items = rendered_items([(row["prompt"], row["completion"]) for row in (*rows, long)], tokenizer)
    assert lengths == [len(answer) for _, answer in Answered(items, CONTEXT)]
    assert lengths[-1] < len(items[-1][1])
    lines(tmp_path / "long.jsonl", [*rows, {**rows[0], "prompt": "what is " * 200}])
    with pytest.raises(PromptError, match="no room for an answer in the model's context; got examples 24"):
        call(*words)


def test_a_forecast_ranks_and_says_why_it_only_ranks(place, tmp_path):
    document = json.loads(call(*words_of(place), "--json"))
    assert len(document["examples"]) == 24
    assert all(isinstance(row[name], float) for row in document["examples"] for name in ("forecast", "screen"))
    assert document["calibration"] is None
    assert "two short runs" in document["why_ranks"]
    assert sum(row["examples"] for row in document["clusters"]) == 24


def test_one_run_of_several_seeds_calibrates_and_of_one_does_not(place, tmp_path):
    uses = {"harmful": "harmful.txt", "harmless": "harmless.txt", "penalty": "penalty.jsonl"}
    files = [word for use, name in uses.items() for word in (f"--{use}", place / name)]
    words = ("--data", place / "data.jsonl", "--arms", "baseline", "--seeds", 2, "--steps", 2, "--batch-size", 4)
    call("arms", place / "lineage.toml", *words, *files, "--out", tmp_path / "two")
    document = json.loads(call(*words_of(place), "--calibrate", tmp_path / "two", "--json"))
    drift = Run(tmp_path / "two").drift("baseline", "return_fraction", layer=document["layer"])
    tuned = drift[drift["step"] > 0].groupby("seed")
    curve, reason = calibrate([{row.step: row.value for row in rows.itertuples()} for _, rows in tuned], 0.1)
    assert len(tuned) == 2
    assert document["calibration"] == (curve and curve.document)
    assert document["why_ranks"] == reason
    train(*train_words(place, tmp_path / "one", mode="watch", steps=2))
    with pytest.raises(UsageError, match="One run calibrates nothing"):
        call(*words_of(place), "--calibrate", tmp_path / "one")


def test_a_run_named_twice_has_no_spread(place, tmp_path):
    with pytest.raises(UsageError, match="named twice"):
        call(*words_of(place), "--calibrate", tmp_path, "--calibrate", f"{tmp_path}/.")


def test_without_a_witness_there_is_the_screen(place):
    (place / "alone.toml").write_text('[aligned]\nmodel = "./aligned"\n', encoding="utf-8")
    words = call(*words_of(place, "alone.toml"))
    assert "Clusters by screen" in words
    assert "Ranks alone" in words
    assert max(map(len, words.splitlines())) <= 100


def test_two_short_runs_calibrate(place, tmp_path):
    for seed in (0, 1):
        train(*train_words(place, tmp_path / str(seed), mode="watch", seed=seed, steps=4))
    runs = [word for seed in (0, 1) for word in ("--calibrate", tmp_path / str(seed))]
    shutil.copytree(tmp_path / "0", tmp_path / "came")
    document = json.loads(call(*words_of(place), *runs, "--against", tmp_path / "came", "--json"))
    assert (document["calibration"] is None) == bool(document["why_ranks"])
    curves = []
    for seed in (0, 1):
        drift = Run(tmp_path / str(seed)).drift("watch", "return_fraction", layer=document["layer"])
        curves.append({row.step: row.value for row in drift[drift["step"] > 0].itertuples()})
    curve, reason = calibrate(curves, 0.1)
    assert document["calibration"] == (curve and curve.document)
    assert document["why_ranks"] == reason
    about = Run(tmp_path / "came").read_json("forecast")
    assert about == {key: document[key] for key in ("lineage", "layer", "calibration", "why_ranks", "clusters")}
    with pytest.raises(UsageError, match="calibrates the forecast"):
        call(*words_of(place), *runs, "--against", tmp_path / "1")
