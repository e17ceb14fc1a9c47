"""Estimators of drift: hand-computed values, laws, and a planted truth."""

import numpy as np
import pytest

from probes import drift
from probes.directions.reversion import reversions_at_layer
from probes.drift.grams import remembered_weights
from probes.errors import StatisticsError
from probes.statistics import STATISTICS, Estimate
from tests.worlds import World

HARMFUL = np.repeat([True, False], 16)
HALVES = {  # of seed 7, and of seed 2, before there were groups
    "first": [3, 8, 10, 12],
    "sum": 4776.833333333333,
    "estimate": (0.8610118706545751, 0.7885015885930553, 0.914836391869627),
}


def between(function):
    """A function of drift that takes the witness in place of each prompt's way there."""
    return lambda aligned, witness, *inputs, **options: function(
        aligned, reversions_at_layer(aligned, witness), *inputs, **options
    )


measure, crossfit, crossfit_draws, check = map(
    between, (drift.measure, drift.crossfit, drift.crossfit_draws, drift.check)
)


@pytest.fixture
def lineage():
    world = World(np.random.default_rng(5), per_class=24, spectrum=np.ones(64))
    direction = world.only_harmful(world.like_content())
    return world, world.checkpoint(0.0), world.checkpoint(direction), world.checkpoint(0.4 * direction)


def without_noise(place, harmless=0.0):
    """32 prompts of one content; the checkpoint lies at `place` for harmful and at `harmless` for harmless ones."""
    content = np.arange(32.0)[:, None] * np.ones(3)
    return content + np.where(HARMFUL[:, None], place, harmless)


def test_without_noise_every_statistic_is_what_the_hand_computes():
    aligned, witness = without_noise(0.0), without_noise(np.array([2.0, 0.0, 0.0]))
    tuned = without_noise(np.array([0.6, 0.8, 0.0]))
    values = {name: estimate.value for name, estimate in measure(aligned, witness, tuned, HARMFUL).items()}
    for name in ("alignment", "alignment_crossfit", "alignment_disattenuated", "did_alignment"):
        assert values[name] == pytest.approx(0.6)
    assert values["return_fraction"] == pytest.approx(0.3)
    assert values["did_return_fraction"] == pytest.approx(0.3)
    assert values["off_axis"] == pytest.approx(0.4)
    assert values["displacement_norm"] == pytest.approx(1.0)
    assert values["reversion_norm"] == pytest.approx(2.0)
    assert values["share_moved"] == 1.0
    assert values["reliability"] == pytest.approx(1.0)


def test_a_shift_common_to_all_prompts_cancels_in_the_difference_in_differences():
    world = World(np.random.default_rng(1))
    shift, specific = world.like_content(), world.only_harmful(world.like_content())
    aligned, witness = world.checkpoint(0.0, 0.0), world.checkpoint(shift + specific, 0.0)
    estimates = measure(aligned, witness, world.checkpoint(0.5 * shift, 0.0), world.harmful)
    assert estimates["alignment"].value > 0.5
    assert estimates["did_return_fraction"].value == pytest.approx(0.0, abs=1e-9)


def test_the_naive_estimator_is_the_plain_formula(lineage):
    world, aligned, witness, tuned = lineage
    estimates = measure(aligned, witness, tuned, world.harmful)
    moved = (tuned - aligned)[world.harmful].mean(axis=0)
    back = (witness - aligned)[world.harmful].mean(axis=0)
    cosine = moved @ back / np.linalg.norm(moved) / np.linalg.norm(back)
    assert estimates["alignment"].value == pytest.approx(cosine)
    assert estimates["return_fraction"].value == pytest.approx(moved @ back / (back @ back))
    unit = back / np.linalg.norm(back)
    off = np.linalg.norm(moved - (moved @ unit) * unit) / np.linalg.norm(back)
    assert estimates["off_axis"].value == pytest.approx(off)


def test_splits_are_fold_means_taken_the_long_way(lineage):
    world, aligned, witness, tuned = lineage
    first, second = drift.split_weights(world.harmful, 50, np.random.default_rng([3, 0xD81F7]))
    cosines, agreements = [], []
    for first_half, second_half in zip(first, second, strict=True):
        fold_a, fold_b = world.harmful & (first_half > 0), world.harmful & (second_half > 0)
        assert fold_a.sum() == fold_b.sum() == 12
        moved = [(tuned - aligned)[fold].mean(axis=0) for fold in (fold_a, fold_b)]
        back = [(witness - aligned)[fold].mean(axis=0) for fold in (fold_a, fold_b)]
        cosines += [cosine(moved[0], back[1]), cosine(moved[1], back[0])]
        agreements.append(cosine(*moved))
    estimates = measure(aligned, witness, tuned, world.harmful, seed=3)
    assert estimates["alignment_crossfit"].value == pytest.approx(np.mean(cosines))
    assert estimates["reliability"].value == pytest.approx(np.mean(agreements))
    assert crossfit(aligned, witness, tuned, world.harmful, seed=3) == pytest.approx(np.mean(cosines))


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


@pytest.mark.parametrize("truth", [0.0, 0.3, 0.6])
def test_the_disattenuated_estimator_is_within_two_hundredths_of_the_truth(truth):
    """32 harmful prompts; displacement and reversion share the aligned model's noise, as they always do."""
    naive, disattenuated = [], []
    for seed in range(60):
        world = World(np.random.default_rng([seed, 11]), per_class=32, spectrum=np.ones(256), noise=1.4)
        back, across = np.linalg.qr(world.rng.standard_normal((256, 2)))[0].T * np.sqrt(256)
        moved = truth * back + np.sqrt(1 - truth**2) * across
        aligned = world.checkpoint(0.0)
        estimates = measure(aligned, world.checkpoint(back), world.checkpoint(moved), world.harmful, bootstraps=0)
        naive.append(estimates["alignment"].value)
        disattenuated.append(estimates["alignment_disattenuated"].value)
    assert np.mean(disattenuated) == pytest.approx(truth, abs=0.02)
    if truth == 0:
        assert np.mean(naive) > 0.04, "the shared endpoint must bias the naive estimator, or this shows nothing"


def by_topic(topics, per_topic, of_one_class=False, seed=0):
    """Harmful and harmless prompts in so many topics, and a world over them with topics that move together."""
    count = topics * per_topic
    world = World(np.random.default_rng([seed, 21]), per_class=count // 2, spectrum=np.ones(64), noise=0.3)
    place = np.arange(count)
    return world, place // per_topic if of_one_class else (place % (count // 2)) // (per_topic // 2)


@pytest.mark.parametrize("of_one_class", [False, True])
def test_topics_stay_together_in_halves_and_bootstraps(of_one_class):
    world, groups = by_topic(12, 8, of_one_class)
    rng = np.random.default_rng(0)
    for first, second in zip(*drift.split_weights(world.harmful, 200, rng, groups), strict=True):
        assert not (first * second).any()
        assert ((first > 0) | (second > 0)).all()
        for half in (first, second):
            assert half[world.harmful].sum() == pytest.approx(1)
            assert half[~world.harmful].sum() == pytest.approx(1)
            assert all(np.unique(half[groups == topic] > 0).size == 1 for topic in range(12))
    halves = drift.split_weights(world.harmful, 200, rng, groups)[0] > 0
    assert np.abs(halves.mean(axis=0) - 0.5).max() < 0.15
    for first, second in zip(*drift.bootstrap_weights(world.harmful, 50, rng, groups), strict=True):
        assert not (first * second).any(), "no prompt stands on both sides"
        assert [first.sum(), second.sum()] == pytest.approx([2, 2])
        counts = [np.unique((first + second)[groups == topic]).size for topic in range(12)]
        assert max(counts) == 1


def test_topics_of_unequal_sizes_and_mixed_labels_are_halved_fairly():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(15), rng.integers(1, 12, 15))
    harmful = rng.random(groups.size) < np.repeat(np.r_[np.zeros(4), np.ones(4), np.full(7, 0.5)], np.bincount(groups))
    first, second = drift.split_weights(harmful, 300, rng, groups)
    for members in (harmful, ~harmful):
        share = (first[:, members] > 0).mean(axis=1)
        assert share.min() > 0.15
        assert share.mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(first[:, harmful].sum(axis=1), 1)
    np.testing.assert_allclose(second[:, ~harmful].sum(axis=1), 1)


@pytest.mark.parametrize("draw", [drift.split_weights, drift.bootstrap_weights])
def test_a_class_of_one_prompt_is_not_halved(draw):
    rng = np.random.default_rng(0)
    with pytest.raises(StatisticsError, match="single prompt"):
        draw(np.arange(9) == 4, 3, rng)


def test_a_class_that_is_not_there_is_left_alone():
    for half in drift.split_weights(np.ones(2, dtype=bool), 3, np.random.default_rng(0)):
        assert np.array_equal(half.sum(axis=1), np.ones(3))


def test_a_prompt_without_a_topic_is_a_group_of_its_own():
    codes = drift.group_codes(np.array(["a", None, "b", None, "a", float("nan"), 3], dtype=object))
    assert codes.tolist() == [0, 1, 2, 3, 0, 4, 5]


def test_without_groups_every_number_is_what_it_was():
    """Halves, bootstraps and statistics as the version before groups gave them."""
    world = World(np.random.default_rng(5), per_class=24, spectrum=np.ones(64))
    first, second = drift.bootstrap_weights(world.harmful, 3, np.random.default_rng(7))
    assert np.flatnonzero(first[0])[:4].tolist() == HALVES["first"]
    assert float((first @ np.arange(48) + second @ np.arange(48) ** 2).sum()) == pytest.approx(HALVES["sum"], rel=1e-14)
    direction = world.only_harmful(world.like_content())
    checkpoints = [world.checkpoint(share * direction) for share in (0.0, 1.0, 0.4)]
    estimate = measure(*checkpoints, world.harmful, seed=2)["alignment_crossfit"]
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(HALVES["estimate"], rel=1e-12)


@pytest.mark.parametrize("topics", [False, True])
def test_remembered_weights_are_those_of_one_generator_and_cannot_be_written_to(topics):
    world, groups = by_topic(16, 8, seed=1)
    groups = groups if topics else None
    rng = np.random.default_rng([4, 9])
    expected = (
        *drift.split_weights(world.harmful, 5, rng, groups),
        *drift.bootstrap_weights(world.harmful, 7, rng, groups),
    )
    for _ in range(2):  # drawn, and kept
        halves, redrawn = remembered_weights(world.harmful, 5, 7, (4, 9), groups)
        for weights, same in zip((*halves, *redrawn), expected, strict=True):
            np.testing.assert_array_equal(weights, same)
            with pytest.raises(ValueError, match="read-only"):
                weights[0, 0] = 1.0
    elsewhere, _ = remembered_weights(world.harmful, 5, 7, (4, 10), groups)
    assert not np.array_equal(elsewhere[0], expected[0])


def test_topics_that_move_together_widen_the_interval():
    wide, narrow = [], []
    for seed in range(8):
        world, groups = by_topic(16, 8, seed=seed)
        back = world.only_harmful(2 * world.like_content())
        aligned, witness = world.checkpoint(0.0), world.checkpoint(back)
        tuned = world.checkpoint(0.3 * back + world.like_content(16)[groups])
        widths = [
            (estimate := measure(aligned, witness, tuned, world.harmful, groups=topics)["return_fraction"]).high
            - estimate.low
            for topics in (groups, None)
        ]
        wide.append(widths[0])
        narrow.append(widths[1])
    assert np.mean(wide) > 1.3 * np.mean(narrow)


def test_few_topics_give_numbers_without_intervals_and_one_gives_none():
    world, groups = by_topic(4, 16)
    checkpoints = [world.checkpoint(share * 3 * world.only_harmful(np.ones(64))) for share in (0.0, 1.0, 0.3)]
    estimates = measure(*checkpoints, world.harmful, groups=groups)
    assert estimates["alignment_crossfit"].value is not None
    assert estimates["alignment_crossfit"].low is None
    assert "too few groups (4;" in estimates["alignment_crossfit"].reason
    with pytest.raises(StatisticsError, match="all of one group"):
        measure(*checkpoints, world.harmful, groups=np.zeros(64))


def test_share_moved_leaves_out_the_prompts_of_the_same_topic():
    """Topics move together, and nobody moved towards the witness: the own topic must not count as agreement."""
    shares = {"grouped": [], "alone": []}
    for seed in range(6):
        world, groups = by_topic(16, 8, seed=seed)
        moved = world.like_content(16)[groups]
        checkpoints = world.checkpoint(0.0), world.checkpoint(moved), world.checkpoint(moved)
        for name, topics in (("grouped", groups), ("alone", None)):
            estimates = measure(*checkpoints, world.harmful, groups=topics, bootstraps=0)
            shares[name].append(estimates["share_moved"].value)
    assert np.mean(shares["alone"]) > 0.9
    assert np.mean(shares["grouped"]) == pytest.approx(0.5, abs=0.2)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    held = []
    for seed in range(60):
        world = World(np.random.default_rng([seed, 12]), per_class=32, spectrum=np.ones(64), noise=1.0)
        direction = world.like_content()
        aligned, witness = world.checkpoint(0.0, 0.3), world.checkpoint(direction, 0.0)
        tuned = aligned + 0.3 * direction + world.noise * world.like_content(64)
        estimate = measure(aligned, witness, tuned, world.harmful, bootstraps=200)["return_fraction"]
        held.append(estimate.low <= 0.3 <= estimate.high)
    assert np.mean(held) >= 0.85


def test_more_prompts_give_narrower_intervals():
    widths = []
    for per_class in (16, 128):
        world = World(np.random.default_rng(2), per_class=per_class, spectrum=np.ones(64))
        direction = world.like_content()
        checkpoints = [world.checkpoint(share * direction) for share in (0.0, 1.0, 0.3)]
        estimate = measure(*checkpoints, world.harmful)["alignment_crossfit"]
        widths.append(estimate.high - estimate.low)
    assert widths[1] < 0.7 * widths[0]


def test_share_moved_uses_the_reversion_of_the_other_prompts():
    world = World(np.random.default_rng(3), per_class=64, spectrum=np.ones(512), noise=1.0)
    aligned, witness = world.checkpoint(0.0), world.checkpoint(0.0)
    shares = [
        measure(aligned, witness, world.checkpoint(0.0), world.harmful, bootstraps=0)["share_moved"].value
        for _ in range(5)
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1), "nobody moved, though all share the aligned noise"


def test_a_drift_within_the_noise_of_a_repeated_pass_has_no_alignment(lineage):
    world, aligned, witness, tuned = lineage
    norm = measure(aligned, witness, tuned, world.harmful)["displacement_norm"].value
    inside = measure(aligned, witness, tuned, world.harmful, noise=norm / 4.9)
    outside = measure(aligned, witness, tuned, world.harmful, noise=norm / 5.1)
    assert inside["alignment_crossfit"].value is None
    assert "noise of a repeated pass" in inside["alignment_crossfit"].reason
    assert outside["alignment_crossfit"].value is not None
    assert inside["displacement_norm"].value == norm


def test_equal_seeds_give_equal_numbers(lineage):
    world, *checkpoints = lineage
    first, second = (measure(*checkpoints, world.harmful, seed=4) for _ in range(2))
    assert first == second
    assert first != measure(*checkpoints, world.harmful, seed=5)


def test_the_disattenuated_estimator_is_undefined_where_the_displacement_contradicts_itself():
    world = World(np.random.default_rng(3), per_class=16, spectrum=np.ones(8), noise=0.0)
    moved = np.where(np.arange(32) % 2, 1.0, -1.0)[:, None] * np.ones(8)
    estimates = measure(world.checkpoint(0.0), world.checkpoint(1.0), world.content + moved, world.harmful)
    assert estimates["alignment_disattenuated"].value is None
    assert "does not agree with itself" in estimates["alignment_disattenuated"].reason


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda a, w, t, _: (a, w, t, np.arange(48) < 15), "too few harmful prompts; got 15"),
        (lambda a, w, t, _: (a, w, t, np.arange(48) < 40), "too few harmless prompts; got 8"),
        (lambda a, w, t, _: (a, w, t, np.ones(48, dtype=bool)), "no harmless prompts"),
        (lambda a, _, t, h: (a, a, t, h), "The witness equals the aligned model"),
        (lambda a, w, _, h: (a, w, a, h), "no displacement"),
        (lambda a, w, t, h: (a, w, np.where(np.arange(48)[:, None] == 7, np.nan, t), h), "prompt 7 and 0 others"),
        (lambda a, w, t, h: (a, np.where(np.arange(48)[:, None] == 3, np.inf, w), t, h), "witness checkpoint"),
    ],
)
def test_input_from_which_nothing_can_be_computed_is_refused(lineage, change, sentence):
    world, *checkpoints = lineage
    with pytest.raises(StatisticsError, match=sentence):
        measure(*change(*checkpoints, world.harmful))


def test_sixteen_prompts_of_a_class_are_enough():
    world = World(np.random.default_rng(0), per_class=16)
    check(world.checkpoint(0.0), world.checkpoint(1.0), world.checkpoint(0.5), world.harmful)


def test_an_undefined_row_carries_its_reason_for_every_statistic():
    rows = drift.undefined_statistics("it did not move")
    assert set(rows) == set(STATISTICS)
    assert all(row == Estimate(None, reason="it did not move") for row in rows.values())


def test_an_estimate_without_value_or_reason_cannot_be_made():
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate(None)


def test_log_spaced_steps_give_every_decade_its_share():
    assert drift.log_spaced([0, 1, 2, 5, 10, 20, 50, 100]) == [1, 2, 5, 10, 20, 50, 100]
    dense = drift.log_spaced(range(101), count=7)
    assert len([step for step in dense if step <= 10]) == 4
    assert dense[0] == 1
    assert dense[-1] == 100
    assert drift.log_spaced([0]) == []


def at(cosine, reliability=0.9):
    return {"alignment_crossfit": Estimate(cosine), "reliability": Estimate(reliability)}


def test_a_trajectory_is_the_mean_fisher_z_of_its_measurable_steps():
    mean, steps = drift.trajectory({0: at(0.9), 1: at(-0.5, reliability=0.2), 10: at(0.2), 100: at(0.8)})
    assert steps == [10, 100]
    assert mean.value == pytest.approx(np.tanh((np.arctanh(0.2) + np.arctanh(0.8)) / 2))


def test_a_trajectory_without_a_measurable_step_is_undefined():
    mean, steps = drift.trajectory({1: at(0.5, reliability=0.1)})
    assert (mean.value, steps) == (None, [])


def test_five_runs_have_an_interval_and_four_are_prompt_level_only():
    """Seeds of one history are no independent trials, so that there is no p-value over them."""
    five = drift.over_runs(np.array([0.2, 0.3, 0.1, 0.4, 0.25]))
    assert five.alignment.low < five.alignment.value < five.alignment.high
    assert five.words == "over 5 runs"
    assert not hasattr(five, "p")
    four = drift.over_runs(np.array([0.2, 0.3, 0.1, 0.4]))
    assert (four.words, four.alignment.low) == ("prompt-level only", None)


def test_drawing_prompts_within_runs_widens_the_interval(lineage):
    world, *checkpoints = lineage
    draws = crossfit_draws(*checkpoints, world.harmful)
    value = crossfit(*checkpoints, world.harmful)
    alone = drift.over_runs(np.full(5, value))
    with_prompts = drift.over_runs(np.full(5, value), np.stack([draws] * 5))
    assert alone.alignment.high - alone.alignment.low < 1e-9
    assert with_prompts.alignment.low < value < with_prompts.alignment.high


def test_runs_without_a_number_are_refused():
    with pytest.raises(StatisticsError, match="1 without a number"):
        drift.over_runs(np.array([0.1, np.nan]))
