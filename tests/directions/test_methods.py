"""Laws that every method keeps: planted directions, swapped classes, scale, order, precision, collinear prompts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score

from probes.directions import METHODS, Estimator
from probes.directions.controls import CovarianceMatched, TopDrift
from probes.directions.lda import Lda
from probes.directions.leace import Leace
from probes.directions.logistic import STRENGTHS, Logistic, _weights
from probes.directions.mass_mean import MassMean
from probes.directions.paired_pca import PairedPca
from probes.directions.refusal import Refusal
from probes.directions.scores import chance
from probes.directions.subspace import Subspace
from probes.errors import StatisticsError

WIDTH, EACH, APART = 64, 256, 6.0
FINDERS = [name for name, method in METHODS.items() if not method.control]
CONTROLS = [name for name, method in METHODS.items() if method.control]
FITTED = ("logistic", "mass_mean", "lda", "leace", "paired_pca", "subspace")
AWARE = ("logistic", "mass_mean", "lda", "leace")


def two_classes(seed=0, mixing=None, per_class=EACH):
    """Two classes `APART` standard deviations apart along a known direction: rows, labels, direction."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(WIDTH)
    truth /= np.linalg.norm(truth)
    rows = rng.standard_normal((2 * per_class, WIDTH))
    if mixing is not None:
        rows = rows @ mixing
    labels = np.arange(2 * per_class) < per_class
    rows[labels] += APART * truth
    return rows, labels, truth


def estimator_for(name, truth=None, **options):
    """An estimator; the drift control is told what it must be orthogonal to."""
    method = METHODS[name]
    return method(off=truth, **options) if method is TopDrift else method(**options)


def couples(name, labels):
    """Pairs for the methods that look at them: the n-th of either class."""
    if METHODS[name] not in (Subspace, TopDrift):
        return None
    pairs = np.empty(len(labels), dtype=int)
    pairs[labels], pairs[~labels] = np.arange(labels.sum()), np.arange((~labels).sum())
    return pairs


def cosine(first, second):
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_direction_is_found(name, seed):
    rows, labels, truth = two_classes(seed)
    estimator = estimator_for(name).fit(rows, labels)
    assert cosine(estimator.direction_, truth) >= (0.9 if name in FITTED else 0.95)
    assert np.linalg.norm(estimator.direction_) == pytest.approx(1.0, abs=1e-12)
    assert estimator.norm_ == pytest.approx(APART, rel=0.1)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_do_not_find_it(name):
    cosines = [
        abs(
            cosine(
                estimator_for(name, two_classes(s)[2], seed=s).fit(*two_classes(s)[:2]).direction_, two_classes(s)[2]
            )
        )
        for s in range(8)
    ]
    # The gap between the classes is no part of the covariance within them.
    assert np.median(cosines) < 0.35
    if name == "control:drift":
        assert max(cosines) < 1e-10


def test_the_covariance_matched_control_is_that_of_the_covariance_within_the_classes():
    rows, labels, apart = two_classes()
    wide = np.linalg.svd(rows)[2][-1]
    rows = rows + 3 * np.outer(np.random.default_rng(0).standard_normal(len(rows)), wide)
    drawn = np.stack([CovarianceMatched(seed=s).fit(rows, labels).direction_ for s in range(100)])
    means = np.stack([rows[labels].mean(axis=0), rows[~labels].mean(axis=0)])
    values, axes = np.linalg.eigh(np.cov((rows - means[np.where(labels, 0, 1)]).T))
    assert values[-1] / values.sum() > 3 / WIDTH
    assert ((drawn @ axes[:, -1]) ** 2).mean() > 3 / WIDTH
    assert ((drawn @ apart) ** 2).mean() < 3 / WIDTH, "the gap between the classes is none of it"


def test_draws_of_the_covariance_matched_control_have_the_sample_covariance_within_the_classes():
    """Fewer prompts than dimensions: of the variance, nothing lies outside of their span."""
    rows, labels, _ = two_classes(per_class=12, mixing=np.diag(np.linspace(0.2, 3, WIDTH)))
    centred = rows - np.where(labels[:, None], rows[labels].mean(axis=0), rows[~labels].mean(axis=0))
    expected = centred.T @ centred / (len(rows) - 2)
    fits = [CovarianceMatched(seed=seed).fit(rows, labels) for seed in range(1_500)]
    draws = np.stack([fit.raw_norm_ * fit.direction_ for fit in fits])
    np.testing.assert_allclose(draws.T @ draws / len(draws), expected, atol=0.15 * np.diag(expected).max())
    assert np.abs(draws.mean(axis=0)).max() < 0.1 * np.sqrt(np.diag(expected).max())
    assert np.linalg.matrix_rank(draws) == len(rows) - 2


@pytest.mark.parametrize("per_class", [24, EACH])
@pytest.mark.parametrize("name", [name for name in CONTROLS if name != "control:drift"])  # which is an axis, no draw
def test_a_control_moves_as_little_as_the_activations_do(name, per_class):
    """All variances are alike here, so that noise turns the singular vectors, or their signs."""
    rows, labels, truth = two_classes(per_class=per_class)
    noise = np.random.default_rng(8).standard_normal(rows.shape)
    centred = (values - values.mean(axis=0) for values in (rows, rows + 0.01 * noise))
    axes, turned = (np.linalg.svd(values, full_matrices=False)[2] for values in centred)
    assert (axes * turned).sum(axis=1).min() < 0.95
    for seed in range(5):
        estimators = (estimator_for(name, truth, seed=seed) for _ in range(2))
        before, after = (
            estimator.fit(values, labels).direction_
            for estimator, values in zip(estimators, (rows, rows + 0.01 * noise), strict=True)
        )
        assert cosine(before, after) > 0.99


@pytest.mark.parametrize("name", METHODS)
def test_swapping_the_classes_negates_it(name):
    """And leaves what is drawn without a look at them, whose probabilities then say the opposite."""
    rows, labels, truth = two_classes()
    forth, back = (
        estimator_for(name, truth).fit(rows, positive, couples(name, labels)) for positive in (labels, ~labels)
    )
    drawn = METHODS[name].drawn
    assert cosine(forth.direction_, back.direction_) == pytest.approx(1.0 if drawn else -1.0, abs=1e-6)
    assert forth.norm_ == pytest.approx(back.norm_)
    assert np.allclose(forth.probability(rows), 1 - back.probability(rows), atol=1e-9)


def test_what_is_drawn_keeps_the_sign_of_its_draw():
    """Turned towards the classes a draw would lie on one side always."""
    rows, labels, truth = two_classes()
    assert [name for name, method in METHODS.items() if method.drawn] == ["control:random", "control:covariance"]
    for name in ("control:random", "control:covariance"):
        along = np.array([estimator_for(name, seed=seed).fit(rows, labels).direction_ @ truth for seed in range(60)])
        assert 15 < (along > 0).sum() < 45


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("factor", [1e-3, 37.0])
def test_scaling_leaves_it(name, factor):
    rows, labels, truth = two_classes()
    plain, scaled = (estimator_for(name, truth).fit(values, labels) for values in (rows, factor * rows))
    assert cosine(plain.direction_, scaled.direction_) == pytest.approx(1.0, abs=1e-6)
    assert scaled.norm_ == pytest.approx(factor * plain.norm_, rel=1e-3)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.dealt])
def test_the_order_of_the_prompts_does_not_matter(name):
    rows, labels, truth = two_classes()
    order = np.random.default_rng(1).permutation(len(rows))
    plain, shuffled = (
        estimator_for(name, truth).fit(rows, labels),
        estimator_for(name, truth).fit(rows[order], labels[order]),
    )
    assert np.array_equal(plain.direction_, shuffled.direction_)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_agrees(name):
    rows, labels, truth = two_classes()
    single, half = (estimator_for(name, truth).fit(values, labels) for values in (rows, rows.astype(np.float16)))
    assert cosine(single.direction_, half.direction_) > 0.999


@pytest.mark.parametrize("name", METHODS)
def test_collinear_prompts_do_not_break_it(name):
    rows, labels, truth = two_classes()
    rows[1], rows[-1] = 2 * rows[0], rows[-2]
    estimator = estimator_for(name, truth).fit(rows, labels)
    assert np.isfinite(estimator.direction_).all()
    if name in FINDERS:
        assert cosine(estimator.direction_, truth) > 0.9


@pytest.mark.parametrize("name", FINDERS)
def test_with_fewer_prompts_than_dimensions_it_still_points_there(name):
    rows, labels, truth = two_classes(per_class=24)
    assert cosine(estimator_for(name).fit(rows, labels).direction_, truth) > (
        0.4 if name in ("mass_mean", "leace") else 0.7
    )


@pytest.mark.parametrize("name", AWARE)
def test_correlated_noise_is_where_covariance_pays(name):
    """By their own criterion, AUROC on the other fold: six times the noise along an axis near the gap."""
    rng, truth = np.random.default_rng(5), two_classes()[2]
    axis = rng.standard_normal(WIDTH)
    axis -= (axis @ truth) * truth
    axis = 0.6 * truth + 0.8 * axis / np.linalg.norm(axis)
    rows, labels, _ = two_classes(mixing=np.eye(WIDTH) + 5 * np.outer(axis, axis))
    fold = np.arange(len(rows)) % 2 == 0
    scores = {
        method: roc_auc_score(labels[~fold], estimator_for(method).fit(rows[fold], labels[fold]).project(rows[~fold]))
        for method in (name, "refusal")
    }
    assert scores[name] > scores["refusal"] + 0.02


# The folds of the logistic regression are cut anew, and what is drawn evenly from the sphere does not see the rows.
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("logistic", "control:random")])
def test_a_rotation_rotates_it(name):
    rows, labels, truth = two_classes(per_class=40)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((WIDTH, WIDTH)))[0]
    plain = estimator_for(name, truth).fit(rows, labels).direction_
    turned = estimator_for(name, truth @ turn).fit(rows @ turn, labels).direction_
    assert cosine(turned, plain @ turn) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_what_cannot_be_fitted_is_refused(name):
    rows, labels, truth = two_classes(per_class=8)
    with pytest.raises(StatisticsError, match="two classes"):
        estimator_for(name, truth).fit(rows, np.ones(16, dtype=bool))
    with pytest.raises(StatisticsError, match="not finite"):
        estimator_for(name, truth).fit(np.where(rows == rows[3, 3], np.nan, rows), labels)
    with pytest.raises(StatisticsError, match="do not differ"):
        estimator_for(name, truth).fit(np.concatenate([rows[:8], rows[:8]]), labels)


@pytest.mark.parametrize("name", FINDERS)
def test_a_massive_coordinate_is_held_by_winsorising(name):
    """One dimension a thousand times the rest: the plain means are lost in it, the guarded ones are not."""
    rows, labels, truth = two_classes()
    rows[:, 7] *= 1000
    expected = np.where(np.arange(WIDTH) == 7, 0, truth)
    guarded = estimator_for(name, winsorise=3.0).fit(rows, labels).direction_
    bare = estimator_for(name).fit(rows, labels).direction_
    assert cosine(np.where(np.arange(WIDTH) == 7, 0, guarded), expected) > 0.9
    assert abs(guarded[7]) < 0.6
    if name not in AWARE:
        assert abs(bare[7]) > 0.99


def test_winsorising_leaves_ordinary_activations_alone():
    rows, labels, _ = two_classes()
    winsorised, plain = Refusal(winsorise=50.0).fit(rows, labels), Refusal().fit(rows, labels)
    assert np.allclose(winsorised.direction_, plain.direction_, atol=1e-12)


def test_logistic_is_scikit_learns():
    rows, labels, _ = two_classes(3)
    for chosen in (np.arange(2 * EACH), np.r_[0:20, EACH : EACH + 20]):
        values, positive = _scale_rows(rows[chosen]), labels[chosen]
        expected = LogisticRegression(C=5.0, max_iter=5000, tol=1e-10).fit(values, positive).coef_[0]
        assert cosine(Logistic(strength=5.0).fit(rows[chosen], positive).direction_, expected) > 1 - 1e-7


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e5])
def test_logistic_takes_scikit_learns_steps(strength):
    """Where classes can be told apart without error, too, and from where another penalty has ended."""
    rows, labels, _ = two_classes(6)
    for shift in (0.0, 20.0):
        values = _scale_rows(rows + shift * np.where(labels, 1.0, -1.0)[:, None] * np.eye(1, WIDTH))
        theirs = LogisticRegression(C=1.0, max_iter=2000, tol=1e-6, solver="newton-cholesky", warm_start=True)
        weights = None
        for penalty in (1.0, strength):
            theirs.C = penalty
            theirs.fit(values, labels)
            weights = _weights(values, labels, penalty, weights)
            assert np.allclose(weights, [*theirs.coef_[0], theirs.intercept_[0]], rtol=1e-5, atol=1e-8)


def test_the_penalty_is_about_the_one_that_scikit_learn_finds():
    rows, labels, _ = two_classes(4, mixing=4 * np.eye(WIDTH))
    strength = Logistic().fit(rows, labels).strength_
    expected = LogisticRegressionCV(
        Cs=STRENGTHS, cv=5, scoring="neg_log_loss", max_iter=5000, l1_ratios=(0,), use_legacy_attributes=True
    )
    expected = float(expected.fit(_scale_rows(rows), labels).C_[0])
    assert abs(np.log10(strength) - np.log10(expected)) <= 1


def test_lda_is_scikit_learns():
    rows, labels, _ = two_classes(5, mixing=np.diag(np.linspace(0.2, 5, WIDTH)))
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(rows, labels).coef_[0]
    assert cosine(Lda(shrinkage=0.3).fit(rows, labels).direction_, expected) == pytest.approx(1.0, abs=1e-9)
    inside = rows - np.where(labels[:, None], rows[labels].mean(axis=0), rows[~labels].mean(axis=0))
    assert Lda().fit(rows, labels).shrinkage_ == pytest.approx(ledoit_wolf_shrinkage(inside), rel=1e-9)


def test_mass_mean_is_the_written_formula():
    rows, labels, _ = two_classes(6, mixing=np.diag(np.linspace(0.5, 3, WIDTH)))
    covariance = (np.cov(rows[labels].T, bias=True) + np.cov(rows[~labels].T, bias=True)) / 2
    expected = np.linalg.solve(covariance, rows[labels].mean(axis=0) - rows[~labels].mean(axis=0))
    assert cosine(MassMean().fit(rows, labels).direction_, expected) == pytest.approx(1.0, abs=1e-9)
    assert cosine(Leace().fit(rows, labels).direction_, expected) == pytest.approx(1.0, abs=1e-9)


def test_leace_leaves_no_linear_information():
    rows, labels, _ = two_classes(7, mixing=np.diag(np.linspace(0.5, 3, WIDTH)), per_class=2000)
    fold = np.arange(len(rows)) % 2 == 0
    leace = Leace().fit(rows[fold], labels[fold])
    cleared = leace.erase(rows)
    assert (
        roc_auc_score(labels[~fold], Logistic(strength=50.0).fit(rows[fold], labels[fold]).project(rows[~fold])) > 0.9
    )
    for probe in (Logistic(strength=50.0), Lda(), Refusal()):
        # Refitted on the other fold too: what is left there is what sampling left.
        apart = Logistic(strength=50.0) if isinstance(probe, Refusal) else probe
        fitted = apart.fit(cleared[~fold], labels[~fold])
        assert roc_auc_score(labels[fold], fitted.project(cleared[fold])) == pytest.approx(0.5, abs=0.05)
    assert np.abs(cleared[fold][labels[fold]].mean(axis=0) - cleared[fold][~labels[fold]].mean(axis=0)).max() < 1e-9


def test_pairs_are_used_where_they_are_known():
    """What two prompts of a pair share is loud and common: differences of pairs do not see it."""
    rng = np.random.default_rng(8)
    rows, labels, truth = two_classes(8)
    shared = 20 * rng.standard_normal((EACH, WIDTH))
    rows[labels] += shared
    rows[~labels] += shared
    pairs = np.tile(np.arange(EACH), 2)
    for method in (PairedPca, Subspace):
        assert cosine(method().fit(rows, labels, pairs).direction_, truth) > 0.95
        assert abs(cosine(method().fit(rows, labels).direction_, truth)) < 0.8
    with pytest.raises(StatisticsError, match="one prompt of either class"):
        PairedPca().fit(rows, labels, np.zeros(2 * EACH, dtype=int))


def test_paired_pca_is_that_of_all_pairs():
    rows, labels, _ = two_classes(9, per_class=20)
    every = (rows[labels][:, None] - rows[~labels][None]).reshape(-1, WIDTH)
    expected = np.linalg.svd(np.concatenate([every, -every]), full_matrices=False)[2][0]
    assert abs(cosine(PairedPca().fit(rows, labels).direction_, expected)) == pytest.approx(1.0, abs=1e-9)


def test_the_subspace_is_orthonormal_and_holds_the_gap():
    rows, labels, truth = two_classes(10)
    subspace = Subspace(rank=5).fit(rows, labels)
    assert np.allclose(subspace.basis_ @ subspace.basis_.T, np.eye(5), atol=1e-9)
    assert np.linalg.norm(subspace.basis_ @ truth) > 0.95


def test_probabilities_are_those_of_two_normal_distributions():
    rows, labels, _ = two_classes(11)
    estimator = Refusal().fit(rows, labels)
    chances = estimator.probability(rows)
    assert ((chances > 0.5) == (estimator.project(rows) > estimator.threshold_)).all()
    z = estimator.project(rows)
    high, low = z[labels].mean(), z[~labels].mean()
    odds = np.exp(-((z - high) ** 2) / 2 / estimator.spread_**2) / np.exp(-((z - low) ** 2) / 2 / estimator.spread_**2)
    assert np.allclose(chances, odds / (1 + odds), atol=1e-9)


def test_a_chance_counts_how_frequent_the_classes_were():
    """With nothing between two overlapping classes but their number, the chance is the share of the positive one."""
    rows = np.random.default_rng(3).standard_normal((4000, 1))
    labels = np.arange(4000) < 3000
    estimator = Refusal().fit(rows, labels)
    assert estimator.probability(rows).mean() == pytest.approx(0.75, abs=0.02)
    assert chance(np.array([-1.0, 0.0, 1.0]), np.inf, 0.0, np.log(3)) == pytest.approx([0, 0.75, 1])


def test_options_are_those_of_an_estimator():
    estimator = Lda(shrinkage=0.2, winsorise=8.0)
    assert estimator.get_params() == {"shrinkage": 0.2, "winsorise": 8.0, "seed": 0}
    assert all(issubclass(method, Estimator) and method.says for method in METHODS.values())


def _scale_rows(rows):
    centred = rows - rows.mean(axis=0)
    return centred / np.sqrt((centred**2).sum(axis=1).mean())
