"""`gravity-probe train` from the command line: real weights, every refusal, and going on after a kill."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from probes.behaviour.task_file import read_task
from probes.cli import app
from probes.errors import GateTripped, GravityError, UsageError
from probes.guard.callback import STATE
from probes.guard.examples import Answered, collate
from probes.guard.fine_tuning import Training, Unguarded, fine_tune
from probes.guard.guarded_direction import GuardError
from probes.guard.resuming import MARKER
from probes.lineage import CheckpointRef, Lineage, Trajectory
from probes.run import Run
from probes.tasks.summarise import summarise
from tests.builders import move_weights
from tests.guard.lineages import lineage, prompts

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
STORIES = SHARED / "models" / "stories260K"
GSM8K = SHARED / "finetune" / "gsm8k_train_first500.jsonl"


def call(*words):
    result = CliRunner().invoke(app, [*map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def run(*words):
    return call("train", *words)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_labels(path, chosen):
    return lines(path, [{"text": prompt.text, "label": prompt.label} for prompt in chosen.prompts])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("place"))


def write_place(folder):
    """A lineage file, data, and prompts of every use."""
    lineage(folder)
    file = folder / "lineage.toml"
    file.write_text('[aligned]\nmodel = "./aligned"\n[witness]\nmodel = "./witness"\n', encoding="utf-8")
    probe = prompts(0)
    for label in ("harmful", "harmless"):
        texts = [prompt.text for prompt in probe.prompts if prompt.label == label]
        (folder / f"{label}.txt").write_text("\n".join(texts), encoding="utf-8")
    write_labels(folder / "penalty.jsonl", prompts(100, 8))
    lines(folder / "data.jsonl", [{"prompt": f"what is {n}", "completion": f"it is {n}"} for n in range(24)])
    return folder


def train_words(place, out, **changes):
    options = {
        "data": place / "data.jsonl",
        "out": out,
        "harmful": place / "harmful.txt",
        "harmless": place / "harmless.txt",
        "penalty": place / "penalty.jsonl",
        "steps": 4,
        "rows": 4,
        "lr": 1e-3,
        "save-every": 2,
        "device": "cpu",
        **changes,
    }
    return [place / "lineage.toml", *(part for name, value in options.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_leaves_checkpoints_and_a_run(place, tmp_path, method):
    document = json.loads(run(*train_words(place, tmp_path / "out", method=method), "--json"))
    assert [row["step"] for row in document["readings"]] == [0, 1, 2, 4]
    trajectory = Trajectory.from_folder(tmp_path / "out" / "checkpoints")
    assert [checkpoint.step for checkpoint in trajectory.checkpoints] == [2, 4]
    assert (trajectory.checkpoints[0].adapter is not None) == (method == "lora")
    run_folder = Run(tmp_path / "out")
    assert summarise(run_folder).trajectories[0].arm == "block"
    opened = Lineage.opened(run_folder.manifest.lineage, run_folder.path)
    assert opened.trajectories[0].checkpoints == trajectory.checkpoints


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """A training that has ended; a test that damages it goes on with it to its end."""
    out = tmp_path_factory.mktemp("finished") / "out"
    run(*train_words(place, out))
    return out


def test_a_killed_training_goes_on_to_the_same_weights(place, finished, tmp_path, monkeypatch):
    import probes.guard.callback as callback

    whole, broken = finished, tmp_path / "broken"
    real = callback.ReversionGuard.on_step_end

    def kill_at_step_3(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt
        return real(self, args, state, control, **kwargs)

    monkeypatch.setattr(callback.ReversionGuard, "on_step_end", kill_at_step_3)
    CliRunner().invoke(app, ["train", *map(str, train_words(place, broken))])
    assert not (broken / "checkpoints" / "checkpoint-4").exists()
    monkeypatch.setattr(callback.ReversionGuard, "on_step_end", real)
    run(*train_words(place, broken))
    weights = [load_file(folder / "checkpoints" / "checkpoint-4" / "model.safetensors") for folder in (whole, broken)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    steps = [
        [checkpoint.step for checkpoint in summarise(Run(folder)).trajectories[0].checkpoints]
        for folder in (whole, broken)
    ]
    assert steps[0] == steps[1]
    directions = [Run(folder).lineage.trajectories[0].direction_sha256 for folder in (whole, broken)]
    assert directions[0] == directions[1] is not None


def as_killed_before_the_end(out):
    """The folder that a kill leaves behind the last save."""
    file = out / "training.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "finished": False}), encoding="utf-8")
    return out / "checkpoints"


def bytes_of(checkpoints):
    return {path.parent.name: path.read_bytes() for path in sorted(checkpoints.glob("*/model.safetensors"))}


def recorded_steps(out):
    return [checkpoint.step for checkpoint in Run(out).lineage.trajectories[0].checkpoints]


def test_killed_after_its_last_step_a_training_trains_no_further(place, finished):
    checkpoints = as_killed_before_the_end(finished)
    before = bytes_of(checkpoints)
    run(*train_words(place, finished))
    assert bytes_of(checkpoints) == before
    assert list(before) == ["checkpoint-2", "checkpoint-4"]
    assert recorded_steps(finished) == [2, 4]
    assert json.loads((finished / "training.json").read_text())["finished"]


@pytest.mark.parametrize("broken", ["the Trainer's own files", "the guard's state", "the marker"])
def test_a_half_written_checkpoint_is_passed_over_for_the_whole_one_before_it(place, finished, broken):
    checkpoints = as_killed_before_the_end(finished)
    before, newest = bytes_of(checkpoints), checkpoints / "checkpoint-4"
    if broken == "the Trainer's own files":
        (newest / "model.safetensors").write_bytes(before["checkpoint-4"][:100])
    (newest / (MARKER if broken != "the guard's state" else STATE)).unlink()
    run(*train_words(place, finished))
    assert bytes_of(checkpoints) == before
    assert recorded_steps(finished) == [2, 4]


def test_a_training_is_not_gone_on_with_on_other_data_of_the_same_length(place, finished, tmp_path):
    as_killed_before_the_end(finished)
    changed = tmp_path / "data.jsonl"
    changed.write_text((place / "data.jsonl").read_text("utf-8").replace("it is 3", "it is 5"), encoding="utf-8")
    with pytest.raises(UsageError, match="another training"):
        run(*train_words(place, finished, data=changed))


def test_a_training_is_not_gone_on_with_from_other_weights_in_the_same_place(place, finished):
    as_killed_before_the_end(finished)
    weights = place / "aligned" / "model.safetensors"
    content = weights.read_bytes()
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    try:
        with pytest.raises(UsageError, match="another training"):
            run(*train_words(place, finished))
    finally:
        weights.write_bytes(content)


def test_a_training_that_an_earlier_version_began_goes_on(place, finished):
    as_killed_before_the_end(finished)
    file = finished / "training.json"
    claim = json.loads(file.read_text(encoding="utf-8"))
    names = {"batch_size": "rows", "gradient_accumulation_steps": "accumulation"}
    training = {names.get(name, name): value for name, value in claim["identity"]["training"].items()}
    del training["decay"], claim["identity"]["data_sha256"], claim["identity"]["start_sha256"]
    file.write_text(json.dumps({**claim, "identity": {**claim["identity"], "training": training}}), encoding="utf-8")
    run(*train_words(place, finished))
    with pytest.raises(UsageError, match="finished training"):
        run(*train_words(place, finished))


def test_a_training_does_not_go_on_along_another_direction(place, finished):
    """As where a control is drawn otherwise than by the version that has begun the training."""
    checkpoints = as_killed_before_the_end(finished)
    (checkpoints / "checkpoint-4" / MARKER).unlink()
    file = checkpoints / "checkpoint-2" / STATE
    state = load_file(file)
    state["direction"][0] ^= 1
    save_file(state, file)
    with pytest.raises(GuardError, match="guarded along another direction"):
        run(*train_words(place, finished))


@pytest.mark.parametrize(("decay", "last_rate"), [(True, 0.0), (False, 1e-3)])
def test_the_learning_rate_falls_to_zero_or_stays(place, tmp_path, decay, last_rate):
    training = Training(steps=4, learning_rate=1e-3, batch_size=2, warmup=1, decay=decay)
    data = read_task(place / "data.jsonl")
    aligned = CheckpointRef(model=str(place / "aligned"))
    fine_tune(aligned, data, tmp_path / "out", training, lambda _: Unguarded(), {}, device="cpu")
    schedule = torch.load(tmp_path / "out" / "checkpoints" / "checkpoint-4" / "scheduler.pt", weights_only=True)
    assert schedule["_last_lr"] == pytest.approx([last_rate] * len(schedule["_last_lr"]))


def test_what_stands_in_the_way_is_refused(place, tmp_path):
    run(*train_words(place, tmp_path / "done", mode="watch"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    bare = lines(tmp_path / "bare.jsonl", [{"text": "hello", "label": "harmless"}])
    empty = lines(tmp_path / "empty.jsonl", [{"prompt": "hello", "completion": " "}])
    shared = write_labels(tmp_path / "shared.jsonl", prompts(0, 8))
    for error, words, out, changes in (
        (UsageError, "finished training", "done", {"mode": "watch"}),
        (UsageError, "another training", "done", {"mode": "watch", "steps": 5}),
        (UsageError, "another folder", "full", {}),
        (UsageError, "no requests with answers", "a", {"data": bare}),
        (GravityError, "no answer", "b", {"data": empty}),
        (GravityError, prompts(0, 8).ids[0], "c", {"penalty": shared}),
        (GravityError, prompts(100, 8).ids[0], "d", {"evaluation": place / "penalty.jsonl"}),
        (GravityError, "did you mean 'block'", "e", {"mode": "blok"}),
    ):
        with pytest.raises(error, match=words):
            run(*train_words(place, tmp_path / out, **changes))
        assert (tmp_path / out).exists() == (out in ("done", "full")), "also where it is refused after measuring"


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("did you mean 'block'", {"mode": "blok"}),
        ("No example fits", {"max-length": 8}),
        ("--aligned-share is a share of examples that --interleave names", {"aligned-share": 0.3}),
    ],
)
def test_what_is_refused_before_the_first_measurement_leaves_no_folder(place, tmp_path, sentence, changes):
    with pytest.raises(GravityError, match=sentence):
        run(*train_words(place, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_start_from_an_adapter_is_refused_and_leaves_no_folder(place, tmp_path):
    start = CheckpointRef(model=str(place / "aligned"), adapter=str(place / "adapter"))
    with pytest.raises(GravityError, match="cannot start from an adapter"):
        fine_tune(start, [("a", "b")], tmp_path / "out", Training(), lambda _: Unguarded(), {}, device="cpu")
    assert not (tmp_path / "out").exists()


def test_an_alarm_that_stops_is_exit_code_three(place, tmp_path):
    with pytest.raises(GateTripped, match="Last healthy checkpoint") as caught:
        run(
            *train_words(
                place, tmp_path / "out", mode="push", alarm=0.2, **{"on-alarm": "stop", "every": 1, "steps": 30}
            )
        )
    assert caught.value.exit_code == 3
    assert json.loads((tmp_path / "out" / "training.json").read_text())["stopped"]


def test_only_answers_count_and_long_ones_are_cut():
    data = Answered([((1, 2, 3), (4, 5)), ((1,), (6, 7, 8, 9)), ((1,) * 9, (2,))], max_length=4)
    assert (len(data), data.left_out) == (2, 1)
    batch = collate([data[0], data[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [1, 6, 7, 8]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 4], [-100, 6, 7, 8]]
    assert collate([data[0], ((1,), (6,))])["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.skipif(not STORIES.is_dir(), reason="the real weights of stories260K are not beside this checkout")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_real_weights_learn_real_answers_under_a_guard(place, tmp_path, method):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = move_weights(AutoModelForCausalLM.from_pretrained(STORIES), scale=0.02)
    model.save_pretrained(tmp_path / "witness")
    AutoTokenizer.from_pretrained(STORIES).save_pretrained(tmp_path / "witness")
    file = tmp_path / "lineage.toml"
    file.write_text(f'[aligned]\nmodel = "{STORIES}"\n[witness]\nmodel = "./witness"\n', encoding="utf-8")
    out = tmp_path / "out"
    files = ("harmful.txt", "harmless.txt", "penalty.jsonl")
    probe = [word for file in files for word in (f"--{file.partition('.')[0]}", place / file)]
    options = [
        *probe,
        "--data",
        GSM8K,
        "--out",
        out,
        "--steps",
        6,
        "--batch-size",
        4,
        "--max-length",
        192,
        "--save-every",
        3,
    ]
    document = json.loads(run(file, *options, "--method", method, "--learning-rate", 1e-3, "--device", "cpu", "--json"))
    assert [row["step"] for row in document["readings"]] == [0, 1, 2, 3, 5, 6]
    assert document["readings"][-1]["return_fraction"] is not None
    state = json.loads((out / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6
    assert summarise(Run(out)).trajectories[0].checkpoints[-1].step == 6


def test_an_adapter_is_trained_in_float32_where_the_processor_does_not_multiply_bfloat16(tmp_path, monkeypatch):
    from probes.guard.fine_tuning import Training, _model
    from tests.builders import save_checkpoint, tiny_model, tiny_tokenizer

    save_checkpoint(tmp_path, tiny_model().to(torch.bfloat16), tiny_tokenizer())
    for native, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda native=native: native, raising=False)
        model = _model(tmp_path, Training(method="lora"), "cpu")
        assert {weight.dtype for name, weight in model.named_parameters() if "base_layer" in name} == {dtype}
