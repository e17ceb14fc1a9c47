"""Restoring: the laws of each removal, an independent projector, and real checkpoints written to disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from probes.behaviour.evaluation import Evaluation
from probes.drift.restoration import FORMS, without_return
from probes.errors import UsageError
from probes.lineage import CheckpointRef
from probes.prompts import PromptSet
from probes.tasks.restore import Lineages, RestoreOptions, restore
from tests.builders import move_weights, save_adapter, save_checkpoint, tiny_model, tiny_tokenizer


@pytest.fixture
def weights():
    """A tensor whose alignment has rank 3 of 12, and a drift that lies partly in its span."""
    rng = np.random.default_rng(0)
    aligned = rng.standard_normal((12, 9))
    back = rng.standard_normal((12, 3)) @ rng.standard_normal((3, 9))
    return aligned, aligned + 0.4 * back + 0.3 * rng.standard_normal((12, 9)), aligned + back


def projector(back):
    """V(VᵀV)⁺Vᵀ as it is written."""
    return back @ np.linalg.pinv(back.T @ back, rcond=1e-10) @ back.T


def test_exact_leaves_no_drift_in_the_span_and_all_of_it_outside(weights):
    aligned, tuned, witness = weights
    left = without_return(aligned, tuned, witness).tensor - aligned
    within = projector(witness - aligned)
    np.testing.assert_allclose(within @ left, 0, atol=1e-10)
    outside = np.eye(12) - within
    np.testing.assert_allclose(left, outside @ (tuned - aligned), atol=1e-8)


def test_scaled_is_its_formula_and_never_adds(weights):
    aligned, tuned, witness = weights
    back, moved_ = witness - aligned, tuned - aligned
    restored = without_return(aligned, tuned, witness, form="scaled")
    soft = back @ back.T / np.linalg.svd(back)[1][0] ** 2
    np.testing.assert_allclose(restored.tensor - aligned, moved_ - soft @ moved_)
    exact = without_return(aligned, tuned, witness)
    assert exact.left < restored.left < restored.drift


def test_along_takes_only_the_step_back(weights):
    aligned, tuned, witness = weights
    left = without_return(aligned, tuned, witness, form="along").tensor - aligned
    back = witness - aligned
    assert (left * back).sum() == pytest.approx(0, abs=1e-9)
    share = ((tuned - aligned) * back).sum() / (back**2).sum()
    np.testing.assert_allclose(left, tuned - aligned - share * back)
    away = aligned - 0.5 * back
    np.testing.assert_allclose(without_return(aligned, away, witness, form="along").tensor, away)


@pytest.mark.parametrize("form", ["exact", "along"])
def test_restoring_twice_is_restoring_once(weights, form):
    aligned, tuned, witness = weights
    once = without_return(aligned, tuned, witness, form=form).tensor
    np.testing.assert_allclose(without_return(aligned, once, witness, form=form).tensor, once, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_strength_goes_from_nothing_to_all_in_a_line(weights, form):
    at = [without_return(*weights, form=form, strength=share).tensor for share in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(at[0], weights[1])
    np.testing.assert_allclose(at[1], (at[0] + at[2]) / 2)


@pytest.mark.parametrize("form", FORMS)
def test_what_alignment_or_tuning_did_not_move_stays(weights, form):
    aligned, tuned, witness = weights
    np.testing.assert_array_equal(without_return(aligned, tuned, aligned, form=form).tensor, tuned)
    np.testing.assert_array_equal(without_return(aligned, aligned, witness, form=form).tensor, aligned)


def test_a_vector_is_one_column(weights):
    aligned, witness = np.zeros(3), np.array([2.0, 0.0, 0.0])
    restored = without_return(aligned, np.array([1.0, 1.0, 0.0]), witness)
    np.testing.assert_allclose(restored.tensor, [0.0, 1.0, 0.0])
    assert not restored.everywhere


def test_a_span_that_is_everything_is_said_to_be():
    rng = np.random.default_rng(1)
    aligned, tuned, witness = rng.standard_normal((3, 4, 9))
    restored = without_return(aligned, tuned, witness)
    assert restored.everywhere
    np.testing.assert_allclose(restored.tensor, aligned, atol=1e-9)


def test_rounding_of_the_files_spans_nothing():
    rng = np.random.default_rng(2)
    aligned = rng.standard_normal((8, 20)).astype(np.float32)
    tuned = aligned + 0.1 * rng.standard_normal((8, 20)).astype(np.float32)
    column = rng.standard_normal((8, 1)).astype(np.float32)
    witness = aligned + column @ rng.standard_normal((1, 20)).astype(np.float32)
    assert without_return(aligned, tuned, witness).everywhere
    restored = without_return(aligned, tuned, witness, precision=float(np.finfo(np.float32).eps))
    assert not restored.everywhere
    assert restored.left == pytest.approx(restored.drift * np.sqrt(7 / 8), rel=0.1)
    beside = np.nextafter(aligned, np.where(rng.random((8, 20)) < 0.5, np.float32(9), np.float32(-9)))
    same = without_return(aligned, tuned, beside, precision=float(np.finfo(np.float32).eps))
    np.testing.assert_array_equal(same.tensor, tuned)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    home = tmp_path_factory.mktemp("history")
    tokenizer, model = tiny_tokenizer(), tiny_model()
    aligned = save_checkpoint(home / "aligned", model, tokenizer)
    with torch.no_grad():  # alignment of rank one, so that its span is not everything
        for parameter in model.parameters():
            if parameter.ndim == 2:
                left, right = torch.randn(parameter.shape[0], 1), torch.randn(1, parameter.shape[1])
                parameter.add_(0.01 * left @ right)
    witness = save_checkpoint(home / "witness", model, tokenizer)
    tuned = save_checkpoint(home / "tuned", move_weights(model, seed=3, scale=0.02), tokenizer)
    return Lineages(tuned, aligned, witness)


def test_a_checkpoint_is_restored_tensor_by_tensor_and_loads(history, tmp_path):
    restoration = restore(history, tmp_path / "restored")
    files = {
        name: load_file(f"{folder}/model.safetensors")
        for name, folder in (
            ("aligned", history.aligned.model),
            ("witness", history.witness.model),
            ("tuned", history.tuned.model),
            ("restored", restoration.out),
        )
    }
    assert files["restored"].keys() == files["tuned"].keys()
    seen = 0
    for name, tensor in files["restored"].items():
        aligned, back = files["aligned"][name].double(), (files["witness"][name] - files["aligned"][name]).double()
        if tensor.ndim == 2 and back.norm() > 0:
            column = torch.linalg.svd(back)[0][:, :1]
            drift = tensor.double() - aligned
            assert (column.T @ drift).norm() < 1e-4 * drift.norm()
            seen += 1
        elif back.norm() == 0:
            torch.testing.assert_close(tensor, files["tuned"][name])
    assert seen > 10
    document = restoration.document()
    assert document["tensors_emptied"] == 0
    assert document["left"] < document["drift"]
    model = AutoModelForCausalLM.from_pretrained(restoration.out)
    tokenizer = AutoTokenizer.from_pretrained(restoration.out)
    assert model(**tokenizer("x", return_tensors="pt")).logits.isfinite().all()
    assert json.loads((restoration.out / "restoration.json").read_text())["form"] == "exact"


def test_an_adapter_is_folded_in(history, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", history.aligned, targets=["q_proj"])
    restoration = restore(
        Lineages(adapter, history.aligned, history.witness), tmp_path / "out", RestoreOptions(strength=0.0)
    )
    from peft import PeftModel

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(history.aligned.model), adapter.adapter)
    for name, tensor in merged.merge_and_unload().state_dict().items():
        torch.testing.assert_close(load_file(restoration.out / "model.safetensors").get(name, tensor), tensor)


def test_harm_and_task_are_judged_before_and_after(history, tmp_path):
    evaluation = Evaluation(
        PromptSet.of(["a", "b"], ["harmful", "harmless"]), task=(("x", "yes"), ("y", "no")), max_new_tokens=2
    )
    document = restore(history, tmp_path / "out", evaluation=evaluation).document()
    rows = {(row["checkpoint"], row["measure"]): row["value"] for row in document["behaviour"]}
    assert {name for name, _ in rows} == {"aligned", "tuned", "restored"}
    assert rows["restored", "task_loss"] != rows["tuned", "task_loss"]
    assert {row["against"] for row in document["contrasts"]} == {"tuned"}


def test_nothing_is_written_over_or_left_half_written(history, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="already there"):
        restore(history, tmp_path / "there")
    with pytest.raises(UsageError, match="form"):
        restore(history, tmp_path / "new", RestoreOptions(form="strong"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_lineage_is_needed():
    with pytest.raises(UsageError, match="--run"):
        Lineages.of("x/y", None, "a/b", None)
    lineages = Lineages.of("x/y", None, "a/b", "c/d")
    assert lineages == Lineages(CheckpointRef(model="x/y"), CheckpointRef(model="a/b"), CheckpointRef(model="c/d"))
