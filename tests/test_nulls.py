"""Nulls: exact values, closed forms, equality with the long way round, and validity of every p-value."""

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from probes import drift, nulls
from probes.errors import StatisticsError
from probes.nulls.draws import cosine_quantile, cosine_tail
from tests.worlds import World, power_law


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
def found(checkpoints, resampling):
    aligned, witness, tuned = checkpoints
    return nulls.LayerNulls(aligned, witness, resampling).against(tuned)


@pytest.mark.parametrize(("width", "p99"), [(2048, 0.0514), (3072, 0.0420), (4096, 0.0363)])
def test_the_isotropic_p99_is_exact(width, p99):
    result = nulls.isotropic(p99, width).result()
    assert result.p99 == pytest.approx(p99, abs=5e-5)
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
def test_draws_have_the_law_of_draws_with_the_full_covariance(world, resampling, without):
    spectrum = nulls.Spectrum.of(world.content)
    direction = world.like_content()
    ours = spectrum.cosines(direction, resampling.mixtures, (1,), (without,))[0]
    values, axes = np.linalg.eigh(LedoitWolf().fit(world.content).covariance_)
    kept = axes[:, : values.size - without]
    draws = np.random.default_rng(3).standard_normal((2_000, kept.shape[1])) * np.sqrt(values[: kept.shape[1]])
    target = kept.T @ direction
    theirs = draws @ target / np.linalg.norm(draws, axis=1) / np.linalg.norm(target)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def test_with_equal_variances_the_covariance_null_is_the_isotropic_one():
    """Closed form: where Σ is a multiple of the identity, the cosine has the exact t law."""
    world = World(np.random.default_rng(0), per_class=100, spectrum=np.ones(48))
    spectrum = nulls.Spectrum.of(world.content)
    assert spectrum.shrinkage > 0.9
    mixtures = world.rng.standard_normal((40_000, 200), dtype=np.float32)
    cosines = spectrum.cosines(world.like_content(), mixtures, (5,))[0]
    assert np.quantile(cosines, 0.99) == pytest.approx(cosine_quantile(0.99, 48), rel=0.03)


def test_the_covariance_null_widens_as_few_directions_carry_the_variance(resampling):
    widths = []
    for exponent in (0.0, 1.0, 2.0):
        world = World(np.random.default_rng(4), per_class=24, spectrum=power_law(96, exponent))
        spectrum = nulls.Spectrum.of(world.content)
        cosines = spectrum.cosines(world.like_content(), resampling.mixtures, (1,))[0]
        widths.append((spectrum.participation_ratio, np.quantile(cosines, 0.99)))
    assert widths == sorted(widths, reverse=True, key=lambda pair: pair[0])
    assert widths[0][1] < widths[1][1] < widths[2][1]


def test_a_reversion_of_harmful_prompts_alone_is_not_in_the_covariance_of_differences():
    world = World(np.random.default_rng(6), per_class=24, spectrum=np.ones(96), noise=0.3)
    back = world.only_harmful(3 * world.like_content())
    aligned, witness = world.checkpoint(0.0), world.checkpoint(back)
    pooled = nulls.Spectrum.of(witness - aligned, world.harmful)
    total = nulls.Spectrum.of(witness - aligned)
    assert total.participation_ratio < 3 < 20 < pooled.participation_ratio


def test_whitened_and_trimmed_cosines_equal_the_long_way_round(world, checkpoints, found):
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
        each = []
        for one, other in zip(first * world.harmful, second * world.harmful, strict=True):
            each += [cosine(one @ moved, other @ back), cosine(other @ moved, one @ back)]
        assert found[name].observed == pytest.approx(np.mean(each), abs=1e-6), name


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


def test_taking_out_too_many_directions_is_not_defined(found):
    result = found["top_50_removed"].result()
    assert (result.p, result.p99) == (None, None)
    assert "50 of 96 dimensions" in result.reason


def test_whitening_a_reversion_that_vanishes_in_it_is_not_defined():
    world = World(np.random.default_rng(1), per_class=24, spectrum=np.r_[1e4, np.ones(95)], noise=1.0)
    back = np.r_[3.0, np.zeros(95)]
    aligned, witness, tuned = (world.checkpoint(share * back) for share in (0.0, 1.0, 0.5))
    resampling = nulls.Resampling.of(world.harmful, draws=99, permutations=99)
    found = nulls.LayerNulls(aligned, witness, resampling).against(tuned)
    assert "does not agree with itself" in found["top_1_removed"].reason


def test_random_differences_are_those_of_real_prompts(world, checkpoints, resampling, found):
    aligned, witness, _ = checkpoints
    direction = (witness - aligned)[world.harmful].mean(axis=0)
    one, other = resampling.pairs
    assert (one != other).all()
    expected = [cosine(aligned[i] - aligned[j], direction) for i, j in zip(one[:50], other[:50], strict=True)]
    np.testing.assert_allclose(found["random_difference"].draws[:50], expected, atol=1e-9)


def test_label_permutations_equal_the_long_way_round(world, checkpoints, resampling, found):
    aligned, witness, tuned = checkpoints
    expected = [
        cosine(row @ (tuned - aligned), row @ (witness - aligned)) for row in resampling.labels[:20].astype(float)
    ]
    ours = found["label_permutation"]
    np.testing.assert_allclose([ours.observed, *ours.draws[:19]], expected, atol=1e-5)
    assert ours.observed == pytest.approx(
        drift.measure(*checkpoints, world.harmful, bootstraps=0)["did_alignment"].value, abs=1e-5
    )


def test_permuted_labels_keep_the_class_sizes_and_differ(resampling, world):
    called = resampling.labels > 0
    assert (called.sum(axis=1) == world.harmful.sum()).all()
    assert (called[0] == world.harmful).all()
    assert len({row.tobytes() for row in called[:100]}) > 90


def test_folds_of_the_tests_hold_half_of_each_class(resampling, world):
    assert resampling.fold[world.harmful].sum() == resampling.fold[~world.harmful].sum() == 12


def test_p_values_count_the_observed_among_the_draws():
    null = nulls.NullDraws("sham_drift", "alignment_crossfit", 0.5, np.array([0.1, 0.5, 0.7, 0.2]))
    assert null.result().p == pytest.approx(3 / 5)
    best = nulls.sham_drift(0.9, np.linspace(0, 0.8, 19)).result()
    assert (best.p, best.draws) == (0.05, 19)


def test_an_undefined_observation_has_a_reason_and_no_p_value():
    result = nulls.sham_drift(float("nan"), np.zeros(19)).result()
    assert (result.observed, result.p, result.p99) == (None, None, None)
    assert result.reason == "alignment_crossfit is not defined"


def test_a_sham_that_did_not_move_is_refused():
    with pytest.raises(StatisticsError, match="draws that are not finite"):
        nulls.sham_drift(0.5, np.array([0.1, np.nan]))


def test_sham_cosines_are_the_cross_fitted_alignment(world, checkpoints):
    aligned, witness, tuned = checkpoints
    true = drift.crossfit(aligned, witness, tuned, world.harmful)
    assert nulls.sham_drift_cosines(aligned, witness, iter([tuned, tuned]), world.harmful) == pytest.approx(true)
    assert nulls.sham_witness_cosines(aligned, [witness], tuned, world.harmful) == pytest.approx(true)


def test_sign_flip_is_small_for_a_reversion_and_not_for_prompts_that_do_not_agree(world, checkpoints, resampling):
    aligned, witness, tuned = checkpoints
    prepared = nulls.LayerNulls(aligned, witness, resampling)
    assert prepared.against(tuned)["sign_flip"].result().p < 0.01
    flipped = aligned + (tuned - aligned) * np.tile([1.0, -1.0], 24)[:, None]
    assert prepared.against(flipped)["sign_flip"].result().p > 0.05


def test_every_null_is_there_once_and_equal_seeds_give_equal_results(world, checkpoints):
    options = {"draws": 99, "permutations": 99, "seed": 3}
    first, second = (nulls.activation_nulls(*checkpoints, world.harmful, **options) for _ in range(2))
    assert first == second
    names = [result.name for result in first]
    assert len(names) == len(set(names)) == 12
    assert names[:3] == ["isotropic", "covariance_aligned", "covariance_difference"]


def test_bad_input_is_refused_before_anything_is_drawn(world, checkpoints):
    aligned, _, tuned = checkpoints
    with pytest.raises(StatisticsError, match="witness equals"):
        nulls.activation_nulls(aligned, aligned, tuned, world.harmful)


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


def test_a_trajectory_null_averages_fisher_z_of_observed_and_draws_alike():
    steps = [null_of(0.2, np.array([0.1, 0.0])), null_of(0.8, np.array([0.3, 0.0]))]
    joined = nulls.over_steps(steps)
    assert joined.observed == pytest.approx(np.tanh(np.mean(np.arctanh([0.2, 0.8]))))
    np.testing.assert_allclose(joined.draws, [np.tanh(np.mean(np.arctanh([0.1, 0.3]))), 0.0])
    assert joined.statistic == "trajectory_alignment_crossfit"
    assert nulls.over_steps([nulls.isotropic(0.2, 64), nulls.isotropic(0.8, 64)]).width == 64


def test_a_trajectory_null_leaves_out_undefined_steps():
    missing = nulls.NullDraws("covariance_aligned", "alignment_crossfit", None, reason="zero displacement")
    assert nulls.over_steps([missing, null_of(0.4, np.zeros(3))]).observed == pytest.approx(0.4)
    assert nulls.over_steps([missing]).result().reason == "zero displacement"
