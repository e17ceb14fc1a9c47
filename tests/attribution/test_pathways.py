"""Pathways are the derivative of a ridge weight, and prompts are moved as the forecast says in the mean."""

import numpy as np
import pytest
import torch

from probes.attribution.forecast import first_scale, forecast
from probes.attribution.pathways import Axes, Regression, pathway_targets, slopes
from probes.attribution.prompts_moved import prompts_moved
from probes.attribution.replay import dot
from probes.attribution.targets import FEATURES, OUTPUT, read_targets
from tests.attribution.worlds import LAYER, probe, targets
from tests.builders import WIDTH


def axes():
    return Axes(LAYER, np.random.default_rng(1).standard_normal((2, WIDTH)) / WIDTH, (5, 7))


def less_mean(values):
    return values - values.mean(axis=0)


def test_slopes_are_those_of_the_ridge_weight():
    """Against scikit-learn's ridge, by differences."""
    from sklearn.linear_model import Ridge

    draw = np.random.default_rng(0)
    features, scores = draw.standard_normal((20, 2)), draw.standard_normal(20)
    regression = Regression(less_mean(features), less_mean(scores), 0.05)

    def weight(features, scores):
        return Ridge(alpha=20 * 0.05).fit(features, scores).coef_[0]

    assert regression.weights[0] == pytest.approx(weight(features, scores))
    by_feature, by_score = slopes([regression])
    for prompt, direction in ((0, 0), (3, 1), (7, 0)):
        step = np.zeros_like(features)
        step[prompt, direction] = 1e-5
        change = (weight(features + step, scores) - weight(features - step, scores)) / 2e-5
        assert by_feature[prompt, direction] == pytest.approx(change, rel=1e-4, abs=1e-8)
        change = (weight(features, scores + step[:, direction]) - weight(features, scores - step[:, direction])) / 2e-5
        assert by_score[prompt] == pytest.approx(change, rel=1e-4, abs=1e-8)


def test_between_two_regressions_the_change_is_exact():
    draw = np.random.default_rng(2)
    start, end = (
        Regression(less_mean(draw.standard_normal((20, 2))), less_mean(draw.standard_normal(20)), 0.05)
        for _ in range(2)
    )
    by_feature, by_score = slopes([start, end])
    features = float((by_feature * (end.features - start.features)).sum())
    output = float(by_score @ (end.scores - start.scores))
    assert features + output == pytest.approx(end.weights[0] - start.weights[0], rel=1e-9)


def test_the_two_pathways_are_the_whole_change_of_the_weight(replay):
    """Along a step in the space of weights, features and output together are what the regression's own weight does."""
    start = Regression.read(replay.view, probe(), axes())
    pathways = pathway_targets(axes(), [start])
    assert [target.name for target in pathways] == [FEATURES, OUTPUT]
    gradients = [reading.gradient for reading in read_targets(replay.view, probe(), pathways, replay.weights)]
    generator = torch.Generator().manual_seed(0)
    step = {name: torch.randn(weight.shape, generator=generator) for name, weight in replay.present.items()}
    before = {name: weight.clone() for name, weight in replay.present.items()}
    weights = []
    for size in (1e-4, -1e-4):
        replay.put({name: weight + size * step[name] for name, weight in before.items()})
        weights.append(Regression.read(replay.view, probe(), axes(), start.penalty).weights[0])
    replay.put(before)
    parts = [dot(slope, step) for slope in gradients]
    assert sum(parts) == pytest.approx((weights[0] - weights[1]) / 2e-4, rel=0.01)
    assert all(abs(part) > 0.05 * abs(sum(parts)) for part in parts)


def test_prompts_are_moved_as_autograd_says_and_as_the_forecast_in_the_mean(replay):
    target = targets()[0]
    prompts, moved = prompts_moved(replay, probe(), target, [3, 8], first_scale(replay))
    assert prompts == [0, 1, 2]
    values = forecast(replay, probe(), [target]).values[0]
    assert moved.mean(axis=1) == pytest.approx(values[[3, 8]], rel=1e-4)
    scale = first_scale(replay)
    gradient = replay.gradient([8], torch.ones(1))
    single = type(target)(target.name, target.layer, np.eye(6)[1], target.vector)
    slope = read_targets(replay.view, probe(), [single], replay.weights)[0].gradient
    assert moved[1, 1] == pytest.approx(-dot({n: scale[n] * part for n, part in gradient.items()}, slope), rel=1e-4)
