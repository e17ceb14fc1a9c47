"""A path on disk: the same bytes after a kill, the right rows in every batch, and what is not recorded is refused."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from probes.guard import GuardError
from probes.guard.fine_tuning import Unguarded
from probes.guard.path_recorder import describe_optimiser
from probes.guard.recorded_path import PATH, RecordedPath, path_bytes
from probes.lineage import Lineage
from probes.tasks.plan import plan
from tests.attribution.worlds import train_by_trainer, train_plainly
from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.lineages import trainer


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / PATH).iterdir())}


def test_a_killed_training_goes_on_recording_with_the_same_bytes(tmp_path):
    class Killed(Unguarded):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == 5:
                raise KeyboardInterrupt

    train_by_trainer(tmp_path / "whole", tiny_model().requires_grad_(True))
    with pytest.raises(KeyboardInterrupt):
        train_by_trainer(tmp_path / "cut", tiny_model().requires_grad_(True), Killed(record_path=True))
    with pytest.raises(GuardError, match="not whole"):
        RecordedPath(tmp_path / "cut" / PATH)
    run = trainer(tiny_model().train().requires_grad_(True), tmp_path / "cut")
    Unguarded(record_path=True).join(run)
    run.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_path_is_whole_once_the_last_checkpoint_is(tmp_path):
    """Killed behind the last save, the training has nothing left to do, and its path lacks nothing."""

    class Killed(Unguarded):
        def on_save(self, args, state, control, **kwargs):
            super().on_save(args, state, control, **kwargs)
            if state.global_step == state.max_steps:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_by_trainer(tmp_path, tiny_model().requires_grad_(True), Killed(record_path=True), max_steps=2)
    assert RecordedPath(tmp_path / PATH).steps == 2


def test_a_step_holds_what_was_drawn_and_what_it_takes_is_foretold(tmp_path):
    train_plainly(tmp_path, steps=4, batch=6)
    path = RecordedPath(tmp_path / PATH)
    drawn = [place for number in range(1, 5) for place in path.step(number).examples]
    assert sorted(drawn) == list(range(24))
    for number in range(1, 5):
        step = path.step(number)
        assert step.tokens == tuple(path.examples()[place].tokens for place in step.examples)
        assert step.weights == (1 / sum(step.tokens),) * 6
    weights = sum(tensor.numel() for tensor in path.end().values())
    size = (tmp_path / PATH / "step-000001.safetensors").stat().st_size
    assert size == pytest.approx(path_bytes(weights), rel=0.05)


def test_plan_says_what_a_recorded_step_takes(tmp_path):
    aligned = save_checkpoint(tmp_path / "aligned", tiny_model(), tiny_tokenizer())
    planned = plan(Lineage.of(aligned.model, None, [aligned.model]), tmp_path)
    adapted = get_peft_model(tiny_model(), LoraConfig(r=16, target_modules="all-linear"))
    adapter = sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)
    assert planned.path_step_bytes == path_bytes(sum(weight.numel() for weight in tiny_model().parameters()))
    assert planned.path_step_bytes_lora == path_bytes(adapter)


def test_a_weight_without_a_gradient_is_refused(tmp_path):
    model = tiny_model().requires_grad_(True)
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(GuardError, match="no gradient"):
        train_by_trainer(tmp_path, model, max_steps=1)


def test_a_path_is_read_to_an_earlier_checkpoint(tmp_path):
    train_plainly(tmp_path / "long", steps=5)
    train_plainly(tmp_path / "short", steps=3)
    path, short = RecordedPath(tmp_path / "long" / PATH, 3), RecordedPath(tmp_path / "short" / PATH)
    assert path.steps == 3
    assert all(torch.equal(weight, short.end()[name]) for name, weight in path.end().items())
    for step in (0, 6):
        with pytest.raises(GuardError, match="has no step"):
            RecordedPath(tmp_path / "long" / PATH, step)


def test_equal_rows_are_taken_in_turn(tmp_path):
    run = trainer(tiny_model().train().requires_grad_(True), tmp_path, max_steps=4, save_strategy="no")
    rows = run.train_dataset.rows[:8]
    rows[4:] = rows[:4]
    run.train_dataset.rows = rows
    Unguarded(record_path=True).join(run)
    run.train()
    path = RecordedPath(tmp_path / PATH)
    assert sorted(path.step(1).examples + path.step(2).examples) == list(range(8))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (lambda w: torch.optim.RMSprop(w), "RMSprop"),
        (lambda w: torch.optim.AdamW(w, amsgrad=True), "amsgrad"),
        (lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True), "nesterov"),
    ],
)
def test_other_optimisers_are_refused_by_name(optimizer, words):
    with pytest.raises(GuardError, match=words):
        describe_optimiser(optimizer([torch.zeros(2, requires_grad=True)]))


def test_dropout_is_refused(tmp_path):
    with pytest.raises(GuardError, match="dropout"):
        train_by_trainer(tmp_path, tiny_model("gpt2").requires_grad_(True), max_steps=1)


def test_a_damaged_step_is_refused(tmp_path):
    train_plainly(tmp_path, steps=2)
    path = RecordedPath(tmp_path / PATH)
    (tmp_path / PATH / "step-000001.safetensors").write_bytes(b"nothing")
    with pytest.raises(GuardError, match="cannot be read"):
        path.tensors(1)
    facts = tmp_path / PATH / "step-000002.json"
    facts.write_text(json.dumps({"step": 2}))
    with pytest.raises(GuardError, match="cannot be read"):
        path.step(2)
