"""What is added, ablated or clamped is so at the chosen places and nowhere else, and leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.activations import collect
from probes.behaviour.generate import generate
from probes.errors import ActivationError
from probes.interventions.projections import read_projections
from probes.models import ModelHost
from probes.models.hooks import ablate, add, clamp, clamp_prompts
from probes.models.padding import pad_tokens
from tests.builders import DEPTH, FAMILIES, WIDTH, move_weights, save_checkpoint, tiny_model, tiny_tokenizer

FAMILY_OF = {model_type: family for family, (model_type, _) in FAMILIES.items()}
PROMPTS = [[0, 20, 30, 40, 50], [0, 21, 31], [0, 22, 32, 42]]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def host(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return ModelHost(save_checkpoint(folder, tiny_model(request.param), tiny_tokenizer()), device="cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return ModelHost(save_checkpoint(folder, tiny_model("llama"), tiny_tokenizer()), device="cpu")


@pytest.fixture
def vector():
    return np.random.default_rng(0).standard_normal(WIDTH)


def streams(host, ids):
    """The residual stream behind every block, of all tokens: [layer, row, position, d_model]."""
    outputs = {}
    handles = [
        block.register_forward_hook(
            lambda _, __, out, layer=layer: outputs.update({layer: (out[0] if isinstance(out, tuple) else out).clone()})
        )
        for layer, block in enumerate(host.blocks)
    ]
    try:
        with torch.no_grad():
            host.body(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([outputs[layer] for layer in range(host.n_layers)])


def logits(host, ids):
    with torch.no_grad():
        return host.model(input_ids=ids, use_cache=False).logits


def test_what_is_added_is_there(host, vector):
    ids = torch.tensor(PROMPTS[:1])
    before = streams(host, ids)
    with add(host, [1], vector[None], coefficient=0.5):
        after = streams(host, ids)
    assert torch.equal(before[0], after[0])
    assert torch.allclose(after[1] - before[1], 0.5 * torch.tensor(vector, dtype=torch.float32), atol=1e-4)


def test_nothing_of_an_ablated_direction_is_left_at_any_block(host, vector):
    unit = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)
    ids = torch.tensor(PROMPTS[:1])
    size = streams(host, ids).norm(dim=-1).max()
    with ablate(host, vector):
        assert ((streams(host, ids) @ unit).abs() / size).max() < 1e-5


def test_ablation_at_one_block_is_that_of_the_written_formula(llama, vector):
    """By hand: the block is run on what enters it less its part along the direction, and so on."""
    unit = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)
    ids = torch.tensor(PROMPTS[:1])

    def without(stream):
        return stream - (stream @ unit)[..., None] * unit

    entered = streams(llama, ids)[0]
    block = llama.blocks[1]
    places = torch.arange(ids.shape[1])[None]
    angles = llama.body.rotary_emb(entered, places)
    with torch.no_grad():
        start = without(entered)
        attended = block.self_attn(
            hidden_states=block.input_layernorm(start), position_embeddings=angles, attention_mask=None
        )[0]
        middle = start + without(attended)
        expected = without(middle + without(block.mlp(block.post_attention_layernorm(middle))))
    with ablate(llama, vector, layers=[1]):
        ablated = streams(llama, ids)[1]
    assert torch.allclose(ablated, expected, atol=1e-5)


def test_a_clamped_projection_has_that_value(host, vector):
    unit = torch.tensor(vector / np.linalg.norm(vector), dtype=torch.float32)
    ids = torch.tensor(PROMPTS[:1])
    with clamp(host, [0, 2], np.stack([vector, vector]), np.array([3.0, -1.5])):
        projections = streams(host, ids) @ unit
    assert torch.allclose(projections[0], torch.tensor(3.0), atol=1e-3)
    assert torch.allclose(projections[2], torch.tensor(-1.5), atol=1e-3)


def test_prompts_are_clamped_token_by_token_to_another_checkpoints_projections(host, vector, tmp_path):
    """At every layer in series, in batches of unequal length; what is projected off the direction is not held."""
    layers, unit = list(range(host.n_layers)), vector / np.linalg.norm(vector)
    axes = np.tile(unit, (len(layers), 1))
    family = host.config.model_type
    second_host = ModelHost(
        save_checkpoint(tmp_path, move_weights(tiny_model(FAMILY_OF[family]), scale=0.3), tiny_tokenizer()),
        device="cpu",
    )
    held = read_projections(second_host, PROMPTS, layers, axes[None])[0]
    own = read_projections(host, PROMPTS, layers, axes[None])[0]
    assert np.abs(held[tuple(PROMPTS[0])] - own[tuple(PROMPTS[0])]).max() > 0.01
    plain = collect(host, PROMPTS)[0]
    with clamp_prompts(host, layers, 3 * axes, held):
        projections = collect(host, PROMPTS)[0] @ unit
    with clamp_prompts(host, layers, axes, own):
        same = collect(host, PROMPTS)[0]
    for prompt, ids in enumerate(PROMPTS):
        np.testing.assert_allclose(projections[:, prompt], held[tuple(ids)][:, -1], atol=1e-3)
        np.testing.assert_allclose(own[tuple(ids)][:, -1], plain[:, prompt] @ unit, atol=1e-3)
    np.testing.assert_allclose(same, plain, atol=2e-3)


def test_what_follows_a_clamped_prompt_is_left_as_it_comes(llama, vector):
    """The answer is that of one pass over prompt and answer in which the prompt's tokens alone are clamped."""
    layers, ids = [0, 1, 2], list(PROMPTS[0])
    unit = vector / np.linalg.norm(vector)
    axes = np.tile(unit, (3, 1))
    held = {tuple(ids): 4.0 + np.zeros((3, len(ids)), dtype=np.float32)}
    with clamp_prompts(llama, layers, axes, held):
        answer = generate(llama, [ids], max_new_tokens=4)[0]
    assert answer != generate(llama, [ids], max_new_tokens=4)[0]
    for count, token in enumerate(answer):
        whole = [*ids, *answer[:count]]
        values = np.full((3, len(whole)), np.nan, dtype=np.float32)
        values[:, : len(ids)] = 4.0
        with clamp_prompts(llama, layers, axes, {tuple(whole): values}):
            assert int(logits(llama, torch.tensor([whole]))[0, -1].argmax()) == token


def test_a_prompt_without_values_is_refused_and_leaves_no_hook(llama, vector):
    with (
        pytest.raises(ActivationError, match="no projections"),
        clamp_prompts(llama, [0], vector[None], {(1, 2): np.zeros((1, 2))}),
    ):
        collect(llama, PROMPTS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_are_counted_from_each_prompts_own_end(llama, vector, side):
    longest = max(map(len, PROMPTS))
    if side == "left":
        ids, mask = pad_tokens(PROMPTS, llama.device, side="left")
    else:
        ids = torch.tensor([[*ids_of_prompt, *[0] * (longest - len(ids_of_prompt))] for ids_of_prompt in PROMPTS])
        mask = torch.tensor(
            [[1] * len(ids_of_prompt) + [0] * (longest - len(ids_of_prompt)) for ids_of_prompt in PROMPTS]
        )
    seen = []
    handle = llama.blocks[0].register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    try:
        for intervened in (False, True):
            with torch.no_grad():
                if intervened:
                    handle.remove()
                    with add(llama, [0], vector[None], positions=[-1, -4]):
                        handle = llama.blocks[0].register_forward_hook(lambda _, __, out: seen.append(out.clone()))
                        llama.body(input_ids=ids, attention_mask=mask, use_cache=False)
                else:
                    llama.body(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    changed = (seen[1] - seen[0]).abs().amax(dim=-1) > 1e-3
    ends = [longest - 1] * 3 if side == "left" else [len(ids_of_prompt) - 1 for ids_of_prompt in PROMPTS]
    for row, (end, ids_of) in enumerate(zip(ends, PROMPTS, strict=True)):
        own = {end - back for back in (0, 3) if end - back >= 0}
        if side == "right":
            own = {place for place in own if place < len(ids_of)}
        assert set(changed[row].nonzero().flatten().tolist()) == own


def test_under_generation_prompt_and_answer_can_be_told_apart(llama, vector):
    """Adding to the generated tokens alone leaves the first answer token; adding to all need not."""
    ids = [PROMPTS[0]]
    plain = generate(llama, ids, max_new_tokens=6)[0]
    with add(llama, [1], 40 * vector[None], positions=[], generated=True):
        later = generate(llama, ids, max_new_tokens=6)[0]
    with add(llama, [1], 40 * vector[None], generated=False):
        first = generate(llama, ids, max_new_tokens=6)[0]
    assert later[0] == plain[0]
    assert later != plain
    assert first[0] != plain[0]


def test_generation_with_a_cache_equals_one_without(llama, vector):
    ids = list(PROMPTS[0])
    with add(llama, [0], 3 * vector[None]), ablate(llama, vector[::-1].copy(), layers=[1, 2]):
        cached = generate(llama, [ids], max_new_tokens=4)[0]
        for token in cached:
            assert int(logits(llama, torch.tensor([ids]))[0, -1].argmax()) == token
            ids.append(token)


@pytest.mark.parametrize("kind", ["add", "ablate", "clamp"])
def test_after_an_exception_the_logits_are_the_originals_bit_for_bit(host, vector, kind):
    ids = torch.tensor(PROMPTS[:1])
    before = logits(host, ids)
    rows = np.tile(vector, (host.n_layers, 1))
    opened = {
        "add": lambda: add(host, range(host.n_layers), rows),
        "ablate": lambda: ablate(host, vector),
        "clamp": lambda: clamp(host, range(host.n_layers), rows, np.ones(host.n_layers)),
    }[kind]

    def work():
        with opened():
            assert not torch.equal(logits(host, ids), before)
            raise KeyError("inside")

    with pytest.raises(KeyError):
        work()
    assert torch.equal(logits(host, ids), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in host.model.modules())


def test_reading_activations_sees_the_intervention(llama, vector):
    plain, _ = collect(llama, PROMPTS)
    with add(llama, [1], vector[None]):
        changed, _ = collect(llama, PROMPTS)
    assert np.allclose(changed[1] - plain[1], vector, atol=1e-4)


def test_a_hook_that_cannot_be_set_leaves_none_behind(llama, vector, monkeypatch):
    class Refusing(torch.nn.Module):
        def register_forward_hook(self, *_, **__):
            raise AttributeError("no hooks here")

    blocks = [*llama.blocks[:2], Refusing()]
    monkeypatch.setattr(ModelHost, "blocks", property(lambda _: blocks))
    with pytest.raises(AttributeError), add(llama, list(range(DEPTH)), np.tile(vector, (DEPTH, 1))):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda host, v: add(host, [7], v[None]), "cannot be changed"),
        (lambda host, v: add(host, [0, 0], np.stack([v, v])), "cannot be changed"),
        (lambda host, v: add(host, [0], v[None, :-1]), "do not fit"),
        (lambda host, v: add(host, [0], np.nan * v[None]), "not finite"),
        (lambda host, v: add(host, [0], v[None], positions=[0]), "counted from the prompt's end"),
        (lambda host, v: ablate(host, 0 * v), "points nowhere"),
    ],
)
def test_bad_input_is_refused(llama, vector, attempt, message):
    with pytest.raises(ActivationError, match=message), attempt(llama, vector):
        pass
