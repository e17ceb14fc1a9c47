"""Ways of fine-tuning: every tuner by its name, ranks that are shared out, and adapters that are read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from probes.activations import collect
from probes.behaviour.task_file import read_task
from probes.cli import app
from probes.errors import UsageError
from probes.guard.fine_tuning import CHECKPOINTS, Training, Unguarded, fine_tune, ranks_at_the_end
from probes.guard.loop import Example, Schedule, answer_loss, shuffle_batches, train
from probes.guard.resuming import MARKER
from probes.guard.step_log import read_step_log
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.weight_space import drift_norms
from probes.training.allocation import ALLOCATION, begins_anew
from probes.training.options import parse_options
from probes.training.tuners import attach_tuner, auxiliary_loss, check_tuner, end_step, module_ranks, tuner_names
from tests.builders import DEPTH, save_checkpoint, tiny_model, tiny_tokenizer
from tests.guard.test_train import as_killed_before_the_end, train_words, write_place
from tests.test_models_tuners import NOT_MEASURED, PROMPTS, registry, streams

MATRICES = 7 * DEPTH
EXAMPLES = [Example((1, 5, 6, 7, 2), 2), Example((1, 8, 9, 2), 3), Example((1, 10, 11, 12, 13, 2), 1)]
ADALORA = {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("place"))


def attach(name: str, **options: Any) -> Any:
    config = check_tuner(name, options, steps=8)
    return attach_tuner(tiny_model(), name, config, seed=3)


def test_every_tuner_that_can_be_measured_has_its_name() -> None:
    measured = {kind.lower() for kind in registry() if kind not in NOT_MEASURED}
    assert set(tuner_names()) == {"full", "dora", "bara", *measured}
    assert tuner_names()[0] == "full"


@pytest.mark.parametrize("name", [name.lower() for name in NOT_MEASURED])
def test_what_cannot_be_measured_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"not trained; got {name}, which"):
        check_tuner(name, {}, steps=3)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lorra", {}, "did you mean 'lora'"),
        ("lora", {"lora_alpa": 4}, "lora has no option 'lora_alpa'; did you mean 'lora_alpha'"),
        ("adalora", {"target_rank": 4}, "did you mean 'target_r'"),
        ("lora", {"peft_type": "IA3"}, "no option 'peft_type'"),
        ("lora", {"r": "many"}, "lora: r is of another type; got 'many'; expected int"),
        ("lora", {"init_lora_weights": "pissa_niter_4"}, "drawn anew at each loading"),
        ("adalora", {"tinit": 9}, "budgeting phase"),
        ("adalora", {"r": 8}, "adalora does not use r; got r=8; expected init_r"),
        ("full", {"r": 4}, "full has no option 'r'"),
    ],
)
def test_a_wrong_option_names_the_nearest(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_tuner(name, options, steps=3)


def test_options_are_read_as_yaml() -> None:
    texts = ["r=8", "rate=1e-3", "bias=none", "target_modules=[q_proj, v_proj]", "flag=true", "lora_dropout=null"]
    assert parse_options(texts) == {
        "r": 8,
        "rate": 1e-3,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "flag": True,
        "lora_dropout": None,
    }
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_options(["r"])


def test_lora_begins_where_pefts_own_would_from_the_same_seed() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    expected = get_peft_model(tiny_model(), config).state_dict()
    ours = attach("lora").state_dict()
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    assert attach("lora", r=4).peft_config["default"].lora_alpha == 8


def test_adaloras_own_loss_is_what_peft_adds() -> None:
    model = attach("adalora", **ADALORA)
    ids = torch.tensor([EXAMPLES[0].ids])
    with torch.no_grad():
        whole = model.base_model(input_ids=ids, labels=ids).loss
        assert torch.equal(
            model(input_ids=ids, labels=ids).loss, model.get_base_model()(input_ids=ids, labels=ids).loss
        )
        plain = model.get_base_model()(input_ids=ids, labels=ids).loss
        assert auxiliary_loss(model).item() == pytest.approx((whole - plain).item(), rel=1e-4)
    assert auxiliary_loss(attach("lora")) is None
    assert auxiliary_loss(tiny_model()) is None


def test_adaloras_ranks_change_and_are_pefts_own(tmp_path: Path) -> None:
    base = tmp_path / "base"
    save_checkpoint(base, tiny_model(), tiny_tokenizer())
    model, ranks = attach("adalora", **ADALORA), []
    model.peft_config["default"].base_model_name_or_path = str(base)
    batches = shuffle_batches(EXAMPLES, batch_size=3, steps=8, seed=0, pad=0)
    train(model, batches, Schedule(1e-2, 8), on_step=lambda *_: ranks.append(module_ranks(model)))
    assert set(ranks[0].values()) == {4}, "nothing is taken away while it warms up"
    assert ranks[0] != ranks[3] != ranks[-1]
    pattern = model.peft_config["default"].rank_pattern
    assert ranks[-1] == {name.partition(".lora_E")[0]: sum(parts) for name, parts in pattern.items()}
    left = {
        name.removesuffix(".lora_E.default"): int((values != 0).sum())
        for name, values in model.get_base_model().named_parameters()
        if name.endswith("lora_E.default")
    }
    assert ranks[-1] == left, "what the budget took is zero"
    assert sum(left.values()) <= 2 * MATRICES + 1 < 4 * MATRICES

    model.save_pretrained(tmp_path / "adapter")
    ref = CheckpointRef(model=str(base), adapter=str(tmp_path / "adapter"))
    norms = drift_norms(ModelHost(CheckpointRef(model=str(base)), device="cpu"), ref)
    assert norms.ranks == {f"{path}.weight": rank for path, rank in left.items() if rank}


def test_a_tuner_without_a_budget_is_left_as_it_is() -> None:
    model = attach("lora", r=4)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    end_step(model, 1)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert module_ranks(model) == dict.fromkeys(module_ranks(model), 4)
    assert len(module_ranks(model)) == MATRICES
    assert module_ranks(attach("ia3")) == {}


def test_the_loss_of_answers_sees_the_adapter() -> None:
    model = attach("lora", init_lora_weights=False)
    batch = next(shuffle_batches(EXAMPLES, batch_size=3, steps=1, seed=0, pad=0))
    with torch.no_grad():
        assert answer_loss(model, batch) != pytest.approx(answer_loss(tiny_model(), batch).item())


TRAINED = {
    "dora": {"r": 2},
    "adalora": {**ADALORA, "tinit": 0, "tfinal": 0},
    "ia3": {},
    "osf": {},
    "pvera": {"r": 4},
    "vera": {"r": 4},
    "loha": {"r": 2},
}


def assert_trained_and_read_back(training: Training, place: Path, out: Path) -> tuple[ModelHost, CheckpointRef]:
    """Three steps change the aligned model, and a host that held it reads the adapter as a fresh model does."""
    aligned = CheckpointRef(model=str(place / "aligned"))
    fine_tune(aligned, read_task(place / "data.jsonl"), out, training, lambda _: Unguarded(), {}, device="cpu")
    ref = CheckpointRef(model=aligned.model, adapter=str(out / CHECKPOINTS / "checkpoint-3"))
    host = ModelHost(aligned, device="cpu")
    before = torch.tensor(collect(host, PROMPTS)[0])
    host.put(ref)
    after = torch.tensor(collect(host, PROMPTS)[0])
    torch.testing.assert_close(after, streams(ref), rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-3
    return host, ref


@pytest.mark.parametrize("name", TRAINED)
def test_a_tuner_trains_saves_and_is_read_back(name: str, place: Path, tmp_path: Path) -> None:
    training = Training(
        method=name, method_options=TRAINED[name], steps=3, learning_rate=3e-2, batch_size=4, save_every=3
    )
    host, ref = assert_trained_and_read_back(training, place, tmp_path / "out")
    assert sum(norm**2 for norm in drift_norms(host, ref).values()) > 0
    ranks = ranks_at_the_end(tmp_path / "out")
    assert set(ranks.values()) == {2} if name == "dora" else bool(ranks) == (name == "adalora")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bara_trains_with_its_penalty_and_is_read_back(checkpointing: bool, place: Path, tmp_path: Path) -> None:
    options = {"r": 4, "kl_weight": 10.0, "prior": 0.1, "initial": 0.9}
    training = Training(
        method="bara",
        method_options=options,
        steps=3,
        learning_rate=5e-2,
        batch_size=4,
        save_every=3,
        gradient_checkpointing=checkpointing,
    )
    assert_trained_and_read_back(training, place, tmp_path / "out")
    ranks = ranks_at_the_end(tmp_path / "out")
    assert len(ranks) == MATRICES
    assert max(ranks.values()) < 4 * 0.9 - 0.01, "every gate is drawn towards its prior"


def test_ddc_trains_every_weight(place: Path, tmp_path: Path) -> None:
    words = train_words(place, tmp_path / "out", method="full", optimizer="ddc", steps=2)
    result = CliRunner().invoke(app, ["train", *map(str, words), "--set", "ddc.eps=1e-7"])
    assert result.exit_code == 0, result.output
    states = torch.load(next((tmp_path / "out").rglob("optimizer.pt")), weights_only=True)
    assert {(group["weight_decay"], group["eps"]) for group in states["param_groups"]} == {(0.0, 1e-7)}


def test_an_interrupted_adalora_training_goes_on_to_the_same_weights(place: Path, tmp_path: Path) -> None:
    """Interrupted while its ranks are shared out, and once they are fixed."""
    training = Training(
        method="adalora", method_options=ADALORA, steps=6, learning_rate=3e-2, batch_size=4, save_every=1
    )
    aligned, task = CheckpointRef(model=str(place / "aligned")), read_task(place / "data.jsonl")

    def train_into(out: Path) -> dict[int, tuple[bytes, ...]]:
        fine_tune(aligned, task, out, training, lambda _: Unguarded(), {}, device="cpu")
        names = ("adapter_model.safetensors", "adapter_config.json", ALLOCATION)
        return {
            step: tuple((out / CHECKPOINTS / f"checkpoint-{step}" / name).read_bytes() for name in names)
            for step in range(1, 7)
        }

    whole = train_into(tmp_path / "out")
    assert whole[6] != whole[5] != whole[2]
    for last in (2, 5):
        for step in range(last + 1, 7):
            shutil.rmtree(tmp_path / "out" / CHECKPOINTS / f"checkpoint-{step}")
        as_killed_before_the_end(tmp_path / "out")
        stamp = (tmp_path / "out" / CHECKPOINTS / f"checkpoint-{last}" / MARKER).stat().st_mtime_ns
        assert train_into(tmp_path / "out") == whole
        assert (tmp_path / "out" / CHECKPOINTS / f"checkpoint-{last}" / MARKER).stat().st_mtime_ns == stamp
    (tmp_path / "out" / CHECKPOINTS / "checkpoint-5" / ALLOCATION).unlink()
    assert begins_anew("adalora", tmp_path / "out" / CHECKPOINTS / "checkpoint-5"), "as an earlier version left it"


def test_where_a_training_cannot_go_on_it_says_so_at_once_and_when_it_begins_anew(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(method="adamss", steps=2, learning_rate=1e-3, batch_size=4, save_every=1)
    aligned, task, out = CheckpointRef(model=str(place / "aligned")), read_task(place / "data.jsonl"), tmp_path / "out"

    def messages() -> list[str]:
        caplog.clear()
        fine_tune(aligned, task, out, training, lambda _: Unguarded(), {}, device="cpu")
        return [record.getMessage() for record in caplog.records if "anew" in record.getMessage()]

    at_once = messages()
    assert len(at_once) == 1
    assert "interrupted begins anew" in at_once[0]
    shutil.rmtree(as_killed_before_the_end(out) / "checkpoint-2")
    assert "cannot go on from its checkpoint at step 1" in messages()[0]
    assert (out / CHECKPOINTS / "checkpoint-2" / MARKER).is_file()


def test_adalora_under_a_guard_with_another_optimiser(place: Path, tmp_path: Path) -> None:
    options = [part for key, value in ADALORA.items() for part in ("--set", f"{key}={value}")]
    words = train_words(place, tmp_path / "out", method="adalora", optimizer="NAdam", steps=6, mode="push")
    result = CliRunner().invoke(app, ["train", *map(str, words), *options, "--set", "NAdam.eps=1e-7", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["guard_strength"]["defined"] == document["guard_strength"]["steps"] == 6
    assert document["guard_strength"]["low"] > 0
    assert [line["step"] for line in read_step_log(tmp_path / "out" / CHECKPOINTS)] == list(range(1, 7))
    assert min(document["ranks"].values()) < 4
    assert len(document["ranks"]) == MATRICES


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--method", "lorra"), "did you mean 'lora'"),
        (("--method", "lora", "--set", "rr=3"), "did you mean 'r"),
        (("--method", "lora", "--set", "sgd.momentum=3"), "for nothing that is trained here"),
        (("--optimizer", "AdamV"), "did you mean"),
        (("--method", "dora", "--record-path"), "not recorded; got dora"),
        (("--method", "dora", "--optimizer", "ddc"), "ddc steps a model's own weights; got --method dora"),
        (("--optimizer", "ddc", "--set", "ddc.weights=1"), "ddc has no option 'weights'"),
        (("--method", "bara", "--set", "bara.prior=2"), "bara cannot be told this"),
    ],
)
def test_the_command_refuses_before_a_model_is_trained(
    words: tuple[str, ...], sentence: str, place: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["train", *map(str, train_words(place, tmp_path / "out")), *words])
    assert isinstance(result.exception, UsageError)
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()
