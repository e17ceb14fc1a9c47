"""Shares add up to what was read, example by example what autograd says, whatever the optimiser and the guard did."""

import dataclasses

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from probes.attribution.replay import dot
from probes.attribution.shares import FIRST_MOMENT, GUARD, WEIGHT_DECAY, _margins, measure_shares
from probes.attribution.targets import read_targets
from probes.guard.loop import Schedule, answer_loss, shuffle_batches
from probes.guard.path_recorder import PathRecorder
from probes.guard.penalties.projection import Projection
from probes.guard.recorded_path import PATH, RecordedExample, RecordedPath
from probes.guard.step import Guard
from tests.attribution.worlds import (
    direction,
    examples,
    probe,
    replay_of,
    targets,
    train_by_trainer,
    train_plainly,
)
from tests.builders import tiny_model

HARD = {"learning_rate": 2e-3, "weight_decay": 0.1, "max_grad_norm": 0.5, "gradient_accumulation_steps": 2}


def lora(model):
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_shares_add_up_with_clipping_decay_and_accumulation(tmp_path, method):
    model = tiny_model().requires_grad_(True) if method == "full" else lora(tiny_model())
    train_by_trainer(tmp_path, model, max_steps=8, **HARD)
    path, replay = replay_of(tmp_path, model)
    assert all(path.step(number).clip < 1 for number in range(1, 9))
    assert all(("lora" in name) == (method == "lora") for name in path.names)
    for shares in measure_shares(path, replay, probe(), targets()):
        assert abs(shares.gap) <= 0.01 * max(abs(shares.change), 0.02), shares.target
        assert shares.remainder[WEIGHT_DECAY] != 0
        assert shares.effect.sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1}])
def test_shares_of_sgd_add_up(tmp_path, options):
    model = warm_training(tmp_path, torch.optim.SGD, lr=3e-2, **options)
    path, replay = replay_of(tmp_path, model)
    shares = measure_shares(path, replay, probe(), targets())[0]
    assert shares.is_complete
    assert abs(shares.remainder[FIRST_MOMENT]) > 10 * abs(shares.gap)


def test_a_first_moment_from_before_is_a_row_of_its_own(tmp_path):
    model = warm_training(tmp_path, torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    path, replay = replay_of(tmp_path, model)
    assert path.step(1).count == 4
    shares = measure_shares(path, replay, probe(), targets())[0]
    assert shares.is_complete
    assert abs(shares.remainder[FIRST_MOMENT]) > 10 * abs(shares.gap)


def warm_training(folder, kind, **options):
    """Three steps that nobody records, then four that are recorded."""
    model, rows = tiny_model().train().requires_grad_(True), examples()
    optimizer = kind(model.parameters(), **options)
    recorder = PathRecorder(folder / PATH)
    for number, batch in enumerate(shuffle_batches(rows, batch_size=6, steps=7, seed=0, pad=2)):
        if number == 3:
            recorder.begin(model, optimizer, [RecordedExample(row.ids, row.labels) for row in rows])
        optimizer.zero_grad()
        answer_loss(model, batch).backward()
        if number >= 3:
            recorder.batch(batch.examples)
            recorder.before()
            recorder.add_guard()
        optimizer.step()
        if number >= 3:
            recorder.after()
            recorder.end_step(number - 2)
    recorder.end(4)
    return model


def test_the_guard_has_a_share_and_examples_have_theirs(tmp_path):
    model = train_plainly(tmp_path / "alone")
    guard = Guard(Projection(direction(), "push", strength=5.0), probe().token_ids, batch_size=4)
    guarded = train_plainly(tmp_path / "guarded", guard=guard)
    alone, pushed = (
        measure_shares(*replay_of(tmp_path / name, trained), probe(), targets())[0]
        for name, trained in (("alone", model), ("guarded", guarded))
    )
    assert alone.is_complete
    assert pushed.is_complete
    assert alone.remainder[GUARD] == 0
    assert abs(pushed.remainder[GUARD]) > 10 * abs(pushed.gap)


def test_shares_are_those_of_autograd_example_by_example(tmp_path):
    """Every example's gradient by itself, carried forward through the moments, against the backward walk."""
    model = train_plainly(tmp_path, steps=4)
    path, replay = replay_of(tmp_path, model)
    target = targets()[:1]
    shares = measure_shares(path, replay, probe(), target)[0]
    weights = [path.tensors(number).weights for number in range(1, 5)] + [path.end()]
    slopes = []
    for point in weights:
        replay.put(point)
        slopes.append(read_targets(replay.view, probe(), target, replay.weights)[0].gradient)
    expected = np.zeros(len(replay.examples))
    for first in range(1, 5):
        step = path.step(first)
        replay.put(weights[first - 1])
        losses = replay.losses(step.examples)(replay.weights)
        for place, loss, weight in zip(step.examples, losses, step.weights, strict=True):
            gradient = torch.autograd.grad(loss * weight, list(replay.weights.values()), retain_graph=True)
            by_name = dict(zip(replay.weights, gradient, strict=True))
            for later in range(first, 5):
                size = path.step(later).learning_rate[0] * 0.1 * 0.9 ** (later - first) / (1 - 0.9**later)
                mean = {n: (slopes[later - 1][n] + slopes[later][n]) / 2 for n in by_name}
                scale = path.tensors(later).scale
                expected[place] -= size * dot(mean, {n: scale[n] * by_name[n] for n in by_name})
    assert shares.share == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
    never = set(range(24)) - {place for number in range(1, 5) for place in path.step(number).examples}
    assert all(shares.share[place] == 0 for place in never)


def test_the_interval_of_a_share_holds_that_of_another_run():
    """Draws from one distribution: the sum of as many others lies within in 95 of 100 worlds, whatever their number."""
    for count in (2, 5, 20):
        draws = np.random.default_rng(count).gamma(4.0, size=(2, 4000, count))
        total, again = draws.sum(axis=2)
        margins = _margins(total, np.square(draws[0]).sum(axis=1), np.full(4000, float(count)))
        assert np.mean(np.abs(again - total) <= margins) == pytest.approx(0.95, abs=0.02)
    assert np.isnan(_margins(np.ones(1), np.ones(1), np.ones(1))).all()


def test_simpson_is_taken_where_the_trapezoid_leaves_more(tmp_path):
    model = train_plainly(tmp_path, steps=3, peak=3e-2)
    path, replay = replay_of(tmp_path, model)
    target = targets()[0]
    slight = dataclasses.replace(target, vector=target.vector * 1e-4)  # its gap is within that of the floor
    shares, coarse = measure_shares(path, replay, probe(), [target, slight])
    assert (shares.rule, coarse.rule) == ("simpson", "trapezoid")
    assert coarse.share == pytest.approx(measure_shares(path, replay, probe(), [slight])[0].share)


def test_the_recorded_rate_is_that_of_the_schedule(tmp_path):
    train_plainly(tmp_path, steps=3)
    path = RecordedPath(tmp_path / PATH)
    schedule = Schedule(1e-3, 3, floor=1.0)
    assert [path.step(n).learning_rate for n in (1, 2, 3)] == [(schedule.learning_rate(n),) for n in (1, 2, 3)]
