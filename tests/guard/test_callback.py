"""The callback in an ordinary Trainer: what it changes, what it must not, and how it goes on."""

# ruff: noqa: ARG002 - the signatures are the Trainer's

import json
import shutil

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import rewrite_logs

from probes.behaviour.generate import generate
from probes.errors import PromptError, UsageError
from probes.guard import GuardError
from probes.guard.alarm import Alarm, AlarmTests, Hearing, Reading, count_measurements
from probes.guard.callback import STATE, ReversionGuard
from probes.guard.model_in_training import LiveModel, undisturbed
from probes.guard.modes import Options
from probes.guard.resuming import MARKER, mark_whole, whole_checkpoints
from probes.guard.safety_watch import SafetyWatch
from probes.guard.schedule import is_log_spaced, save_interval
from probes.lineage import Lineage
from probes.nulls import NO_FURTHER_PASS, SHAMS, TOWARDS_WITNESS
from probes.prompts import PromptSet, render
from probes.run import Run
from probes.tasks.summarise import summarise
from tests.builders import move_weights, tiny_model, tiny_tokenizer
from tests.guard.lineages import lineage, prompts, trainer

PENALTY = prompts(100, 8)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return lineage(tmp_path_factory.mktemp("lineage"))


@pytest.fixture(scope="module")
def measured(history, tmp_path_factory):
    """A run with aligned and witness, so that each test need not measure them."""
    folder = tmp_path_factory.mktemp("run") / "measured"
    ReversionGuard(history, probe=prompts(0), out=folder)
    return folder


def aligned_model(history, **changes):
    return AutoModelForCausalLM.from_pretrained(history.aligned.model, **changes)


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def lora(model):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=2, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "up_proj"]))


@pytest.mark.parametrize("dress", [lambda model: model, lora], ids=["full", "lora"])
def test_watching_leaves_the_trained_weights_bit_for_bit(history, measured, tmp_path, dress):
    def train(name, callbacks):
        model = dress(aligned_model(history, attention_dropout=0.1))
        trainer(model, tmp_path / name, callbacks).train()
        return weights(model)

    watch = ReversionGuard(measured, out=tmp_path / "run", every=1)
    assert same(train("without", None), train("with", [watch]))
    assert [reading.step for reading in watch.readings] == list(range(7))


def test_the_record_is_a_run_that_can_be_read_while_training_goes_on(history, measured, tmp_path):
    seen = []

    class Reader(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps = [checkpoint.step for checkpoint in summarise(Run(tmp_path / "run")).trajectories[0].checkpoints]
            seen.append((state.global_step, steps, Run(tmp_path / "run").manifest.status))

    watch = ReversionGuard(measured, out=tmp_path / "run")
    trainer(aligned_model(history), tmp_path / "out", [watch, Reader()]).train()
    assert seen[0] == (1, [0, 1], "running")
    run = Run(tmp_path / "run")
    assert run.manifest.status == "finished"
    trajectory = summarise(run).trajectories[0]
    assert (trajectory.arm, [checkpoint.step for checkpoint in trajectory.checkpoints]) == ("watch", [0, 1, 2, 3, 5, 6])
    assert [step["step"] for step in run.manifest.lineage["trajectories"][0]["checkpoints"]] == [3, 6]
    assert len(run.manifest.checkpoints["watch-s0-000006"]["weights_sha256"]) == 64


def test_readings_are_those_of_measuring_the_saved_checkpoints(history, measured, tmp_path):
    from probes.lineage import Trajectory
    from probes.store.settings import Settings
    from probes.tasks.measure import measure

    watch = ReversionGuard(measured, out=tmp_path / "run", every=3)
    trainer(aligned_model(history), tmp_path / "out", [watch]).train()
    later = history.with_trajectories((Trajectory.from_folder(tmp_path / "out"),))
    run = measure(later, prompts(0), tmp_path / "later", settings=Settings(nulls=False, splits=20, bootstraps=20))
    layer = run.manifest.config["headline_layer"]
    for checkpoint, reading in zip(summarise(run).trajectories[0].checkpoints, watch.readings[1:], strict=True):
        row = checkpoint.layers[layer]
        assert reading.step == checkpoint.step
        assert reading.return_fraction == pytest.approx(row.return_fraction, rel=1e-3, abs=1e-4)
        assert reading.off_axis == pytest.approx(row.off_axis, rel=1e-3, abs=1e-4)
    watched = Run(tmp_path / "run")
    assert set(watched.table("maps/plane")["step"]) == {0, 3, 6}
    for name, keys, columns in (
        ("maps/plane", ["step", "layer", "role"], ["along"]),
        ("projections", ["step", "layer", "role", "prompt"], ["projection"]),
    ):
        tables = (table.table(name) for table in (watched, run))
        own, measured_later = (
            table.assign(role=table["arm"].where(table["step"] == 0, "tuned")).set_index(keys)[columns]
            for table in tables
        )
        joined = own.join(measured_later, rsuffix="_later", how="inner")
        assert len(joined) == len(measured_later)
        assert list(joined[columns[0]]) == pytest.approx(list(joined[f"{columns[0]}_later"]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("accumulated", [1, 4])
@pytest.mark.parametrize("dress", [lambda model: model, lora], ids=["full", "lora"])
def test_the_step_gets_the_task_gradient_plus_that_of_the_written_formula(
    history, measured, tmp_path, accumulated, dress
):
    """The gradient is taken before and after the guard by two plain callbacks around it."""
    model = dress(aligned_model(history))
    noted = {}

    class Before(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:  # a step that leads back, whatever this random task does
                towards(model, history)

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            noted[state.global_step, "before"] = gradients(model)

    class After(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            noted[state.global_step, "after"] = gradients(model)
            noted[state.global_step, "weights"] = weights(model)

    guard = ReversionGuard(measured, mode="block", penalty=PENALTY, batch_size=8, layers=[1, 2])
    train = trainer(
        model,
        tmp_path / "out",
        [Before(), guard, After()],
        gradient_accumulation_steps=accumulated,
        max_steps=3,
        max_grad_norm=0.0,
    )
    train.train()
    for step in (0, 2):
        expected = by_hand(dress(aligned_model(history)), noted[step, "weights"], guard._run, history)
        before, after = noted[step, "before"], noted[step, "after"]
        assert set(after) >= set(expected)
        for name, gradient in expected.items():
            torch.testing.assert_close(after[name] - before[name], gradient, rtol=2e-3, atol=2e-5)
        moved_at_all = any(bool(gradient.abs().max() > 1e-4) for gradient in expected.values())
        assert moved_at_all == (step > 0)


@torch.no_grad()
def towards(model, history):
    back = AutoModelForCausalLM.from_pretrained(history.witness.model).state_dict()
    body = model.get_base_model() if hasattr(model, "get_base_model") else model
    for name, parameter in body.named_parameters():
        if (plain := name.replace(".base_layer", "")) in back:
            parameter.lerp_(back[plain], 0.8)


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def by_hand(model, state, run, history):
    """∇ of λ · mean relu(⟨h_t − h_S, v⟩ / ⟨v, v⟩)², from transformers' hidden states, one prompt at a time."""
    reference = aligned_model(history)
    model.load_state_dict(state)
    model.eval()
    body = model.get_base_model() if hasattr(model, "get_base_model") else model
    tokenizer, projections = tiny_tokenizer(), []
    for prompt in PENALTY.prompts:
        if prompt.label != "harmful":
            continue
        turns = [{"role": "user", "content": prompt.text}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        for layer in (1, 2):
            now, then = (hidden(side, ids, layer) for side in (body, reference))
            vector = torch.tensor(run.direction("reversion").raw[layer], dtype=torch.float32)
            projections.append((now - then.detach()) @ vector / (vector @ vector))
    loss = 10.0 * torch.stack(projections).relu().square().mean()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: grad for name, grad in zip(trained, grads, strict=True) if grad is not None}


def hidden(model, ids, layer):
    outputs = []
    handle = model.model.layers[layer].register_forward_hook(
        lambda _, __, out: outputs.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    model(ids)
    handle.remove()
    return outputs[0][0, -1]


@pytest.mark.parametrize("dress", [lambda model: model, lora], ids=["full", "lora"])
def test_an_interrupted_training_goes_on_with_record_and_multiplier_to_the_same_weights(
    history, measured, tmp_path, dress
):
    def guard(run):
        return ReversionGuard(
            measured, mode="block", penalty=PENALTY, batch_size=4, max_return=-5.0, out=tmp_path / run, every=1
        )

    whole = dress(aligned_model(history))
    first = guard("whole")
    trainer(whole, tmp_path / "a", [first]).train()

    shutil.copytree(tmp_path / "a" / "checkpoint-3", tmp_path / "b" / "checkpoint-3")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")  # holds steps 4 to 6, as a killed process may have
    second, resumed = guard("again"), dress(aligned_model(history))
    trainer(resumed, tmp_path / "b", [second]).train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    assert same(weights(whole), weights(resumed))
    multipliers = [callback.guard.effect.tensors["multiplier"] for callback in (first, second)]
    assert torch.equal(*multipliers)
    assert multipliers[0].any()
    tables = [Run(tmp_path / name).read_table("drift") for name in ("whole", "again")]
    assert tables[0].drop(columns="reason").equals(tables[1].drop(columns="reason"))


def test_a_budget_is_held_where_the_task_alone_would_pass_it(history, measured, tmp_path):
    """The task is the witness's own behaviour: to learn it is to go back."""

    def furthest(**options):
        model = aligned_model(history)
        guard = ReversionGuard(
            measured, out=tmp_path / f"run{len(options)}", every=20, penalty=PENALTY, seed=len(options), **options
        )
        train = trainer(model, tmp_path / f"out{len(options)}", [guard], max_steps=60, save_strategy="no")
        with torch.no_grad():
            teacher = AutoModelForCausalLM.from_pretrained(history.witness.model)
            train.train_dataset.rows = taught(teacher, guard)
        train.train()
        return max(reading.return_fraction or 0.0 for reading in guard.readings)

    free, held = furthest(), furthest(mode="block", max_return=0.01, batch_size=8)
    assert free > 0.04
    assert held < free / 2


def taught(teacher, guard):
    """What the teacher writes behind the probe prompts, in rows of one length."""
    tokenizer = tiny_tokenizer()
    texts = [f"<user> {text}</s><assistant>" for text in guard._run.prompts.texts]
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][-12:] for text in texts])
    for _ in range(6):
        ids = torch.cat([ids, teacher(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def test_the_sum_is_no_longer_than_the_trainer_promises(history, measured, tmp_path):
    lengths = []

    class After(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            lengths.append(
                torch.stack([gradient.norm() for gradient in gradients(kwargs["model"]).values()]).norm().item()
            )

    guard = ReversionGuard(measured, mode="push", penalty=PENALTY, options=Options(penalty_weight=100.0))
    trainer(aligned_model(history), tmp_path / "out", [guard, After()], max_grad_norm=0.5).train()
    assert max(lengths) <= 0.5001
    assert min(lengths) > 0.4


def test_matched_strength_is_the_ratio_that_was_asked_for(history, measured, tmp_path):
    ratios = []

    class Before(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            self.task = gradients(kwargs["model"])

    before = Before()

    class After(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            now = gradients(kwargs["model"])
            added = torch.stack([(now[name] - before.task[name]).norm() for name in now]).norm()
            ratios.append((added / torch.stack([gradient.norm() for gradient in before.task.values()]).norm()).item())

    guard = ReversionGuard(measured, mode="push", penalty=PENALTY, gradient_ratio=0.3)
    trainer(aligned_model(history), tmp_path / "out", [before, guard, After()], max_grad_norm=0.0).train()
    assert ratios == pytest.approx([0.3] * 6, rel=1e-3)
    assert guard.guard.ratio == 0.3


def test_gradient_checkpointing_changes_nothing(history, measured, tmp_path):
    def train(name, **changes):
        model = aligned_model(history)
        guard = ReversionGuard(measured, mode="block", penalty=PENALTY)
        trainer(model, tmp_path / name, [guard], **changes).train()
        return weights(model)

    plain = train("plain")
    for kind in (False, True):
        options = {"gradient_checkpointing_kwargs": {"use_reentrant": kind}}
        saved = train(f"reentrant-{kind}", gradient_checkpointing=True, **options)
        for name in plain:
            torch.testing.assert_close(plain[name], saved[name], rtol=1e-4, atol=1e-5)


def test_mixed_precision_trains_and_the_penalty_acts(history, measured, tmp_path):
    def train(mode):
        model = aligned_model(history)
        guard = ReversionGuard(measured, mode=mode, penalty=PENALTY, out=tmp_path / f"{mode}-run", every=6)
        trainer(model, tmp_path / mode, [guard], bf16=True).train()
        return guard.readings[-1].return_fraction

    assert train("push") > train("watch") + 0.05


def test_the_alarm_rings_with_hysteresis_and_names_the_last_healthy_checkpoint(history, measured, tmp_path):
    guard = ReversionGuard(
        measured, mode="push", penalty=PENALTY, out=tmp_path / "run", every=1, alarm=0.3, on_alarm="stop"
    )
    train = trainer(aligned_model(history), tmp_path / "out", [guard], save_steps=1, max_steps=50, learning_rate=1e-4)
    train.train()
    assert train.state.global_step < 50
    rang = guard.readings[-1]
    assert rang.return_fraction >= 0.3
    assert all((reading.return_fraction or 0) < 0.3 for reading in guard.readings[:-1])
    assert guard.last_healthy == tmp_path / "out" / f"checkpoint-{rang.step - 1}"
    assert str(guard.last_healthy) in guard.stopped
    alarm = Run(tmp_path / "run").read_json("alarm")
    assert alarm["step"] == rang.step
    assert alarm["planned_measurements"] == 50
    assert alarm["tests"]["level"] == pytest.approx(0.05 / 50)
    assert set(alarm["tests"]["p_values"]) | set(alarm["tests"]["left_out"]) == set(TOWARDS_WITNESS)
    assert "sham_drift, sham_witness (it needs further forward passes)" in guard.stopped
    assert all(p <= 0.05 / 50 for p in alarm["tests"]["p_values"].values())


def test_the_alarm_is_silent_where_a_test_does_not_reject_at_its_share_of_alpha():
    hearing = Hearing(0.05 / 40, {"sign_flip": 0.001, "random_difference": 0.002}, {})
    reading = Reading(7, 0.5, 0.4, 0.1, 3.0, None)
    alarm = Alarm(0.3, noise=0.1)
    assert not alarm.hears(reading, lambda: hearing)
    assert alarm.hears(reading, lambda: Hearing(0.05 / 20, hearing.p_values, {}))
    assert not alarm.hears(reading, lambda: pytest.fail("it rings already, and the tests are not asked again"))
    quiet = Alarm(0.3, noise=1.0)
    assert not quiet.hears(reading, lambda: pytest.fail("within noise, the tests are not asked"))


def test_the_alarms_tests_are_the_ladders_and_share_alpha_among_the_measurements(measured):
    run = Run(measured)
    aligned, witness = (run.activations(name, run.headline_layer) for name in ("aligned", "witness"))
    back = (witness - aligned)[run.harmful].mean(axis=0)
    tests = AlarmTests(run, 10)
    assert tests.level == run.settings.alpha / 10
    hearing = tests.hear(aligned + 0.5 * back)
    assert hearing.beyond
    assert set(hearing.p_values) == set(NO_FURTHER_PASS)
    assert set(hearing.left_out) == set(SHAMS)
    shuffled = back[::-1].copy()
    assert not tests.hear(aligned + 0.5 * shuffled).beyond
    many = AlarmTests(run, 4000).hear(aligned + 0.5 * back)
    assert many.beyond, "more measurements have more draws"
    assert set(many.left_out) > set(SHAMS), "16 harmful prompts have too few signs for so small a level"
    assert "sign_flip" in many.sentence.split("left out:")[1]


def test_measurements_are_counted_with_saves_answers_and_the_last_step():
    assert count_measurements(100, is_log_spaced, None) == 7
    assert count_measurements(100, is_log_spaced, 30) == 7 + 3
    assert count_measurements(99, lambda step: step % 10 == 0, None) == 10
    args = TrainingArguments(output_dir="unused", save_strategy="epoch", use_cpu=True)
    state = TrainerState(max_steps=30, num_train_epochs=3)
    assert save_interval(args, state) == 10


def test_where_answers_are_asked_for_an_eroded_safety_rings(history, measured, tmp_path, monkeypatch):
    """A judge of letters stands in for what tiny random models cannot say: an answer that changed is compliance."""
    before = {}

    def ask(self, live):
        answers = generate(live, render(PromptSet(self._prompts), live.tokenizer, None).token_ids, max_new_tokens=4)
        before.setdefault("answers", answers)
        return ["refusal" if same else "compliance" for same in map(list.__eq__, answers, before["answers"])]

    monkeypatch.setattr(SafetyWatch, "_ask", ask)
    guard = ReversionGuard(
        measured, out=tmp_path / "run", every=100, evaluate_every=2, on_alarm="stop", evaluation=prompts(200, 64)
    )
    train = trainer(aligned_model(history), tmp_path / "out", max_steps=40, learning_rate=3e-3, save_steps=1)
    guard.join(train)
    train.train()
    assert train.state.global_step < 40
    assert train.state.global_step % 2 == 0
    assert "Eroded: it refuses 100 % of harmful requests before" in guard.stopped
    alarm = Run(tmp_path / "run").read_json("alarm")
    assert alarm["safety"]["answer"] == "eroded"
    assert Run(tmp_path / "run").read_json("safety_watch")["aligned"] == ["refusal"] * 64
    logged = [entry for entry in train.state.log_history if "guard/refusal_harmful" in entry]
    assert {entry["step"] for entry in logged} == set(range(2, train.state.global_step + 1, 2))
    without_answers = ReversionGuard(
        measured, evaluate_every=2, evaluation=prompts(200, 4)
    )  # whose run holds no answers
    with pytest.raises(GuardError, match="had no evaluation"):
        trainer(aligned_model(history), tmp_path / "out", [without_answers], max_steps=60).train(
            resume_from_checkpoint=True
        )


def test_the_model_in_training_is_asked_and_judged(measured, history):
    run = Run(measured)
    watch = SafetyWatch(prompts(200, 8), 5, max_new_tokens=3)
    live = LiveModel(aligned_model(history).train(), tiny_tokenizer())
    watch.begin(live, run, 0, recorded=False)
    assert not watch.evaluate(live), "the same model answers alike"
    assert (watch.answer.prompts, watch.answer.difference) == (8, 0.0)
    assert live.model.training
    assert [step for step in range(12) if watch.is_due(step)] == [5, 10]


def test_after_a_resume_each_alarm_is_as_it_was(measured, tmp_path):
    def guard():
        return ReversionGuard(measured, every=1, alarm=0.3, evaluate_every=5, evaluation=prompts(200, 8))

    before = guard()
    before._watch._alarm.hears(Reading(7, 0.5, 0.4, 0.1, 1e6, None), lambda: Hearing(1.0, {}, {}))
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    mark_whole(folder, ringing=before._watch.ringing_alarms, stopped=None)
    after = guard()
    after._take_up(whole_checkpoints(tmp_path))
    assert after._watch.ringing_alarms == ("return",), "else an erosion that begins now would not ring"
    assert after.last_healthy is None
    marker = json.loads((folder / MARKER).read_text())
    del marker["ringing"]  # as earlier versions wrote it
    (folder / MARKER).write_text(json.dumps(marker))
    after._take_up(whole_checkpoints(tmp_path))
    assert after._watch.ringing_alarms == ("return", "safety")


def test_a_resumed_training_is_asked_what_it_was_asked_before(history, tmp_path):
    ReversionGuard(history, probe=prompts(0), out=tmp_path / "run")
    run, live = Run(tmp_path / "run"), LiveModel(aligned_model(history).train(), tiny_tokenizer())
    SafetyWatch(prompts(200, 8), 5, max_new_tokens=3).begin(live, run, 0, recorded=True)
    SafetyWatch(prompts(200, 8), 5).begin(live, Run(run.path), 5, recorded=True)
    with pytest.raises(GuardError, match="evaluated on other prompts"):
        SafetyWatch(prompts(300, 8), 5).begin(live, Run(run.path), 5, recorded=True)


def test_an_alarm_can_switch_the_block_on(history, measured, tmp_path):
    guard = ReversionGuard(
        measured, mode="block", penalty=PENALTY, every=1, alarm=1e-6, on_alarm="block", out=tmp_path / "run"
    )
    # whatever the direction of these random rows: only the switch is asked
    guard._watch._alarm.floor, guard._watch._hear = -1.0, lambda _: Hearing(1.0, {}, {})
    assert not guard.guard.on
    trainer(aligned_model(history), tmp_path / "out", [guard]).train()
    assert guard.guard.on == any((reading.return_fraction or 0) >= 1e-6 for reading in guard.readings)
    assert guard.guard.on


class Reporter(TrainerCallback):
    """What TensorBoard, Weights and Biases, MLflow and trackio are to the Trainer: they get numbers by `on_log`."""

    def __init__(self):
        self.entries = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.entries.append((state.global_step, rewrite_logs(logs)))


def test_readings_reach_the_trainers_log_and_its_reporters(history, measured, tmp_path):
    reporter = Reporter()
    train = trainer(aligned_model(history), tmp_path / "out", [reporter])
    ReversionGuard(measured, every=2).join(train)
    train.train()
    reports = [(step, logs) for step, logs in reporter.entries if "train/guard/return_fraction" in logs]
    assert [step for step, _ in reports] == [2, 3, 4, 6]
    assert all(isinstance(value, int | float) for _, logs in reports for value in logs.values())  # what they can draw
    logged = [entry for entry in train.state.log_history if "guard/return_fraction" in entry]
    assert [entry["step"] for entry in logged] == [2, 3, 4, 6]


@pytest.mark.parametrize("mode", ["steering", "caft"])
def test_edits_are_there_in_training_and_gone_afterwards(history, measured, tmp_path, mode):
    model, plain = aligned_model(history), aligned_model(history)
    guard = ReversionGuard(measured, mode=mode, penalty=PENALTY)
    trainer(model, tmp_path / "a", [guard]).train()
    trainer(plain, tmp_path / "b").train()
    assert not same(weights(model), weights(plain))
    assert not any(block._forward_hooks for block in model.model.layers)


def test_everything_is_put_back_after_an_exception():
    model, tokenizer = tiny_model().train(), tiny_tokenizer(padding_side="left")
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)

    def break_off():
        with undisturbed(model, tokenizer):
            torch.rand(9)
            tokenizer.padding_side, model.config.use_cache = "right", False
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert [module.training for module in model.modules()] == modes
    assert tokenizer.padding_side == "left"
    assert model.config.use_cache is True
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops_and_names_the_last_healthy_checkpoint(history, measured, tmp_path):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                self.before = weights(kwargs["model"])
                kwargs["model"].lm_head.weight.data[5] = torch.inf

    guard, poison, model = ReversionGuard(measured, out=tmp_path / "run"), Poison(), aligned_model(history)
    with pytest.raises(GuardError, match=r"step 5 is not finite.*checkpoint-3"):
        trainer(model, tmp_path / "out", [guard, poison]).train()
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], poison.before[name])
    assert (tmp_path / "out" / "checkpoint-3" / "model.safetensors").is_file()


def test_sharded_parameters_are_refused_by_name(history, measured):
    from probes.guard.model_in_training import LiveModel

    model = tiny_model()
    model.lm_head.weight.ds_id = 7
    with pytest.raises(GuardError, match="ZeRO-3"):
        LiveModel(model)

    class FullyShardedDataParallel(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

    with pytest.raises(GuardError, match="FSDP"):
        LiveModel(FullyShardedDataParallel(tiny_model()))


def test_a_direction_of_another_model_is_refused(history, measured, tmp_path):
    for foreign in (tiny_model(seed=9), tiny_model(num_hidden_layers=2), move_weights(tiny_model(), seed=8, scale=0.3)):
        with pytest.raises(GuardError, match="another model"):
            trainer(foreign, tmp_path / "out", [ReversionGuard(measured)]).train()


def test_prompts_that_overlap_are_refused_before_anything_is_measured(tmp_path):
    out, probe = tmp_path / "out", prompts(0)
    nowhere = Lineage.of(aligned="org/no-such", witness="org/none")
    for more in ({"penalty": probe}, {"penalty": PENALTY, "evaluation": PENALTY}):
        with pytest.raises(PromptError, match="Penalty prompts are among"):
            ReversionGuard(nowhere, mode="block", out=out, probe=probe, **more)
    assert not out.exists()


def test_prompts_that_overlap_are_refused_with_their_ids(measured):
    shared = prompts(0, 8)
    with pytest.raises(PromptError, match="probe prompts") as caught:
        ReversionGuard(measured, mode="block", penalty=shared)
    assert shared.ids[0] in str(caught.value)
    with pytest.raises(PromptError, match="evaluation prompts") as caught:
        ReversionGuard(measured, mode="block", penalty=PENALTY, evaluation=PENALTY)
    assert PENALTY.ids[0] in str(caught.value)


def test_what_cannot_be_is_refused(measured):
    for error, options in (
        (GuardError, {"mode": "blok", "penalty": PENALTY}),
        (UsageError, {"mode": "block"}),
        (UsageError, {"mode": "push", "penalty": PENALTY, "max_return": 0.1}),
        (UsageError, {"alarm": -1.0}),
        (UsageError, {"every": -1}),
        (UsageError, {"evaluate_every": 0}),
        (GuardError, {"mode": "control:drift", "penalty": PENALTY}),
    ):
        with pytest.raises(error):
            ReversionGuard(measured, **options)


def test_a_training_without_guard_cannot_be_resumed_with_one(history, measured, tmp_path):
    trainer(aligned_model(history), tmp_path / "out").train()
    guard = ReversionGuard(measured, mode="block", penalty=PENALTY)
    train = trainer(aligned_model(history), tmp_path / "out", [guard], max_steps=8)
    with pytest.raises(GuardError, match=STATE):
        train.train(resume_from_checkpoint=True)


def test_log_spaced_steps():
    assert [step for step in range(1001) if is_log_spaced(step)] == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
