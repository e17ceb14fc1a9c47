"""Power and the refusal axis: what is said to be found so often is found so often, and what is not, is not."""

import numpy as np
import pytest
from scipy import stats

from probes import nulls
from probes.directions.estimator import mean_difference
from probes.directions.reversion import reversions_at_layer
from probes.nulls.plants import REPLICATES, Planting
from tests.worlds import World, power_law, reversion_of

RUNS = 60


def layer_of(world, aligned, witness, seed=0, **options):
    resampling = nulls.Resampling.of(
        world.harmful, groups=world.groups, pairs=world.pairs, draws=499, permutations=499, seed=seed
    )
    reversion = reversion_of(aligned, witness, world.harmful)
    return nulls.LayerNulls(aligned, reversions_at_layer(aligned, witness), reversion, resampling, splits=10)


def run_of(seed, alignment=0.5, gap=0.3, per_class=32, width=96, noise=0.5, **options):
    """A run whose displacement has this alignment, beside noise with the covariance within the classes."""
    world = World(np.random.default_rng([seed, 5]), per_class, power_law(width, 0.5), noise, gap, **options)
    back = world.only_harmful(-0.5 * world.apart + 3 * world.direction() if gap else 3 * world.direction())
    length = np.linalg.norm(back[0])
    moved = alignment * back[0] + np.sqrt(1 - alignment**2) * length * world.direction()
    aligned, witness = world.checkpoint(0.0), world.checkpoint(back)
    tuned = world.checkpoint(0.6 * moved)
    shams = [world.checkpoint(0.6 * length * world.direction())[world.harmful] for _ in range(39)]
    return world, aligned, witness, tuned, [sham - aligned[world.harmful] for sham in shams]


def test_plants_have_the_declared_alignment_and_the_runs_own_norm():
    world, aligned, witness, tuned, shams = run_of(0, per_class=64, noise=0.1)
    layer = layer_of(world, aligned, witness)
    size = np.linalg.norm((tuned - aligned)[world.harmful].mean(axis=0))
    for law, plants in Planting(layer, tuned, 0.5).by_law(nulls.Shams.of(layer, tuned, shams).moves[:, 0]).items():
        along = plants.moves @ layer.reversion / np.linalg.norm(layer.reversion)
        if law == "sign_flip":
            np.testing.assert_allclose(along, 0.5 * size, rtol=1e-4)
            continue
        assert along.mean() == pytest.approx(0.5 * size, rel=1e-4), law
        assert np.sqrt((plants.moves**2).sum(axis=1).mean()) == pytest.approx(size, rel=0.02), law
        count = len(np.unique(plants.moves[:, 0]))
        assert count == 39 if law == "sham" else count > REPLICATES / 2


def test_power_never_looks_at_the_direction_that_was_observed():
    world, aligned, witness, tuned, shams = run_of(1)
    layer, size = layer_of(world, aligned, witness), tuned - aligned
    moved = nulls.Shams.of(layer, tuned, shams)
    mean = size[world.harmful].mean(axis=0)
    turned = np.roll(mean, 7)
    elsewhere = tuned + world.only_harmful(turned - mean)
    before, after = (nulls.measure_power(layer, checkpoint, moved) for checkpoint in (tuned, elsewhere))
    for name in set(before.tests) - {"label_permutation", "label_permutation_crossfit"}:
        assert before.tests[name] == pytest.approx(after.tests[name], abs=0.02), name


def test_power_is_how_often_the_tests_reject_at_that_alignment():
    """Of runs planted at the alternative the tests reject about as many as their power says, test by test."""
    rejected, powers = [], []
    for seed in range(RUNS):
        world, aligned, witness, tuned, shams = run_of(seed, alignment=0.35, width=48)
        layer = layer_of(world, aligned, witness, seed)
        moved = nulls.Shams.of(layer, tuned, shams)
        results = layer.test(layer.grams(tuned))
        results |= moved.tests(layer.observe(layer.grams(tuned).only_harmful()))
        power = nulls.measure_power(layer, tuned, moved, alignment=0.35).tests
        names = ("covariance_aligned", "covariance_difference", "random_difference", "sham_drift", "sham_witness")
        rejected.append([results[name].p_value() <= 0.05 for name in names])
        powers.append([power[name] for name in names])
    for name, share, expected in zip(names, np.mean(rejected, axis=0), np.mean(powers, axis=0), strict=True):
        assert 0.1 < expected < 0.9, "where the power is 0 or 1, this shows nothing"
        assert stats.binomtest(round(RUNS * share), RUNS, expected).pvalue > 0.005, (name, share, expected)


def test_power_grows_with_the_alignment_and_falls_with_the_noise_of_the_shams():
    world, aligned, witness, tuned, shams = run_of(3)
    layer = layer_of(world, aligned, witness)
    moved = nulls.Shams.of(layer, tuned, shams)
    weak, strong = (nulls.measure_power(layer, tuned, moved, alignment=alignment) for alignment in (0.2, 0.7))
    assert all(strong.tests[name] >= weak.tests[name] for name in strong.tests)
    assert strong.together > weak.together
    assert all(weak.together <= weak.tests[name] + 0.1 for name in nulls.TOWARDS_WITNESS)
    towards = layer.reversion / np.linalg.norm(layer.reversion)
    pulled = nulls.Shams.of(layer, tuned, [sham + 3 * np.linalg.norm(sham.mean(axis=0)) * towards for sham in shams])
    assert nulls.measure_power(layer, tuned, pulled).tests["sham_drift"] < 0.1


def test_a_sham_that_is_the_noise_is_left_out_of_the_reference():
    """With it, every replicate's own noise would pull as far as the replicate, and no sham witness were ever beaten."""
    world, aligned, witness, tuned, shams = run_of(4, per_class=64, noise=0.1)
    layer = layer_of(world, aligned, witness)
    assert nulls.measure_power(layer, tuned, nulls.Shams.of(layer, tuned, shams)).tests["sham_witness"] > 0.8


def test_power_of_the_label_permutations_needs_a_difference_between_the_classes():
    world, aligned, witness, tuned, _ = run_of(5)
    layer = layer_of(world, aligned, witness)
    power = nulls.measure_power(layer, tuned)
    assert power.specificity > 0.9
    common = witness + (~world.harmful)[:, None] * (witness - aligned)[world.harmful].mean(axis=0)
    alike = layer_of(world, aligned, common)
    assert nulls.measure_power(alike, tuned).tests["label_permutation_crossfit"] < power.specificity


def axis_run(seed, cosine, *, off, per_class=32, noise=0.5, alignment=0.5):
    """v_rev at this cosine to the reversed refusal axis; motion along that axis alone, or along v_rev itself."""
    rng = np.random.default_rng([seed, 6])
    world = World(rng, per_class, power_law(256), noise)
    axis = world.direction()
    world.content = world.content + world.only_harmful(0.8 * 16 * axis)
    across = world.direction()
    across -= (across @ axis) * axis
    back = -cosine * axis + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
    moved = alignment * (back if off else -axis) + np.sqrt(1 - alignment**2) * world.direction()
    aligned, witness = world.checkpoint(0.0), world.checkpoint(world.only_harmful(10 * back))
    tuned = world.checkpoint(5 * moved)
    layer = layer_of(world, aligned, witness, seed)
    return nulls.look_off_refusal_axis(layer, tuned, mean_difference(aligned, world.harmful), alignment=alignment)


@pytest.mark.parametrize("cosine", [0.68, 0.91])
@pytest.mark.parametrize("options", [{}, {"per_class": 16, "noise": 1.0, "alignment": 0.9}])
def test_motion_along_the_refusal_axis_alone_is_not_called_off_it(cosine, options):
    answers = [axis_run(seed, cosine, off=False, **options) for seed in range(100)]
    assert sum(answer.answer == "also_off" for answer in answers) <= stats.binom.ppf(0.95, 100, 0.05)


def test_motion_off_the_refusal_axis_is_found_as_often_as_its_power_says():
    answers = [axis_run(seed, 0.68, off=True) for seed in range(100)]
    share, mean_power = (
        np.mean([answer.answer == "also_off" for answer in answers]),
        np.mean([answer.power for answer in answers]),
    )
    assert 0.3 < mean_power < 0.9
    assert share == pytest.approx(mean_power, abs=0.12)
    weak = [answer for answer in answers if answer.answer != "also_off"]
    assert {answer.answer for answer in weak} <= {"not_separable", "along_only"}
    assert all((answer.answer == "along_only") == (answer.power >= 0.8) for answer in weak)


def test_a_reversion_that_is_the_refusal_axis_itself_is_not_defined():
    world = World(np.random.default_rng(0), 32, power_law(64), gap=0.3)
    aligned = world.content
    witness = aligned - world.only_harmful(mean_difference(aligned, world.harmful))
    answer = nulls.look_off_refusal_axis(
        layer_of(world, aligned, witness), world.checkpoint(1.0), mean_difference(aligned, world.harmful)
    )
    assert (answer.answer, answer.p) == ("not_defined", None)
    assert "is the refusal axis" in answer.reason
