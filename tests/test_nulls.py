"""Nulls: exact values, closed forms, equality with the long way round, and validity of every p-value."""

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from probes import drift, nulls
from probes.directions.reversion import reversions_at_layer
from probes.errors import StatisticsError
from probes.nulls.draws import cosine_quantile, cosine_tail
from probes.nulls.permutation import studentise_joint, welch
from probes.statistics import limit_name
from tests.worlds import World, power_law, reversion_of


@pytest.fixture(scope="module")
def world():
    return World(np.random.default_rng(8), per_class=24, spectrum=power_law(96))


@pytest.fixture(scope="module")
def checkpoints(world):
    back = world.like_content() + world.only_harmful(world.like_content())
    return [world.checkpoint(share * back) for share in (0.0, 1.0, 0.3)]


@pytest.fixture(scope="module")
def resampling(world):
    return nulls.Resampling.of(world.harmful, draws=2_000, permutations=999, seed=1)


@pytest.fixture(scope="module")
def layer(world, checkpoints, resampling):
    return layer_of(world, checkpoints, resampling)


@pytest.fixture(scope="module")
def null_tests(layer, checkpoints):
    return layer.against(checkpoints[2])


def layer_of(world, checkpoints, resampling, **options):
    aligned, witness, *_ = checkpoints
    reversion = reversion_of(aligned, witness, world.harmful)
    return nulls.LayerNulls(aligned, reversions_at_layer(aligned, witness), reversion, resampling, **options)


@pytest.mark.parametrize(("width", "p99"), [(2048, 0.0514), (3072, 0.0420), (4096, 0.0363)])
def test_the_isotropic_p99_is_exact(width, p99):
    result = nulls.isotropic(p99, width).result()
    assert result.limit == pytest.approx(p99, abs=5e-5)
    assert result.p == pytest.approx(0.01, abs=2e-4)
    assert result.draws == 0


def test_the_isotropic_law_is_that_of_random_directions():
    directions = np.random.default_rng(0).standard_normal((20_000, 12))
    cosines = directions[:, 0] / np.linalg.norm(directions, axis=1)
    for cosine_there in (0.1, 0.3, 0.6):
        tail = cosine_tail(cosine_there, 12)
        assert tail == pytest.approx(stats.beta.sf(cosine_there**2, 0.5, 5.5) / 2)
        assert tail == pytest.approx((cosines >= cosine_there).mean(), abs=0.01)
    assert cosine_tail(cosine_quantile(0.9, 12), 12) == pytest.approx(0.1)


def test_shrinkage_equals_scikit_learns(world):
    for rows in (world.content, world.content[:, :20]):
        assert nulls.Spectrum.of(rows).shrinkage == pytest.approx(ledoit_wolf_shrinkage(rows))


def test_the_spectrum_is_that_of_the_ledoit_wolf_covariance(world):
    spectrum = nulls.Spectrum.of(world.content)
    values = np.linalg.eigvalsh(LedoitWolf().fit(world.content).covariance_)[::-1]
    ours = np.r_[spectrum.variances, np.full(spectrum.beyond, spectrum.floor)]
    np.testing.assert_allclose(ours, values, rtol=1e-8)
    assert spectrum.participation_ratio == pytest.approx(values.sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("without", [0, 3])
def test_draws_of_the_profile_have_the_law_of_draws_with_the_full_covariance(world, resampling, without):
    spectrum = nulls.Spectrum.of(world.content)
    direction = world.like_content()
    ours = spectrum.cosines(direction, resampling.mixtures, (1,), (without,))[0]
    values, axes = np.linalg.eigh(LedoitWolf().fit(world.content).covariance_)
    trimmed = axes[:, : values.size - without]
    draws = np.random.default_rng(3).standard_normal((2_000, trimmed.shape[1])) * np.sqrt(values[: trimmed.shape[1]])
    target = trimmed.T @ direction
    theirs = draws @ target / np.linalg.norm(draws, axis=1) / np.linalg.norm(target)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def within_class_covariance(rows, harmful):
    """The long way round: n − 2 degrees of freedom."""
    centred = rows - np.where(harmful[:, None], rows[harmful].mean(axis=0), rows[~harmful].mean(axis=0))
    return centred.T @ centred / (len(rows) - 2)


@pytest.mark.parametrize("width", [24, 96])
def test_draws_have_the_sample_covariance_within_the_classes(width):
    world = World(np.random.default_rng(8), per_class=24, spectrum=power_law(width), gap=0.5)
    source = nulls.ClassCovariance.of(world.content, world.harmful)
    expected = within_class_covariance(world.content, world.harmful)
    mixtures = world.rng.standard_normal((60_000, 48), dtype=np.float32)
    ours = np.cov(source.draw(mixtures), rowvar=False)
    np.testing.assert_allclose(ours, expected, atol=0.05 * np.trace(expected) / width**0.5)
    assert source.participation_ratio == pytest.approx(np.trace(expected) ** 2 / (expected**2).sum())
    vectors = world.like_content(2)
    products, squared = source.draw_products(vectors, mixtures[:50])
    np.testing.assert_allclose(products, vectors @ source.draw(mixtures[:50]).T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(squared, (source.draw(mixtures[:50]) ** 2).sum(axis=1), rtol=1e-3)


def test_the_gap_between_the_classes_is_not_in_the_covariance_that_tests_draw_from():
    """A gap of half of the variance is the first component over all prompts, and no part of the draws."""
    world = World(np.random.default_rng(5), per_class=64, spectrum=power_law(96, 0.5), gap=0.5)
    gap = world.apart
    pooled, within = nulls.Spectrum.of(world.content), nulls.ClassCovariance.of(world.content, world.harmful)
    mixtures = world.rng.standard_normal((4_000, world.count), dtype=np.float32)
    over_all = np.quantile(pooled.cosines(gap, mixtures, (1,))[0], 0.99)
    inside = np.quantile(within.cosines(gap, mixtures), 0.99)
    assert over_all > 0.9
    assert inside < 0.5


def test_with_equal_variances_the_covariance_null_is_the_isotropic_one():
    """Closed form: where Σ is a multiple of the identity, the cosine has the exact t law."""
    world = World(np.random.default_rng(0), per_class=1_000, spectrum=np.ones(12))
    source = nulls.ClassCovariance.of(world.content, world.harmful)
    mixtures = world.rng.standard_normal((10_000, 2_000), dtype=np.float32)
    cosines = source.cosines(world.like_content(), mixtures)
    assert np.quantile(cosines, 0.95) == pytest.approx(cosine_quantile(0.95, 12), rel=0.05)


def test_the_covariance_null_widens_as_few_directions_carry_the_variance(resampling):
    widths = []
    for exponent in (0.0, 1.0, 2.0):
        world = World(np.random.default_rng(4), per_class=24, spectrum=power_law(96, exponent))
        source = nulls.ClassCovariance.of(world.content, world.harmful)
        cosines = source.cosines(world.like_content(), resampling.mixtures)
        widths.append((source.participation_ratio, np.quantile(cosines, 0.99)))
    assert widths == sorted(widths, reverse=True, key=lambda pair: pair[0])
    assert widths[0][1] < widths[1][1] < widths[2][1]


def test_a_reversion_of_harmful_prompts_alone_is_not_in_the_covariance_of_differences():
    world = World(np.random.default_rng(6), per_class=24, spectrum=np.ones(96), noise=0.3)
    back = world.only_harmful(3 * world.like_content())
    aligned, witness = world.checkpoint(0.0), world.checkpoint(back)
    within = nulls.ClassCovariance.of(witness - aligned, world.harmful)
    total = nulls.Spectrum.of(witness - aligned)
    assert total.participation_ratio < 3 < 20 < within.participation_ratio


def test_whitened_and_trimmed_cosines_equal_the_long_way_round(world, checkpoints, null_tests):
    aligned, witness, tuned = checkpoints
    values, axes = np.linalg.eigh(LedoitWolf().fit(aligned).covariance_)
    first, second = drift.split_weights(world.harmful, 50, np.random.default_rng([1, 0xD81F7]))
    metrics = {
        "whitened": axes / np.sqrt(values),
        "top_1_removed": axes[:, :-1],
        "top_3_removed": axes[:, :-3],
    }
    for name, metric in metrics.items():
        moved, back = (tuned - aligned) @ metric, (witness - aligned) @ metric
        cosines = []
        for first_half, second_half in zip(first * world.harmful, second * world.harmful, strict=True):
            cosines += [cosine(first_half @ moved, second_half @ back), cosine(second_half @ moved, first_half @ back)]
        assert null_tests[name].observed == pytest.approx(np.mean(cosines), abs=1e-6), name


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_taking_out_too_many_directions_is_not_defined(null_tests):
    result = null_tests["top_50_removed"].result()
    assert (result.p, result.limit) == (None, None)
    assert "50 of 96 dimensions" in result.reason


def test_whitening_a_reversion_that_vanishes_in_it_is_not_defined():
    world = World(np.random.default_rng(1), per_class=24, spectrum=np.r_[1e4, np.ones(95)], noise=1.0)
    back = np.r_[3.0, np.zeros(95)]
    checkpoints = [world.checkpoint(share * back) for share in (0.0, 1.0, 0.5)]
    resampling = nulls.Resampling.of(world.harmful, draws=99, permutations=99)
    tests = layer_of(world, checkpoints, resampling).against(checkpoints[2])
    assert "does not agree with itself" in tests["top_1_removed"].reason


def test_every_line_of_the_profile_says_what_it_removes(null_tests):
    assert all("remove" in null_tests[name].result().note for name in set(nulls.PROFILE) & set(null_tests))
    shares = [float(null_tests[f"top_{count}_removed"].note.split()[1]) for count in (1, 3, 10)]
    assert shares == sorted(shares)


def test_random_differences_are_those_of_real_prompts_of_one_class(world, checkpoints, resampling, null_tests):
    aligned, witness, _ = checkpoints
    direction = (witness - aligned)[world.harmful].mean(axis=0)
    for name, couples in (("random_difference", resampling.same), ("random_difference_across", resampling.across)):
        left, right = couples
        assert (left != right).all()
        assert ((world.harmful[left] == world.harmful[right]) == (name == "random_difference")).all()
        expected = [cosine(aligned[i] - aligned[j], direction) for i, j in zip(left[:50], right[:50], strict=True)]
        np.testing.assert_allclose(null_tests[name].draws[:50], expected, atol=1e-5)
    assert len(np.unique(resampling.same[0])) == 48


def test_where_prompts_of_a_class_do_not_differ_the_tests_are_not_defined_and_no_error():
    """The embedding of the last token of a chat template is the same for every prompt."""
    world = World(np.random.default_rng(2), per_class=24, spectrum=np.ones(32))
    world.content = np.full((48, 32), 0.3) + world.only_harmful(np.full(32, 0.1))
    back = world.like_content()
    checkpoints = [world.content, world.content + back, world.content + 0.5 * back + 0.01 * world.like_content(48)]
    resampling = nulls.Resampling.of(world.harmful, draws=99, permutations=99)
    tests = layer_of(world, checkpoints, resampling).test(
        layer_of(world, checkpoints, resampling).grams(checkpoints[2])
    )
    for name in ("covariance_aligned", "covariance_difference", "random_difference"):
        result = tests[name].result()
        assert (result.p, result.defined) == (None, False), name
    assert tests["sign_flip"].result().p < 0.05


def long_welch(labels, values):
    high, low = values[labels], values[~labels]
    return stats.ttest_ind(high, low, equal_var=False).statistic


@pytest.mark.parametrize("per_class", [24, (20, 40)])
def test_the_studentised_difference_is_welchs_t(per_class):
    world = World(np.random.default_rng(8), per_class=per_class)
    permutations = nulls.Permutations.of(world.harmful, None, None, 30, world.rng)
    values = world.rng.standard_normal((world.count, 3)) * np.where(world.harmful, 1, 4)[:, None] + 100
    ours = welch(permutations.called, values)
    expected = [[long_welch(row > 0, values[:, k]) for k in range(3)] for row in permutations.called]
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("per_class", [24, (20, 40)])
def test_the_joint_permutation_equals_the_long_way_round(per_class):
    """Displacement along the harmful minus harmless reversion of the other prompts, labels permuted for both."""
    world = World(np.random.default_rng(8), per_class=per_class, spectrum=power_law(96))
    moved, back = world.like_content(world.count), world.like_content(world.count)
    moved, back = moved - moved.mean(axis=0), back - back.mean(axis=0)
    permutations = nulls.Permutations.of(world.harmful, None, None, 12, world.rng)
    ours = studentise_joint(permutations.called, moved @ back.T)
    for row, value in zip(permutations.called > 0, ours, strict=True):
        contrast = row / row.sum() - ~row / (~row).sum()
        along = np.array([moved[i] @ (contrast @ back - contrast[i] * back[i]) for i in range(world.count)])
        assert value == pytest.approx(long_welch(row, along), rel=2e-3, abs=2e-3)


def labels_of(harmful, groups=None, pairs=None, count=200):
    return nulls.Permutations.of(harmful, groups, pairs, count, np.random.default_rng(0))


def test_without_groups_all_labels_are_dealt_out(resampling, world):
    called = resampling.labels.called > 0
    assert (called.sum(axis=1) == world.harmful.sum()).all()
    assert (called[0] == world.harmful).all()
    assert len({row.tobytes() for row in called[:100]}) > 90


def test_labels_change_hands_within_pairs():
    harmful, pairs = np.tile([True, False], 12), np.repeat(np.arange(12), 2)
    permutations = labels_of(harmful, pairs // 2, pairs)
    assert (permutations.called.reshape(-1, 12, 2).sum(axis=2) == 1).all()
    assert permutations.arrangements == pytest.approx(12 * np.log(2))
    assert permutations.units is None


def test_a_prompt_without_its_partner_changes_hands_within_its_topic():
    harmful, pairs = np.tile([True, False], 12), np.repeat(np.arange(12), 2)
    left = np.delete(np.arange(24), [0, 3])  # one of either class, of two pairs of topic 0
    called = labels_of(harmful[left], (pairs // 3)[left], pairs[left]).called
    lone = called[:, :2]
    assert (lone.sum(axis=1) == 1).all()
    assert 0.3 < lone[1:, 0].mean() < 0.7
    assert (called[:, 2:].reshape(len(called), -1, 2).sum(axis=2) == 1).all()


def test_labels_change_hands_within_topics_that_hold_both():
    harmful, groups = np.tile([True, True, False], 8), np.repeat(np.arange(8), 3)
    called = labels_of(harmful, groups).called
    assert (called.reshape(-1, 8, 3).sum(axis=2) == 2).all()
    assert called.std(axis=0).min() > 0.3


def test_topics_of_one_class_change_hands_whole():
    harmful, groups = np.repeat([True, False], 32), np.arange(64) // 4
    permutations = labels_of(harmful, groups)
    assert permutations.units.shape == (16, 64)
    assert (permutations.called.sum(axis=1) == 8).all()
    values = np.arange(64.0)[:, None]
    np.testing.assert_allclose(permutations.average(values)[:, 0], values.reshape(16, 4).mean(axis=1))
    turned = permutations.exchange(values, np.random.default_rng(1))
    inside = values.reshape(16, 4) - values.reshape(16, 4).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(turned.reshape(16, 4) - turned.reshape(16, 4).mean(axis=1, keepdims=True), inside)


def test_too_few_groups_are_said_and_nothing_is_flipped_or_permuted(world, checkpoints):
    few = nulls.Resampling.of(world.harmful, groups=np.arange(48) % 4, draws=99, permutations=99)
    tests = layer_of(world, checkpoints, few).against(checkpoints[2])
    for name in ("sign_flip", *nulls.SPECIFICITY):
        result = tests[name].result()
        assert (result.p, result.defined) == (None, True)
        assert "too few groups (4;" in result.reason
    assert tests["covariance_aligned"].result().p is not None
    eight = nulls.Resampling.of(world.harmful, groups=np.arange(48) % 8, draws=99, permutations=99)
    assert "16 arrangements cannot reach p = 0.05" in eight.few_signs
    assert eight.few_labels is None


def test_signs_flip_group_by_group():
    world = World(np.random.default_rng(8), per_class=32, spectrum=power_law(96), topic=4)
    resampling = nulls.Resampling.of(world.harmful, groups=world.groups, draws=500, permutations=99)
    assert resampling.signs.shape == (500, 16)
    assert (resampling.sign_units == world.groups[world.harmful]).all()
    assert all(len({*resampling.fold[world.groups == group]}) == 1 for group in range(16))


def test_folds_of_the_tests_hold_half_of_each_class(resampling, world):
    assert resampling.fold[world.harmful].sum() == resampling.fold[~world.harmful].sum() == 12


def test_p_values_count_the_observed_among_the_draws():
    null = nulls.NullDraws("sham_drift", "alignment_crossfit", 0.5, np.array([0.1, 0.5, 0.7, 0.2]))
    assert null.result().p == pytest.approx(3 / 5)
    best = nulls.sham_drift(0.9, np.linspace(0, 0.8, 19)).result()
    assert (best.p, best.draws) == (0.05, 19)


def test_of_few_draws_the_largest_is_shown_and_no_percentile():
    few = nulls.sham_drift(0.9, np.linspace(0, 0.8, 39)).result()
    many = nulls.sham_drift(0.9, np.linspace(0, 0.8, 199)).result()
    assert (few.limit, limit_name(39)) == (0.8, "largest of 39 draws")
    assert many.limit == pytest.approx(0.792)
    assert limit_name(199) == limit_name(0) == "99th percentile"


def test_an_undefined_observation_has_a_reason_and_no_p_value():
    result = nulls.sham_drift(float("nan"), np.zeros(19)).result()
    assert (result.observed, result.p, result.limit) == (None, None, None)
    assert result.reason == "alignment_crossfit is not defined"


def test_a_sham_that_did_not_move_is_refused(world, layer, checkpoints):
    with pytest.raises(StatisticsError, match="draws that are not finite"):
        nulls.sham_drift(0.5, np.array([0.1, np.nan]))
    still = nulls.Shams.of(layer, checkpoints[2], [np.zeros((24, 96))])
    with pytest.raises(StatisticsError, match="draws that are not finite"):
        still.tests(0.5)


@pytest.mark.parametrize(
    ("cannot", "missed", "kind"),
    [
        (0, 0, None),
        (3, 0, None),
        (0, 3, None),
        (4, 0, "cannot"),
        (20, 19, "cannot"),
        (0, 4, "missed"),
        (3, 2, "missed"),
    ],
)
def test_shams_that_do_not_move_as_far_are_no_reference_and_the_reason_says_which_kind(cannot, missed, kind):
    """Of 39, over a tenth are four. A draw that has been seen beyond the distance can reach it."""
    lengths = np.array([0.6] * cannot + [1.3] * missed + [1.0] * (39 - cannot - missed))
    absent = nulls.why_no_reference(np.arange(39) >= cannot + missed, lengths)
    if kind is None:
        assert absent is None
        return
    assert [null.name for null in absent] == list(nulls.SHAMS)
    for null in absent:
        assert null.result().p is None
        assert null.result().defined, "it caps the level"
        words = (
            "missed the scale of" if kind == "missed" else f"not defined: {cannot} of 39 draws of weight noise cannot"
        )
        assert words in null.result().reason


def test_sham_cosines_are_the_cross_fitted_alignment(world, checkpoints, layer):
    aligned, witness, tuned = checkpoints
    true = drift.crossfit(aligned, reversions_at_layer(aligned, witness), tuned, world.harmful, seed=1)
    shams = nulls.Shams.of(layer, tuned, [(end - aligned)[world.harmful] for end in (tuned, witness)])
    assert shams.drift[0] == pytest.approx(true, abs=1e-9)
    assert shams.witness[1] == pytest.approx(true, abs=1e-9)
    mean = (tuned - aligned)[world.harmful].mean(axis=0)
    np.testing.assert_allclose(shams.moves[0].mean(axis=0), mean, rtol=1e-4, atol=1e-6)


def test_sign_flip_is_small_for_a_reversion_and_not_for_prompts_that_do_not_agree(layer, checkpoints):
    aligned, _, tuned = checkpoints
    assert layer.against(tuned)["sign_flip"].result().p < 0.01
    flipped = aligned + (tuned - aligned) * np.tile([1.0, -1.0], 24)[:, None]
    assert layer.against(flipped)["sign_flip"].result().p > 0.05


def test_every_null_is_there_once_and_equal_seeds_give_equal_results(world, checkpoints):
    first, second = (
        [
            null.result()
            for null in layer_of(
                world, checkpoints, nulls.Resampling.of(world.harmful, draws=99, permutations=99, seed=3)
            )
            .against(checkpoints[2])
            .values()
        ]
        for _ in range(2)
    )
    assert first == second
    names = [result.name for result in first]
    decide = {*nulls.TOWARDS_WITNESS, *nulls.SPECIFICITY} - set(nulls.SHAMS)
    assert len(names) == len(set(names)) == 13
    assert set(names) == decide | (set(nulls.PROFILE) - {"sham_drift_weights"})


def null_of(observed, draws):
    return nulls.NullDraws("covariance_aligned", "alignment_crossfit", observed, draws)


def test_the_maximum_over_layers_is_valid_and_no_smaller_than_a_layers_own_p():
    rng = np.random.default_rng(0)
    smallest = []
    for _ in range(300):
        draws = rng.standard_normal((6, 200)) * np.linspace(0.05, 0.3, 6)[:, None]
        layers = [null_of(float(row[0]), row[1:]) for row in draws]
        adjusted = nulls.max_over_layers(layers)
        assert all(p >= null.p_value() - 1e-12 for p, null in zip(adjusted, layers, strict=True))
        smallest.append(min(adjusted))
    assert stats.binomtest(int((np.array(smallest) <= 0.05).sum()), 300, 0.05, "greater").pvalue > 0.01
    assert np.mean(smallest) == pytest.approx(0.5, abs=0.1), "six layers corrected once, not six times too strictly"


def test_the_maximum_over_layers_leaves_out_layers_that_are_not_defined():
    missing = nulls.NullDraws("covariance_aligned", "alignment_crossfit", None, reason="zero displacement")
    adjusted = nulls.max_over_layers([missing, null_of(0.9, np.linspace(0, 0.5, 99))])
    assert adjusted == [None, 0.01]
    assert nulls.max_over_layers([missing]) == [None]


def test_an_exact_law_is_corrected_by_the_number_of_layers():
    layers = [nulls.isotropic(cosine_quantile(0.99, 64), 64), nulls.isotropic(-0.2, 64)]
    assert nulls.max_over_layers(layers) == pytest.approx([0.02, 1.0])
