"""What is guarded, and from what: any direction of a run or vectors, any source, prompts in any form."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from probes.behaviour.evaluation import Evaluation
from probes.directions.vectors import Vectors
from probes.errors import PromptError, RunFolderError, UsageError
from probes.guard import GuardError
from probes.guard.callback import ReversionGuard
from probes.guard.material import refuse_overlap
from probes.guard.modes import Options
from probes.run import Run
from probes.tasks.import_direction import Target, import_direction
from tests.guard.lineages import lineage, prompts, trainer

PENALTY = prompts(100, 8)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return lineage(tmp_path_factory.mktemp("lineage"))


@pytest.fixture(scope="module")
def measured(history, tmp_path_factory):
    """A run with aligned and witness, and an imported direction `mine` that stands askew to the reversion."""
    folder = tmp_path_factory.mktemp("run")
    ReversionGuard(history, probe=prompts(0), out=folder / "measured")
    raw = np.random.default_rng(5).standard_normal((3, 32))
    Vectors.of_raw("mine", (0, 1, 2), raw, {"n_layers": "3"}).write(folder / "mine.safetensors")
    import_direction(folder / "mine.safetensors", "mine", Target(folder / "measured"))
    return folder / "measured"


def train_weights(history, folder, guard):
    model = AutoModelForCausalLM.from_pretrained(history.aligned.model)
    trainer(model, folder, [guard], max_steps=3, save_strategy="no").train()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def apart(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_blocking_along_an_imported_direction_changes_the_weights_otherwise(history, measured, tmp_path):
    def block(name, direction):
        guard = ReversionGuard(
            measured, mode="block:signed", direction=direction, penalty=PENALTY, options=Options(penalty_weight=5.0)
        )
        return train_weights(history, tmp_path / name, guard)

    mine = Run(measured).direction("mine")
    back, along, again, plain = (
        block("a", "reversion"),
        block("b", "mine"),
        block("c", mine),
        train_weights(history, tmp_path / "d", ReversionGuard(measured)),
    )
    assert apart(back, along) > 1e-4
    assert min(apart(back, plain), apart(along, plain)) > 1e-4
    assert apart(along, again) == 0.0


def test_the_guard_looks_along_what_it_was_given(measured):
    run = Run(measured)
    rows = [run.activations("aligned", layer).astype(np.float64) for layer in range(3)]
    axis = np.stack([layer[run.harmful].mean(axis=0) - layer[~run.harmful].mean(axis=0) for layer in rows])
    for name, raw in (("refusal", axis), ("reversion", run.direction("reversion").raw)):
        direction = ReversionGuard(measured, mode="block", direction=name, penalty=PENALTY).guard.effect.direction
        assert direction.layers == (0, 1, 2)
        assert np.allclose(direction.unit * direction.norm[:, None], raw, rtol=1e-4, atol=1e-6)


def test_former_names_of_arguments_go_on_with_a_notice(measured):
    with pytest.warns(FutureWarning, match="rows= is called batch_size= now"):
        former = ReversionGuard(measured, mode="block", penalty=PENALTY, rows=4)
    with pytest.warns(FutureWarning, match="match= is called gradient_ratio= now"):
        assert ReversionGuard(measured, mode="push", penalty=PENALTY, match=0.5).guard.gradient_ratio == 0.5
    assert former.guard._batch_size == 4
    with pytest.raises(UsageError, match="given twice"):
        ReversionGuard(measured, mode="block", penalty=PENALTY, rows=4, batch_size=4)
    with pytest.warns(FutureWarning, match="strength= is called penalty_weight= now"):
        assert Options(strength=5.0) == Options(penalty_weight=5.0)


def test_a_direction_at_one_layer_is_guarded_there(measured):
    single = Run(measured).direction("mine").only(1)
    assert ReversionGuard(measured, mode="block", direction=single, penalty=PENALTY).guard.effect.direction.layers == (
        1,
    )
    with pytest.raises(GuardError, match="cannot be guarded at these layers"):
        ReversionGuard(measured, mode="block", direction=single, layers=[2], penalty=PENALTY)


def test_a_direction_of_another_model_is_refused(measured, tmp_path):
    raw = np.ones((3, 32))
    for vectors in (
        Vectors.of_raw("narrow", (0, 1, 2), raw[:, :16]),
        Vectors.of_raw("deep", (0, 1, 2), raw, {"n_layers": "7"}),
        Vectors.of_raw("hash", (0, 1, 2), raw, {"weights_sha256": "0" * 64}),
    ):
        with pytest.raises(UsageError, match="another model"):
            ReversionGuard(measured, mode="block", direction=vectors, penalty=PENALTY)
    with pytest.raises(RunFolderError, match="no direction 'theirs'"):
        ReversionGuard(measured, mode="block", direction="theirs", penalty=PENALTY)


def test_an_imported_direction_is_still_known_where_a_new_run_is_written(measured, tmp_path):
    guard = ReversionGuard(measured, mode="block", direction="mine", penalty=PENALTY, out=tmp_path / "run")
    expected = Run(measured).direction("mine").direction
    assert np.array_equal(guard.guard.effect.direction.unit.numpy(), expected)
    assert "mine" not in Run(tmp_path / "run").directions


def test_run_path_lineage_and_lineage_file_give_the_same_guard(history, measured, tmp_path):
    roles = f'[aligned]\nmodel = "{history.aligned.model}"\n[witness]\nmodel = "{history.witness.model}"\n'
    (tmp_path / "lineage.toml").write_text(roles, encoding="utf-8")
    sources = (Run(measured), measured, str(measured), history, tmp_path / "lineage.toml")
    units = [
        ReversionGuard(source, mode="block", penalty=PENALTY, probe=prompts(0)).guard.effect.direction.unit
        for source in sources
    ]
    assert all(torch.equal(unit, units[0]) for unit in units)


def test_prompts_may_be_texts_or_a_file(measured, tmp_path):
    harmful = [prompt.text for prompt in PENALTY.prompts if prompt.label == "harmful"]
    (tmp_path / "penalty.txt").write_text("\n".join(harmful), encoding="utf-8")
    expected = ReversionGuard(measured, mode="block", penalty=PENALTY)._ids
    for penalty in (harmful, tmp_path / "penalty.txt", str(tmp_path / "penalty.txt")):
        guard = ReversionGuard(measured, mode="block", penalty=penalty, evaluation=["make a cake of knives"])
        assert list(map(tuple, guard._ids)) == list(map(tuple, expected))
    with pytest.raises(UsageError, match="no harmless penalty prompts"):
        ReversionGuard(measured, mode="control:harmless", penalty=harmful)


def test_penalty_prompts_may_not_be_those_that_the_run_was_judged_on(measured, tmp_path):
    shutil.copytree(measured, tmp_path / "run")
    refuse_overlap(Run(measured), PENALTY)
    with Run.writing(tmp_path / "run") as run:
        run.write_json("evaluation", Evaluation(PENALTY, look_alikes=prompts(200, 4)).document())
    with pytest.raises(PromptError, match="among the evaluation prompts"):
        refuse_overlap(Run(tmp_path / "run"), PENALTY)
    with pytest.raises(PromptError, match="among the evaluation prompts"):
        refuse_overlap(Run(tmp_path / "run"), prompts(203, 4))
    refuse_overlap(Run(tmp_path / "run"), prompts(300, 4))
