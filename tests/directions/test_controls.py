"""A control of one name, draw and run is one vector, whoever asks: the fit, the guard, mediation, effects."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from probes.behaviour.evaluation import Evaluation
from probes.directions import METHODS
from probes.directions.controls import CONTROLS, control, random_vectors
from probes.directions.measured import MeasuredInMemory, activations_by_layer
from probes.directions.refusal import refusal_axis
from probes.directions.reversion import reversion_did_vectors, reversion_vectors, reversions_by_prompt
from probes.errors import UsageError
from probes.experiments.trained_controls import CONTINUED, SHUFFLED, TEXT, TOKENS
from probes.guard.guarded_direction import GuardedDirection
from probes.guard.modes import MODES, Options, describe_modes, make_effect
from probes.run import Run
from probes.stages import effects, mediation
from tests.guard.lineages import prompts

SHIPPED = Path(__file__).parents[2] / "data" / "demo-run"
TUNED, LAYERS = "baseline-s0-000002", (0, 2)


def unit_of_guard(run, name, seed, layers=LAYERS):
    direction = GuardedDirection.from_vectors(run.direction("reversion"), layers)
    effect = make_effect(name, run, direction, Options(seed=seed))
    assert torch.equal(effect.direction.norm, direction.norm), "a control keeps the guarded direction's length"
    return effect.direction.unit.numpy()


def unit_of_mediation(run, kind, draw):
    """The axis along which prompts are clamped."""
    test = mediation.MediationTest(TUNED, LAYERS, Evaluation(prompts(100, 4)), draws=19)
    return mediation._axes(run, test)[f"{kind}:{draw}"]


@pytest.mark.parametrize("draw", [0, 3])
@pytest.mark.parametrize("kind", ["random", "covariance"])
def test_guard_and_mediation_have_the_same_draw(fitted, kind, draw):
    run = Run(fitted)
    vectors = control(run, f"control:{kind}", LAYERS, seed=draw)
    assert np.array_equal(unit_of_guard(run, f"control:{kind}", draw), vectors.direction)
    assert np.allclose(unit_of_mediation(run, kind, draw), vectors.direction, atol=1e-7)
    assert not np.allclose(
        control(run, f"control:{kind}", LAYERS, seed=draw + 1).direction, vectors.direction, atol=0.1
    )


@pytest.mark.parametrize("name", ["control:random", "control:covariance", "control:permuted-labels", "control:drift"])
def test_the_fit_has_the_same_vector(fitted, name):
    """At the aligned model, whose activations controls are drawn from; the drift is the tuned checkpoint's own."""
    run = Run(fitted)
    assert run.settings.seed == 0
    file = run.direction(name, TUNED if name == "control:drift" else "aligned")
    vectors = control(run, name, range(run.n_layers), checkpoint=TUNED)
    assert np.allclose(file.direction, vectors.direction, atol=1e-5)


def test_a_control_has_one_name_and_its_former_one_is_read_with_a_notice(fitted, tmp_path):
    run = Run(fitted)
    first = run.direction("control:random")
    with pytest.warns(FutureWarning, match="direction control:isotropic is called control:random now"):
        assert run.direction("control:isotropic").name == "control:random"
    earlier = tmp_path / "earlier"  # a run that was fitted before
    shutil.copytree(fitted, earlier)
    (earlier / "directions" / "control-random.safetensors").unlink()
    replace(first, name="control:isotropic").write(earlier / "directions" / "control-isotropic.safetensors")
    older = Run(earlier)
    assert "control:random" in older.directions
    with pytest.warns(FutureWarning, match="is called control:random now"):
        former = older.direction("control:isotropic")
    for vectors in (older.direction("control:random"), former):
        assert vectors.name == "control:random"
        assert np.array_equal(vectors.direction, first.direction)


def test_a_run_of_an_earlier_version_names_its_directions_as_they_are_called_now():
    """The shipped run holds `control:shuffled` in its files and tables; that is an arm's name alone."""
    run, former, current = Run(SHIPPED), "control:shuffled", "control:permuted-labels"
    assert former in (SHIPPED / "directions.json").read_text(encoding="utf-8")
    assert current in run.directions
    assert former not in run.directions
    described = run.read_json("directions")["directions"]
    assert current in described
    assert former not in described
    for table, column in (("direction_tracks", "direction"), ("direction_cosines", "other")):
        rows = pd.read_parquet(SHIPPED / f"{table}.parquet", filters=[(column, "==", former)])
        for filters in ([(column, "==", current)], [(column, "in", ["nothing", current])]):
            read = run.read_table(table, filters=filters)
            assert set(read[column]) == {current}
            assert len(read) == len(rows) > 0
        assert former not in set(run.read_table(table)[column])


def test_no_direction_is_named_as_a_trained_arm():
    assert {CONTINUED, SHUFFLED, TOKENS, TEXT}.isdisjoint(METHODS)


def test_effects_have_the_same_draw(fitted):
    run = Run(fitted)
    first = control(run, "control:random", LAYERS, seed=1)
    test = effects.EffectTest("aligned", run.direction("lda"), 2, Evaluation(prompts(100, 4)), draws=2)
    assert np.array_equal(effects._axes(run, test)["random:1"], first.at(2)[0])


@pytest.mark.parametrize("name", CONTROLS)
def test_what_stands_at_a_layer_does_not_hang_on_the_other_layers(fitted, name):
    run = Run(fitted)
    few, many = (control(run, name, layers, seed=2, checkpoint=TUNED) for layers in ([2], [0, 1, 2]))
    assert np.array_equal(few.at(2)[0], many.at(2)[0])


def test_the_drift_control_is_where_the_drift_goes(fitted):
    """Its hinge would push against nothing where it pointed the other way, as a bare singular vector may."""
    run = Run(fitted)
    units = unit_of_guard(run, "control:drift", 0)
    for unit, layer in zip(units.astype(np.float64), LAYERS, strict=True):
        drift = (run.activations(TUNED, layer).astype(np.float64) - run.activations("aligned", layer))[run.harmful]
        back = run.direction("reversion").at(layer)[0]
        across = drift - np.outer(drift @ back, back)
        leading = np.linalg.svd(across, full_matrices=False)[2][0]
        assert abs(unit @ leading) == pytest.approx(1, abs=1e-5)
        assert abs(unit @ back) < 1e-5
        assert drift.mean(axis=0) @ unit > 0


def test_the_covariance_control_is_a_draw_of_the_aligned_models_covariance():
    """Over many draws, its mean square along each axis is the covariance's share."""
    rng = np.random.default_rng(0)
    scale = np.linspace(0.2, 3, 12)
    aligned = (rng.standard_normal((1, 400, 12)) * scale).astype(np.float32)
    harmful = np.arange(400) < 200
    run = MeasuredInMemory({"aligned": aligned, "witness": aligned + 1}, harmful)
    draws = np.stack([control(run, "control:covariance", [0], seed=seed).at(0)[0] for seed in range(1000)])
    means = np.stack([aligned[0, harmful].mean(axis=0), aligned[0, ~harmful].mean(axis=0)])
    covariance = np.cov((aligned[0] - means[np.where(harmful, 0, 1)]).T)
    raw = np.random.default_rng(9).multivariate_normal(np.zeros(12), covariance, size=1000)
    expected = (raw / np.linalg.norm(raw, axis=1, keepdims=True)) ** 2
    assert np.allclose((draws**2).mean(axis=0), expected.mean(axis=0), atol=0.03)
    assert abs((draws[:, -1] > 0).mean() - 0.5) < 0.06


def test_a_random_control_of_the_default_layers_is_the_generators_own_numbers():
    """So the arms of runs that are there already stay what they were."""
    for seed in range(20):
        raw = torch.randn((3, 64), generator=torch.Generator().manual_seed(seed)).double()
        expected = (raw / raw.norm(dim=1, keepdim=True)).float().numpy()
        assert np.array_equal(random_vectors((1, 2, 3), 4, 64, seed).direction, expected)


def test_the_sham_control_is_the_way_to_a_sham_witness(fitted):
    run = Run(fitted)
    first, again, another_seed = (unit_of_guard(run, "control:sham", seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, another_seed, atol=0.1)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


def test_the_directions_are_the_written_formulas(fitted):
    run = Run(fitted)
    harmful = run.harmful
    aligned, witness = (
        np.stack([run.activations(name, layer) for layer in range(3)]).astype(np.float64)
        for name in ("aligned", "witness")
    )
    gap = witness - aligned
    back = gap[:, harmful].mean(axis=1)
    twin = back - gap[:, ~harmful].mean(axis=1)
    axis = aligned[:, harmful].mean(axis=1) - aligned[:, ~harmful].mean(axis=1)
    streamed = (activations_by_layer(run, "aligned"), activations_by_layer(run, "witness"), harmful)
    assert np.allclose(reversion_vectors(*streamed).raw, back, rtol=1e-6)
    assert np.allclose(reversion_did_vectors(aligned, witness, harmful).raw, twin, rtol=1e-5, atol=1e-7)
    assert np.allclose(refusal_axis(aligned, harmful).raw, axis, rtol=1e-5, atol=1e-7)
    assert np.allclose(reversions_by_prompt(aligned, witness, harmful).mean(axis=1), back, atol=1e-12)
    for name in ("reversion", "reversion_did"):
        in_memory = MeasuredInMemory({"aligned": aligned.astype("f4"), "witness": witness.astype("f4")}, harmful)
        assert np.array_equal(in_memory.direction(name).direction, run.direction(name).direction)
        assert np.array_equal(in_memory.direction(name).norm, run.direction(name).norm)


def test_what_is_no_control_is_refused(fitted):
    run = Run(fitted)
    with pytest.raises(UsageError, match="no such control"):
        control(run, "control:other", [0])
    with pytest.raises(UsageError, match="needs a drift"):
        control(run, "control:drift", [0])


def test_each_mode_says_what_it_is_in_one_sentence():
    sentences = describe_modes()
    assert list(sentences) == list(MODES)
    assert len(set(sentences.values())) == len(sentences)
    for sentence in sentences.values():
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert len(sentence) <= 110
        assert "rival" not in sentence
