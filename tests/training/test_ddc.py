"""DDC: a twin of the network, moved along its symmetries, takes the same steps; AdamW's twin does not."""

from __future__ import annotations

import copy

import pytest
import torch

from probes.errors import CheckpointError, UsageError
from probes.training.ddc import DDC
from tests.builders import tiny_model
from tests.gauge_twin import KINDS, move_along

TOKENS = torch.tensor([[5, 60, 7, 100, 33, 200, 9, 12], [4, 8, 15, 16, 23, 42, 77, 3]])
STEPS = 3
LR = 3e-3
FAMILIES = {"llama": {}, "qwen2": {}, "biases": {"attention_bias": True, "mlp_bias": True}, "tied": {}}


def network(name="llama", dtype=torch.float64):
    family = name if name == "qwen2" else "llama"
    return tiny_model(family, tie_word_embeddings=name == "tied", num_hidden_layers=2, **FAMILIES[name]).to(dtype)


def probabilities(model):
    with torch.no_grad():
        return torch.log_softmax(model(TOKENS).logits, dim=-1)


def loss_of(model):
    """The next tokens' cross-entropy, in the model's own precision (transformers' loss is in float32)."""
    return torch.nn.functional.cross_entropy(model(TOKENS).logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())


def train(model, optimizer, steps=STEPS):
    """The model's log-probabilities after every step."""
    outputs = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        outputs.append(probabilities(model))
    return torch.stack(outputs)


def gap(model, twin, make):
    """The largest difference of a log-probability between a network and its twin on the way, and the way's length."""
    start = probabilities(model)
    ways = [train(network, make(network)) for network in (copy.deepcopy(model), copy.deepcopy(twin))]
    return float((ways[0] - ways[1]).abs().max()), float((ways[0] - start).abs().max())


def twin_of(model, size=0.5):
    twin = model
    for kind in KINDS:
        if kind != "shift" or not model.config.tie_word_embeddings:
            twin = move_along(twin, kind, size, rotations=True, seed=KINDS.index(kind))
    return twin


def ddc(model):
    return DDC.of(model, lr=LR, weight_decay=0.1)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_twin_takes_the_same_steps_in_function_space_and_adamw_takes_others(name):
    model = network(name)
    twin = twin_of(model)
    assert float((probabilities(model) - probabilities(twin)).abs().max()) < 1e-10
    parted, length = gap(model, twin, ddc)
    assert parted < 1e-11 < 1e-2 < length
    assert gap(model, twin, adamw)[0] > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_each_gauge_alone_is_conditioned(kind):
    model = network()
    twin = move_along(model, kind, 0.5, rotations=True)
    assert gap(model, twin, ddc)[0] < 1e-11
    assert (gap(model, twin, adamw)[0] > 1e-4) == (kind != "shift")  # a shift alone leaves Adam's gradient as it is


def test_in_float32_twins_stay_within_the_promised_band():
    model = network(dtype=torch.float32)
    twin = twin_of(model, size=0.1)
    assert gap(model, twin, ddc)[0] < 1e-5
    assert gap(model, twin, adamw)[0] > 1e-2


def test_a_head_s_other_matrices_are_not_conditioned_as_the_docstring_says():
    model = network()
    twin = move_along(model, "head", 0.3)
    assert float((probabilities(model) - probabilities(twin)).abs().max()) < 1e-10
    assert gap(model, twin, ddc)[0] > 1e-6


def test_without_gauges_it_is_adamw():
    model, same = network(), network()
    weights = dict(model.named_parameters())
    ours = DDC(weights.values(), weights=weights, gauges=[], lr=LR, weight_decay=0.1)
    assert float((train(model, ours) - train(same, adamw(same))).abs().max()) < 1e-12


def test_a_frozen_norm_still_counts_in_the_frames_and_a_closure_is_called():
    model = network()
    twin = twin_of(model)
    for network_of in (model, twin):
        for name, weight in network_of.named_parameters():
            weight.requires_grad_("norm" not in name and "k_proj" not in name)
    assert gap(model, twin, ddc)[0] < 1e-11
    assert DDC.of(model, lr=LR).step(lambda: 2.0) == 2.0


def test_it_resumes_from_its_state_with_the_same_steps():
    model = network()
    straight = copy.deepcopy(model)
    whole = train(straight, ddc(straight), 4)
    first = ddc(model)
    train(model, first, 2)
    second = ddc(model)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(train(model, second, 2), whole[2:])


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("gemma2", {}, "architecture gemma2"),
        ("gpt2", {}, "architecture gpt2"),
        ("llama", {"hidden_act": "relu"}, "a gate of relu"),
    ],
)
def test_other_architectures_are_refused_by_name(family, change, words):
    with pytest.raises(CheckpointError, match=words):
        DDC.of(tiny_model(family, **change))


def test_an_adapter_a_zero_gain_and_a_strange_parameter_are_refused():
    from peft import LoraConfig, get_peft_model

    model = network()
    with pytest.raises(UsageError, match="not of its model"):
        DDC.of(model, [torch.nn.Parameter(torch.zeros(2))])
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = 0
    with pytest.raises(CheckpointError, match=r"zeros at a gain of layers\.1\.attention"):
        DDC.of(model)
    with pytest.raises(CheckpointError, match="an adapter"):
        DDC.of(get_peft_model(network(), LoraConfig(target_modules=["q_proj"])))
