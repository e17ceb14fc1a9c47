"""Training on less of a batch: the loss and its gradients are those of the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Trainer

from probes.guard.answer_trainer import AnswerTrainer, shorten
from probes.guard.examples import IGNORED, collate
from probes.guard.model_in_training import LiveModel, draws_numbers, undisturbed
from probes.training.tuners import attach_tuner, auxiliary_loss, check_tuner
from tests.builders import FAMILIES, VOCABULARY, tiny_model
from tests.guard.lineages import trainer

PREFIX = (7, 9, 11, 13, 15, 17)
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
Item = tuple[tuple[int, ...], tuple[int, ...]]


def items(prefix: tuple[int, ...] = PREFIX, count: int = 5) -> list[Item]:
    """Requests and answers of several lengths."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(20, VOCABULARY, (count, 12), generator=generator).tolist()
    return [((*prefix, n, *row[: n % 3]), tuple(row[5 : 7 + n])) for n, row in enumerate(rows)]


def model_of(family: str, method: str = "full") -> Any:
    """A tiny model in training, without dropout."""
    model = tiny_model(family, **(NO_DROPOUT if family == "gpt2" else {}))
    return (lora(model) if method == "lora" else model).train()


def lora(model: Any) -> Any:
    """With an adapter that has moved from its zeros."""
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    torch.manual_seed(3)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return tuned


def loss_and_gradients(model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = model(**inputs).loss
    loss.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {"loss": loss.detach(), **{name: gradient.clone() for name, gradient in trained.items()}}


def assert_close(values: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert (values[name] - value).norm() <= 1e-5 * value.norm() + 1e-7, name


@pytest.mark.parametrize(
    ("family", "method"), [*((family, "full") for family in FAMILIES), ("llama", "lora"), ("gpt2", "lora")]
)
def test_loss_and_gradients_are_those_of_the_whole_batch(family: str, method: str) -> None:
    model, batch = model_of(family, method), collate(items())
    short = shorten(LiveModel(model), batch)
    assert short["input_ids"].shape == (5, batch["input_ids"].shape[1] - len(PREFIX))
    assert short["logits_to_keep"] == short["labels"].shape[1] == batch["labels"].shape[1] - len(PREFIX)
    expected = loss_and_gradients(model, batch)
    assert_close(loss_and_gradients(model, short), expected)
    assert len(expected) > 6


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([((n, 3, 5), (8, n)) for n in range(4)], id="requests that begin otherwise"),
        pytest.param([((*PREFIX, 3), (8, 9, 10))], id="one example"),
        pytest.param([((5,), (*PREFIX, 3, n)) for n in range(4)], id="texts that count from the second token on"),
        pytest.param([(PREFIX, (8, n)) for n in range(4)], id="nothing but the beginning"),
    ],
)
def test_what_cannot_be_shared_is_read_with_every_example(batch: list[Item]) -> None:
    model, whole = model_of("llama"), collate(batch)
    short = shorten(LiveModel(model), whole)
    first = int((whole["labels"] != IGNORED).any(dim=0).int().argmax())
    assert whole["input_ids"].shape[1] - short["input_ids"].shape[1] in (0, len(PREFIX) - 1)
    assert short["logits_to_keep"] == whole["labels"].shape[1] - first + 1
    assert_close(loss_and_gradients(model, short), loss_and_gradients(model, whole))


class Widths:
    """The lengths of batches that reach a model's embedding."""

    def __init__(self, model: Any) -> None:
        self.seen: list[int] = []
        embedding = model.get_input_embeddings()
        embedding.register_forward_pre_hook(lambda _, args: self.seen.append(args[0].shape[1]))


def compute_loss(model: Any, tmp_path: Any, **arguments: Any) -> tuple[torch.Tensor, list[int]]:
    """The Trainer's loss, and how long the texts were that the model read for it."""
    run = trainer(model, tmp_path, kind=AnswerTrainer, **arguments)
    batch = collate(items())
    run.compute_loss(model, dict(batch))  # the first time the model is tried
    widths = Widths(model)
    loss = run.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(50))
    return loss, widths.seen


def test_the_trainer_reads_the_beginning_once(tmp_path) -> None:
    model, batch = model_of("llama"), collate(items())
    loss, widths = compute_loss(model, tmp_path)
    assert widths == [len(PREFIX), batch["input_ids"].shape[1] - len(PREFIX)]
    torch.testing.assert_close(loss, model(**batch, num_items_in_batch=torch.tensor(50)).loss)


@pytest.mark.parametrize("change", [{"attention_dropout": 0.1}, {"output_router_logits": True}])
def test_what_is_drawn_or_counted_by_token_trains_on_whole_batches(tmp_path, change) -> None:
    model = tiny_model("mixtral", **change).train()
    _, widths = compute_loss(model, tmp_path)
    assert widths == [collate(items())["input_ids"].shape[1]]


@pytest.mark.parametrize("name", ["pvera", "bara"])
def test_a_tuner_that_draws_at_random_trains_on_whole_batches(tmp_path, name) -> None:
    model = attach_tuner(tiny_model("llama"), name, check_tuner(name, {}, steps=3), seed=0)
    state = torch.get_rng_state()
    assert draws_numbers(model)
    assert torch.equal(torch.get_rng_state(), state)
    with undisturbed(model):
        assert not draws_numbers(model)
    _, widths = compute_loss(model, tmp_path)
    assert widths == [collate(items())["input_ids"].shape[1]]


def test_a_tuners_loss_counts_once_a_step_however_many_batches_it_has(tmp_path) -> None:
    shares: dict[int, list[float]] = {}

    class Shares(AnswerTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch=None) -> Any:
            loss = super().compute_loss(model, dict(inputs), return_outputs, num_items_in_batch)
            task = Trainer.compute_loss(self, model, dict(inputs), num_items_in_batch=num_items_in_batch)
            share = ((loss - task) / auxiliary_loss(model)).item()
            shares.setdefault(self.state.global_step, []).append(share)
            return loss

    options = {"init_r": 4, "target_r": 2, "tinit": 0, "tfinal": 0, "orth_reg_weight": 10.0}
    model = attach_tuner(tiny_model("llama"), "adalora", check_tuner("adalora", options, steps=2), seed=0)
    arguments = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    run = trainer(model, tmp_path, kind=Shares, **arguments, remove_unused_columns=False)
    run.train_dataset, run.data_collator = items(), collate
    run.train()
    assert sorted(map(len, shares.values())) == [1, 2], "the epoch's last step has one batch"
    assert [sum(parts) for parts in shares.values()] == pytest.approx([1.0, 1.0], abs=1e-3)


def test_a_model_without_such_a_cache_trains_on_whole_batches(tmp_path, monkeypatch) -> None:
    model, batch = model_of("llama"), collate(items())
    attention = type(model.model.layers[0].self_attn)
    real = attention.forward

    def forget(self, *args, **kwargs):
        return real(self, *args, **{**kwargs, "cache": None, "past_key_values": None})

    monkeypatch.setattr(attention, "forward", forget)
    loss, widths = compute_loss(model, tmp_path)
    assert widths == [batch["input_ids"].shape[1]]
    torch.testing.assert_close(loss, model(**batch, num_items_in_batch=torch.tensor(50)).loss)


def test_mixed_precision_differs_by_its_own_rounding(tmp_path) -> None:
    model, batch = model_of("llama", "lora"), collate(items())
    loss, widths = compute_loss(model, tmp_path, bf16=True)
    assert widths[0] == len(PREFIX)
    assert loss.item() == pytest.approx(model(**batch, num_items_in_batch=torch.tensor(50)).loss.item(), rel=2e-2)
