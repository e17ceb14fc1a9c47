"""The plain loop: what it counts, in what order, and that it stops at nonsense."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from probes.guard import Batch, Example, GuardError, Schedule, answer_loss, shuffle_batches, train

EXAMPLES = [Example((1, 5, 6, 7, 2), 2), Example((1, 8, 9, 2), 3), Example((1, 10, 11, 12, 13, 2), 1)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )


def test_loss_is_that_of_the_answers_one_by_one(model):
    total, tokens = 0.0, 0
    for example in EXAMPLES:
        with torch.no_grad():
            log = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
        for place in range(example.answer_start, len(example.ids)):
            total -= log[place - 1, example.ids[place]].item()
            tokens += 1
    assert answer_loss(model, Batch.of(EXAMPLES, pad=0)).item() == pytest.approx(total / tokens, rel=1e-5)


def test_batches_depend_on_the_seed_alone_and_see_everything_equally_often():
    def run(seed):
        return [batch.ids.tolist() for batch in shuffle_batches(EXAMPLES, batch_size=2, steps=6, seed=seed, pad=0)]

    torch.manual_seed(5)
    first = run(1)
    torch.manual_seed(6)
    assert run(1) == first
    assert run(2) != first
    seen = [row[1] for batch in first for row in batch]
    assert sorted(seen) == sorted([5, 8, 10] * 4)


def test_schedule_rises_falls_and_can_stay():
    schedule = Schedule(peak=1.0, steps=10, warmup=2, floor=0.1)
    assert schedule.learning_rate(1) == 0.5
    assert schedule.learning_rate(2) == 1.0
    assert schedule.learning_rate(6) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert schedule.learning_rate(10) == pytest.approx(0.1)
    assert {Schedule(peak=0.3, steps=9, floor=1.0).learning_rate(step) for step in range(1, 10)} == {0.3}


def test_training_learns_its_examples(model):
    losses = []
    train(
        model,
        shuffle_batches(EXAMPLES, batch_size=3, steps=40, seed=0, pad=0),
        Schedule(peak=1e-2, steps=40),
        on_step=lambda step, loss: losses.append((step, loss)),
    )
    assert [step for step, _ in losses] == list(range(1, 41))
    assert losses[-1][1] < 0.5 * losses[0][1]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(model):
    with torch.no_grad():
        model.lm_head.weight[3] = math.inf
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    with pytest.raises(GuardError, match="step 1"):
        train(model, shuffle_batches(EXAMPLES, batch_size=3, steps=2, seed=0, pad=0), Schedule(peak=1e-2, steps=2))
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, before)
