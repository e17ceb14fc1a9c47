"""Comparison of checkpoints: hand-made subspaces, equality with the definitions, and what each number ignores."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from probes.drift import comparison
from probes.errors import StatisticsError, UsageError
from probes.lineage import CheckpointRef
from probes.tasks.compare import _side_by_side
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rotation(rng, width):
    return np.linalg.qr(rng.standard_normal((width, width)))[0]


def test_angles_and_overlap_of_planes_that_share_one_axis():
    axes = np.eye(5)
    tilted = np.stack([axes[0], np.cos(0.3) * axes[1] + np.sin(0.3) * axes[2]])
    planes = comparison.overlap(axes[:2] * [[3.0], [2.0]], tilted)
    np.testing.assert_allclose(planes.angles, [0.3, 0.0], atol=1e-7)
    assert planes.value == pytest.approx((1 + np.cos(0.3) ** 2) / 2)
    assert planes.random == pytest.approx(2 / 5)


def test_a_subspace_inside_another_overlaps_wholly(rng):
    rows = rng.standard_normal((6, 40))
    assert comparison.overlap(rows[:2] + rows[2:4], rows).value == pytest.approx(1.0)


def test_random_subspaces_overlap_by_the_random_value(rng):
    pairs = [(rng.standard_normal((3, 30)), rng.standard_normal((6, 30))) for _ in range(300)]
    overlaps = [comparison.overlap(*pair) for pair in pairs]
    assert np.mean([pair_overlap.value for pair_overlap in overlaps]) == pytest.approx(overlaps[0].random, abs=0.01)


def test_dependent_rows_count_once(rng):
    row = rng.standard_normal((1, 10))
    assert comparison.overlap(np.concatenate([row, 2 * row]), row).angles == pytest.approx((0.0,), abs=1e-7)


def test_cka_ignores_rotation_scale_and_shift(rng):
    rows = rng.standard_normal((50, 8))
    same = 3 * rows @ rotation(rng, 8) + 5
    for debiased in (True, False):
        assert comparison.linear_cka(rows, same, debiased=debiased) == pytest.approx(1.0)


def test_biased_cka_is_the_formula_of_its_source(rng):
    x, y = (rows - rows.mean(axis=0) for rows in (rng.standard_normal((30, 5)), rng.standard_normal((30, 7))))
    expected = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert comparison.linear_cka(x, y, debiased=False) == pytest.approx(expected)


def test_debiased_cka_of_unrelated_representations_is_about_0_where_the_biased_one_is_not(rng):
    pairs = [(rng.standard_normal((20, 300)), rng.standard_normal((20, 300))) for _ in range(20)]
    assert abs(np.mean([comparison.linear_cka(*pair) for pair in pairs])) < 0.03
    assert np.mean([comparison.linear_cka(*pair, debiased=False) for pair in pairs]) > 0.8


def test_one_basis_is_told_from_another(rng):
    rows = rng.standard_normal((60, 16)) * np.linspace(3, 1, 16)
    near = rows + 0.3 * rng.standard_normal((60, 16))
    assert comparison.basis_check(rows, near).shared
    turned = comparison.basis_check(rows, near @ rotation(rng, 16))
    assert not turned.shared
    assert turned.rotated < 0.2 < turned.raw


def test_the_best_rotation_is_that_of_scipy(rng):
    from scipy.linalg import orthogonal_procrustes

    for count, width in ((40, 8), (8, 40)):
        x, y = (rows - rows.mean(axis=0) for rows in rng.standard_normal((2, count, width)))
        turn, _ = orthogonal_procrustes(y, x)
        expected = np.linalg.norm(x - y @ turn) ** 2 / (np.linalg.norm(x) ** 2 + np.linalg.norm(y) ** 2)
        assert comparison.basis_check(x, y).rotated == pytest.approx(expected)


def test_two_layers_compared_are_the_definitions(rng):
    """Equality with the textbook: numpy's means, scipy's angles of the SVD's axes, CKA from the activations."""
    from scipy.linalg import subspace_angles

    harmful = np.arange(60) < 30
    aligned, tuned, witness = rng.standard_normal((3, 60, 40)).astype(np.float32)
    origin = aligned[harmful].mean(axis=0, dtype=np.float64)
    start, end = (comparison.Portrait.of(rows, harmful, origin) for rows in (tuned, witness))
    compared = comparison.compare_layers(start, end, reversion=2.0)
    gone, back = (rows[harmful].astype(np.float64).mean(axis=0) - origin for rows in (tuned, witness))
    assert compared.distance == pytest.approx(np.linalg.norm(back - gone) / 2, abs=1e-9)
    assert compared.cosine == pytest.approx(gone @ back / np.linalg.norm(gone) / np.linalg.norm(back), abs=1e-9)
    assert compared.cka == pytest.approx(comparison.linear_cka(tuned, witness), abs=1e-9)
    axes = [np.linalg.svd(rows - rows.mean(axis=0, dtype=np.float64))[2][:10].T for rows in (tuned, witness)]
    np.testing.assert_allclose(compared.overlap.angles, subspace_angles(*axes), atol=1e-9)
    assert compared.overlap.random == pytest.approx(10 / 40)


def test_a_layer_at_rest_has_only_the_numbers_that_are_defined(rng):
    harmful = np.arange(8) < 4
    rows, still = rng.standard_normal((8, 5)), np.ones((8, 5))
    portraits = [comparison.Portrait.of(values, harmful, np.ones(5)) for values in (rows, still)]
    compared = comparison.compare_layers(*portraits, reversion=1.0)
    assert (compared.cosine, compared.cka, compared.overlap) == (None, None, None)
    assert compared.distance == pytest.approx(np.linalg.norm(rows[harmful].mean(axis=0) - 1))
    assert comparison.compare_layers(*portraits, reversion=0.0).distance is None


def test_weight_drift_inside_the_span_of_alignment(rng):
    aligned = rng.standard_normal((12, 20))
    factor = rng.standard_normal((12, 2))
    witness = aligned + factor @ rng.standard_normal((2, 20))
    inside = comparison.weight_drift(aligned, aligned + factor @ rng.standard_normal((2, 20)), witness)
    assert inside.inside == pytest.approx(1.0)
    assert inside.random == pytest.approx(2 / 12)
    shares = [
        comparison.weight_drift(aligned, aligned + rng.standard_normal((12, 20)), witness).inside for _ in range(200)
    ]
    assert np.mean(shares) == pytest.approx(2 / 12, abs=0.02)


def test_weight_norms_are_those_of_numpy(rng):
    aligned, tuned = rng.standard_normal((2, 6, 9)).astype(np.float32)
    norms = comparison.weight_drift(aligned, tuned)
    assert norms.frobenius == pytest.approx(np.linalg.norm(tuned - aligned), rel=1e-5)
    assert norms.spectral == pytest.approx(np.linalg.norm(tuned - aligned, 2), rel=1e-5)
    assert norms.relative == pytest.approx(norms.frobenius / np.linalg.norm(aligned), rel=1e-5)
    assert norms.inside is None


def test_a_tensor_that_did_not_move_has_no_share(rng):
    aligned, witness = rng.standard_normal((2, 4, 4))
    norms = comparison.weight_drift(aligned, aligned, witness)
    assert (norms.frobenius, norms.spectral, norms.inside) == (0.0, 0.0, None)
    assert comparison.weight_drift(aligned, witness, aligned).inside is None


def test_a_vector_of_weights_is_one_column(rng):
    aligned = rng.standard_normal(8)
    norms = comparison.weight_drift(aligned, aligned + 2.0, aligned + 1.0)
    assert norms.spectral == pytest.approx(norms.frobenius)
    assert norms.inside == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: comparison.overlap(np.eye(3), np.eye(4)), "different widths"),
        (lambda: comparison.overlap(np.zeros((1, 3)), np.eye(3)), "span nothing"),
        (lambda: comparison.overlap(np.full((1, 3), np.nan), np.eye(3)), "not finite"),
        (lambda: comparison.linear_cka(np.eye(3), np.eye(3)), "cannot be compared"),
        (lambda: comparison.linear_cka(np.eye(5), np.ones((5, 2))), "does not vary"),
        (lambda: comparison.basis_check(np.ones((5, 2)), np.ones((4, 2))), "different prompts"),
        (lambda: comparison.basis_check(np.ones((5, 2)), np.ones((5, 2))), "do not vary"),
        (lambda: comparison.weight_drift(np.eye(2), np.full((2, 2), np.inf)), "weights are not finite"),
    ],
)
def test_input_that_cannot_be_compared_is_refused(call, sentence):
    with pytest.raises(StatisticsError, match=sentence):
        call()


def test_codes_of_quantised_weights_are_not_compared_as_if_they_were_weights(tmp_path):
    refs = []
    for number in range(2):
        save_checkpoint(tmp_path / str(number), tiny_model(), tiny_tokenizer())
        tensors = {"a.weight": torch.full((2, 2), number, dtype=torch.uint8), "b.bias": torch.zeros(2)}
        save_file(tensors, tmp_path / str(number) / "model.safetensors")
        refs.append(CheckpointRef(model=str(tmp_path / str(number))))
    with pytest.raises(UsageError, match=r"quantised weights, which are not compared; got a\.weight"):
        list(_side_by_side(refs))
    assert [name for name, _ in _side_by_side([refs[0], refs[0]])] == ["a.weight", "b.bias"]
