"""More prompts than dimensions: factors answer as the matrix does, and 20,000 are measured in under two gigabytes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from probes import nulls
from probes.directions.reversion import reversions_at_layer
from probes.drift import comparison, geometry, grams, measure
from probes.drift.inner_products import Factors, squared_distances, sum_of_product, sums_over_other_groups
from probes.errors import UsageError
from probes.lineage import Lineage
from probes.nulls import gaussian, power
from probes.prompts import PromptSet
from probes.store.settings import Settings
from probes.tasks.measure import measure as measure_run
from tests import processes
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.memory import peak_memory

PROMPTS, WIDTH = 1200, 12
HARMFUL = np.arange(PROMPTS) % 2 == 0


@pytest.fixture(scope="module")
def roles():
    """Activations of three checkpoints, the last moved half of the way to the second."""
    rng = np.random.default_rng(3)
    aligned = rng.standard_normal((PROMPTS, WIDTH))
    witness = aligned + rng.standard_normal(aligned.shape) / 2 + np.linspace(0, 1, WIDTH) * HARMFUL[:, None]
    tuned = aligned + (witness - aligned) / 2 + rng.standard_normal(aligned.shape) / 4
    return aligned, witness, tuned


def with_matrices(monkeypatch, compute):
    """What `compute` gives with factors, and with matrices."""
    by_factors = compute()
    with monkeypatch.context() as patch:
        for module in (grams, comparison, gaussian, nulls.layer, power):
            patch.setattr(module, "inner_products", lambda left, right: left @ right.T)
        return by_factors, compute()


@pytest.mark.parametrize("grouped", [False, True])
def test_every_statistic_of_drift_is_that_of_the_matrices(roles, monkeypatch, grouped):
    groups = np.array([f"t{number // 40}" for number in range(PROMPTS)]) if grouped else None
    aligned, witness, tuned = roles
    reversions = reversions_at_layer(aligned, witness)
    factors, matrices = with_matrices(
        monkeypatch, lambda: measure(aligned, reversions, tuned, HARMFUL, groups=groups, splits=5, bootstraps=40)
    )
    for name, estimate in matrices.items():
        for column in ("value", "low", "high"):
            assert getattr(factors[name], column) == pytest.approx(getattr(estimate, column), abs=1e-9), (name, column)


def test_cka_and_spectrum_are_those_of_the_matrices(roles, monkeypatch):
    def compute():
        first, second = roles[0], roles[2] ** 3
        gram = comparison.gram(first)
        leading = geometry.spectrum(gram, first, axes=3)
        similarities = [comparison.linear_cka(first, second, debiased=debiased) for debiased in (True, False)]
        return isinstance(gram, Factors), leading, similarities

    (is_factored, factors, similar), (is_matrix, matrices, similar_again) = with_matrices(monkeypatch, compute)
    assert (is_factored, is_matrix) == (True, False)
    np.testing.assert_allclose(similar, similar_again, rtol=1e-9)
    np.testing.assert_allclose(factors.variances, matrices.variances[:WIDTH], rtol=1e-9)
    assert factors.participation_ratio == pytest.approx(matrices.participation_ratio, rel=1e-9)
    np.testing.assert_allclose(np.abs(factors.axes @ matrices.axes.T), np.eye(3), atol=1e-6)


@pytest.mark.parametrize("grouped", [False, True])
def test_every_null_and_its_power_are_those_of_the_matrices(roles, monkeypatch, grouped):
    """Fewer prompts than above, and more of them than dimensions still; the draws are the same random numbers."""
    harmful = HARMFUL[:96]
    aligned, witness, tuned = (rows[:96] for rows in roles)
    groups = np.array([f"t{number // 4}" for number in range(96)]) if grouped else None

    def compute():
        resampling = nulls.Resampling.of(harmful, groups=groups, draws=400, permutations=199)
        reversions = reversions_at_layer(aligned, witness)
        layer = nulls.LayerNulls(aligned, reversions, reversions[harmful].mean(axis=0), resampling, splits=5)
        return layer.against(tuned), nulls.measure_power(layer, tuned)

    (factors, power_of_factors), (matrices, power_of_matrices) = with_matrices(monkeypatch, compute)
    assert power_of_factors == power_of_matrices
    for name, null in matrices.items():
        ours = factors[name]
        assert (ours.reason, ours.note, ours.p_value()) == (null.reason, null.note, pytest.approx(null.p_value())), name
        observed = np.array([ours.observed, null.observed], dtype=float)  # None is no number
        np.testing.assert_allclose(*observed, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.draws, null.draws, rtol=1e-4, atol=1e-5)


def test_what_factors_answer_is_what_their_matrix_answers():
    rng = np.random.default_rng(0)
    left, right, weights = rng.standard_normal((3, 7, 4))
    factors, matrix, codes = Factors(left, right), left @ right.T, np.array([0, 1, 0, 2, 1, 0, 2])
    np.testing.assert_allclose(weights.T @ factors, weights.T @ matrix)
    np.testing.assert_allclose(factors @ weights, matrix @ weights)
    np.testing.assert_allclose(factors.T @ weights, matrix.T @ weights)
    np.testing.assert_allclose(factors.diagonal(), matrix.diagonal())
    for axis in (0, 1):
        np.testing.assert_allclose(factors.sum(axis=axis), matrix.sum(axis=axis))
    chosen = np.ix_(codes == 0, codes == 1)
    np.testing.assert_allclose(factors[chosen] @ np.eye(2), matrix[chosen])
    np.testing.assert_allclose(sums_over_other_groups(factors, codes), sums_over_other_groups(matrix, codes))
    own, couples = Factors(left, left), np.array([[0, 1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 4, 5, 6, 0, 0]])
    np.testing.assert_allclose(squared_distances(own, couples), squared_distances(left @ left.T, couples), atol=1e-12)
    pairs = ((own, own), (own, left @ left.T), (left @ left.T, own))
    np.testing.assert_allclose([sum_of_product(*pair) for pair in pairs], ((left @ left.T) ** 2).sum())


def measure_many(home):
    """Measure 20,000 prompts at the only layer of a model, and print the most memory that it took."""
    half = 10_000
    for seed, place in enumerate(("aligned", "witness", "tuned")):
        model = move_weights(tiny_model(num_hidden_layers=1), seed=seed, scale=0.1 * seed)
        save_checkpoint(home / place, model, tiny_tokenizer())
    texts = [f"{verb} {number}" for verb in ("break", "paint") for number in range(half)]
    prompts = PromptSet.of(texts, ["harmful"] * half + ["harmless"] * half)
    lineage = Lineage.of(str(home / "aligned"), str(home / "witness"), [str(home / "tuned")])
    run = measure_run(lineage, prompts, home / "run", Settings(nulls=False))
    drift = run.drift(statistic="return_fraction", layer=0)
    assert len(run.prompts) == 2 * half
    assert drift["low"].notna().all()
    sys.stdout.write(str(peak_memory()))
    sys.stdout.flush()


@pytest.mark.slow
def test_twenty_thousand_prompts_are_measured_in_less_than_two_gigabytes(tmp_path):
    done = processes.run(measure_many, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) < 2 * 10**9


def test_so_many_prompts_are_refused_with_the_nulls_before_any_work(tmp_path):
    texts = [f"{verb} {number}" for verb in ("break", "paint") for number in range(10_000)]
    prompts = PromptSet.of(texts, ["harmful"] * 10_000 + ["harmless"] * 10_000)
    lineage = Lineage.of("org/aligned", "org/witness", ["org/tuned"])
    with pytest.raises(UsageError, match=r"too many prompts for the nulls; got 20,000.*--limit.*--no-nulls"):
        measure_run(lineage, prompts, tmp_path / "run", Settings())
    assert not (tmp_path / "run").exists()
