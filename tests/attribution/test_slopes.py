"""Slopes by one backward pass are those of forward mode, whatever holds the weights; else forward mode is taken."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from probes.attribution.replay import Replay
from probes.attribution.slopes import slopes_along
from probes.guard.recorded_path import RecordedExample
from tests.attribution.worlds import examples
from tests.builders import tiny_model

PLACES = list(range(2, 12))


def replay_on(model, trained=None):
    names = [name for name, _ in model.named_parameters() if trained is None or trained(name)]
    return Replay(model, [RecordedExample(row.ids, row.labels) for row in examples()], names)


def directions_of(replay, count):
    """Random ones, of some weights; of the embedding's rows only a few, of which one is read."""
    draw, directions = torch.Generator().manual_seed(3), []
    for _ in range(count):
        direction = {name: torch.randn(weight.shape, generator=draw) for name, weight in replay.present.items()}
        for name, move in direction.items():
            if "embed" in name or "wte" in name:
                move[:40] = 0
        directions.append(direction)
    left_out = list(directions[0])[-1]
    return [{name: move for name, move in direction.items() if name != left_out} for direction in directions]


def check(replay, way, count=2):
    directions = directions_of(replay, count)
    slopes_of = slopes_along(replay, directions, PLACES)
    losses, slopes = slopes_of(PLACES)
    expected_losses, expected = replay.losses_along(PLACES, directions)
    assert slopes_of.__name__ == way
    assert torch.allclose(losses, expected_losses, rtol=1e-5)
    assert torch.allclose(slopes, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {}),
        ("neox", {}),
        ("gemma2", {}),
        ("mixtral", {}),
    ],
)
def test_slopes_of_every_weight(family, changes, count):
    check(replay_on(tiny_model(family, **changes)), "backwards", count)


@pytest.mark.parametrize("more", [{}, {"use_dora": True}])
def test_slopes_of_an_adapter(more):
    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **more))
    check(replay_on(model.get_base_model().eval(), lambda name: "lora_" in name), "backwards")


def test_slopes_of_the_upper_blocks_alone():
    check(replay_on(tiny_model(), lambda name: "layers.0." not in name and "embed" not in name), "backwards")


@pytest.fixture
def crossed(monkeypatch):
    """A model whose last norm also uses the weight of another."""
    model = tiny_model()
    norm, lowest = model.model.norm, model.model.layers[0].input_layernorm
    plain = norm.forward
    monkeypatch.setattr(norm, "forward", lambda stream: plain(stream) * lowest.weight)
    return replay_on(model)


def test_a_weight_that_another_module_uses_is_found_out(crossed):
    check(crossed, "forwards")


def test_it_is_not_tried_on_examples_of_which_no_token_counts(crossed):
    for place in PLACES[:3]:
        ids = crossed.examples[place].ids
        crossed.examples[place] = RecordedExample(ids, (-100,) * len(ids))
    check(crossed, "forwards")
