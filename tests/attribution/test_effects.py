"""The exact effect against brute force: train again without the example, in the same order."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from probes.attribution.effects import measure_effects
from probes.attribution.shares import measure_shares
from probes.attribution.targets import read_targets
from probes.guard.loop import Batch
from probes.guard.path_recorder import PathRecorder
from probes.guard.recorded_path import PATH, RecordedExample, RecordedPath
from probes.models.view import ModelView
from tests.attribution.worlds import examples, probe, replay_of, targets
from tests.builders import tiny_model

WARM, STEPS, SIZE = 12, 8, 6
COUNT = 16
LIMIT = 2.0  # of the gradient's norm


def weighted_loss(model, batch, example, weight):
    """Mean over the answer tokens of the batch, those of one example counted `weight` times."""
    logits = model(batch.ids, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    weights = torch.tensor([weight if place == example else 1.0 for place in batch.examples])[:, None]
    counted = (batch.targets >= 0) * weights
    return (losses.view(counted.shape) * counted).sum() / counted.sum()


def train(orders, example=None, weight=0.0, folder=None):
    """Warmed up on examples of its own, so that Adam's first steps are past, then `STEPS` recorded ones."""
    model, rows = tiny_model().train().requires_grad_(True), examples(2 * COUNT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
    recorder = None if folder is None else PathRecorder(folder / PATH)
    for number, order in enumerate(orders):
        batch = Batch.of([rows[place] for place in order], 2, order)
        if number == WARM and recorder:
            recorder.begin(model, optimizer, [RecordedExample(row.ids, row.labels) for row in rows])
        optimizer.zero_grad()
        weighted_loss(model, batch, example, weight).backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT))
        if number >= WARM and recorder:
            recorder.batch(batch.examples)
            recorder.before(min(1.0, LIMIT / (norm + 1e-6)))
            recorder.add_guard()
        optimizer.step()
        if number >= WARM and recorder:
            recorder.after()
            recorder.end_step(number - WARM + 1)
    if recorder:
        recorder.end(STEPS)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The recorded run, and what each example's absence really changes."""
    folder = tmp_path_factory.mktemp("effects")
    draw = np.random.default_rng(0)
    warm = [draw.choice(np.arange(COUNT, 2 * COUNT), SIZE, replace=False).tolist() for _ in range(WARM)]
    orders = warm + [draw.choice(COUNT, SIZE, replace=False).tolist() for _ in range(STEPS)]
    target = targets()[0]

    def value(model):
        return read_targets(ModelView(model), probe(), [target], dict(model.named_parameters()))[0].value

    model = train(orders, folder=folder)
    path, replay = replay_of(folder, model)
    assert min(path.step(number).clip for number in range(1, STEPS + 1)) < 1
    whole = value(model)
    absent = np.array([whole - value(train(orders, place)) for place in range(COUNT)])
    slopes = [(value(train(orders, place, 1.1)) - value(train(orders, place, 0.9))) / 0.2 for place in range(3)]
    return RecordedPath(folder / PATH), replay, target, absent, slopes


def test_exact_effects_are_those_of_leaving_out(world):
    path, replay, target, absent, slopes = world
    effects = measure_effects(path, replay, probe(), target)
    assert spearmanr(effects[:COUNT], absent).statistic >= 0.9
    assert effects[:3] == pytest.approx(slopes, rel=0.05, abs=0.02 * np.abs(effects).max())
    assert effects.sum() == pytest.approx(0, abs=1e-6)
    assert not effects[COUNT:].any()


def test_cheap_effects_rank_alike(world):
    path, replay, target, absent, _ = world
    shares = measure_shares(path, replay, probe(), [target])[0]
    assert spearmanr(shares.effect[:COUNT], absent).statistic >= 0.5
