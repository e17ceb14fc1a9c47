"""The penalty against the written formula, on a real small Llama."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from probes.directions.controls import random_vectors
from probes.directions.vectors import Vectors
from probes.guard import FORMS, Guard, GuardedDirection, GuardError, Projection, Reader
from probes.guard.modes import Steering, Subspace, Together
from probes.guard.penalties.defences import Rehearsal
from probes.models.hooks import residuals

PROMPTS = ((3, 4, 5), (6, 7, 8, 9, 10), (11, 12), (13, 14, 15, 16))
LAYERS = (0, 2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((3, 16))


def move_weights(model):
    """The same model, a little further on."""
    with torch.no_grad():
        for place, weight in enumerate(model.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(place))
    return model


def by_hand(model, aligned, vectors, layer):
    """proj of every prompt at one layer, one prompt at a time, from transformers' own hidden states."""
    values = []
    for ids in PROMPTS:
        tokens = torch.tensor([ids])
        with torch.no_grad():
            reference = aligned.model(tokens, output_hidden_states=True).hidden_states[layer + 1][0, -1]
        now = model.model(tokens, output_hidden_states=True).hidden_states[layer + 1][0, -1]
        vector = torch.tensor(vectors[layer], dtype=torch.float32)
        values.append((now - reference) @ vector / (vector @ vector))
    return torch.stack(values)


class Held:
    """An effect with its reader, prepared on the model as it is."""

    def __init__(self, model, effect):
        self.effect, self.reader = effect, Reader(model, PROMPTS)
        effect.prepare(self.reader)

    def __call__(self, chosen):
        return self.effect.loss(self.reader, chosen)

    def projections(self, chosen):
        return self.effect.projections(self.reader, chosen)


def guarded_direction(vectors, layers):
    """Raw vectors of all layers, guarded at some."""
    return GuardedDirection.from_vectors(Vectors.of_raw("reversion", tuple(range(len(vectors))), vectors), layers)


def penalty_of(model, vectors, layers=(0, 1), **options):
    return Held(model, Projection(guarded_direction(vectors, layers), **options))


@pytest.mark.parametrize(
    ("form", "formula"),
    [
        ("hinge", lambda proj: torch.relu(proj).pow(2).mean()),
        ("hinge_of_mean", lambda proj: torch.relu(proj.mean(1)).pow(2).mean()),
        ("signed", lambda proj: proj.mean()),
        ("squared", lambda proj: proj.pow(2).mean()),
        ("push", lambda proj: -torch.minimum(proj, torch.tensor(2.0)).mean()),
    ],
)
def test_value_and_gradient_are_those_of_the_formula(model, vectors, form, formula):
    aligned = copy.deepcopy(model)
    penalty = penalty_of(model, vectors, form=form, strength=7.0)
    move_weights(model)
    value = penalty(torch.arange(len(PROMPTS)))
    value.backward()
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    expected = 7.0 * formula(torch.stack([by_hand(model, aligned, vectors, layer) for layer in (0, 1)]))
    weights = {name: weight for name, weight in model.named_parameters()}
    theirs = torch.autograd.grad(expected, list(weights.values()), allow_unused=True)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    for (name, _), gradient in zip(weights.items(), theirs, strict=True):
        if gradient is None:
            assert ours[name] is None or not ours[name].any()
        else:
            torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("answers", [None, ((20,), (), (21, 22))])
def test_what_all_prompts_begin_with_is_read_once_with_its_gradient(model, answers):
    prompts = [(3, 4, 5, 6, 7, *more) for more in ((8, 9), (10,), (11, 12, 13))]
    reader, alone = Reader(model, prompts, answers), []
    lengths: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, args: lengths.append(args[0].numel()))
    stream = reader.stream(torch.arange(3), (0, 1), 2)
    assert lengths[-2:] == [5, 9 if answers is None else 15]
    for ids, answer in zip(prompts, answers or [()] * 3, strict=True):
        states = model.model(torch.tensor([[*ids, *answer]]), output_hidden_states=True).hidden_states
        alone.append(torch.stack([states[layer + 1][0, len(ids) - 1 :] for layer in (0, 1)]))
    expected = torch.cat(alone, dim=1)
    torch.testing.assert_close(stream, expected, rtol=1e-4, atol=1e-5)
    weights = [weight for name, weight in model.named_parameters() if "layers.0" in name]
    pairs = zip(*(torch.autograd.grad(rows.square().sum(), weights) for rows in (stream, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_without_earlier_tokens_their_keys_and_values_count_as_fixed(model, vectors):
    """The same value; the gradient is that of the last token's own pass, the cache before it held fast."""
    aligned = copy.deepcopy(model)
    whole, ends = (penalty_of(model, vectors, form="signed", earlier=earlier) for earlier in (True, False))
    move_weights(model)
    chosen = torch.arange(len(PROMPTS))
    assert ends(chosen).item() == pytest.approx(whole(chosen).item(), rel=1e-4, abs=1e-6)
    model.zero_grad()
    ends(chosen).backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    projections = []
    for ids in PROMPTS:
        with torch.no_grad():
            before = model.base_model(input_ids=torch.tensor([ids[:-1]]), use_cache=True).past_key_values
            still = [_stream(aligned, ids, layer) for layer in (0, 1)]
        outputs = {}
        handles = [
            model.model.layers[layer].register_forward_hook(
                lambda _, __, out, layer=layer, outputs=outputs: outputs.update(
                    {layer: out if isinstance(out, torch.Tensor) else out[0]}
                )
            )
            for layer in (0, 1)
        ]
        model.base_model(input_ids=torch.tensor([ids[-1:]]), past_key_values=before, use_cache=True)
        for handle in handles:
            handle.remove()
        wide = torch.tensor(vectors, dtype=torch.float32)
        projections += [
            (outputs[layer][0, -1] - still[layer]) @ wide[layer] / (wide[layer] @ wide[layer]) for layer in (0, 1)
        ]
    (10.0 * torch.stack(projections).mean()).backward()
    for name, weight in model.named_parameters():
        if weight.grad is None or not weight.grad.any():
            assert name not in ours or not ours[name].any()
        else:
            torch.testing.assert_close(ours[name], weight.grad, rtol=1e-3, atol=1e-5)
    model.zero_grad()
    whole(chosen).backward()
    key = model.model.layers[0].self_attn.k_proj.weight.grad
    assert not torch.allclose(key, ours["model.layers.0.self_attn.k_proj.weight"], rtol=1e-2)


def _stream(model, ids, layer):
    outputs = []
    handle = model.model.layers[layer].register_forward_hook(
        lambda _, __, out: outputs.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    model.base_model(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    return outputs[0][0, -1]


def test_some_prompts_alone_give_their_own_projections(model, vectors):
    penalty = penalty_of(model, vectors)
    move_weights(model)
    every = penalty.projections(torch.arange(4))
    torch.testing.assert_close(penalty.projections(torch.tensor([2, 0])), every[:, [2, 0]], rtol=1e-4, atol=1e-5)


def test_hinge_and_its_gradient_vanish_where_nothing_moves_forward(model, vectors):
    for projections in (torch.zeros(2, 3), -torch.rand(2, 3)):
        projections.requires_grad_(True)
        for form in ("hinge", "hinge_of_mean"):
            value = FORMS[form](projections)
            (gradient,) = torch.autograd.grad(value, projections)
            assert value.item() == 0.0
            assert not gradient.any()


def test_hinge_holds_each_prompt_where_the_mean_would_hide_it():
    projections = torch.tensor([[1.0, -1.0]])
    assert FORMS["hinge"](projections).item() == pytest.approx(0.5)
    assert FORMS["hinge_of_mean"](projections).item() == 0.0


def test_push_lets_go_beyond_its_cap():
    projections = torch.tensor([[2.5, 0.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(FORMS["push"](projections), projections)
    assert gradient.tolist() == [[0.0, -0.5]]


def test_a_penalty_without_its_reference_is_refused(model, vectors):
    penalty = Projection(guarded_direction(vectors, [1]))
    with pytest.raises(GuardError, match="attach"):
        penalty.loss(Reader(model, PROMPTS), torch.tensor([0]))
    with pytest.raises(GuardError, match="attach"):
        Guard(penalty, PROMPTS).step(model)


@pytest.mark.parametrize(
    "build",
    [
        lambda m, _: Reader(m, []),
        lambda m, _: Reader(m, [()]),
        lambda _, v: Projection(guarded_direction(v, [1]), "hinges"),
        lambda _, v: Guard(Projection(guarded_direction(v, [1])), PROMPTS, batch_size=0),
        lambda _, v: Guard(Projection(guarded_direction(v, [1])), PROMPTS, gradient_ratio=0.0),
        lambda _, v: guarded_direction(v, [3]),
        lambda _, v: guarded_direction(v, []),
        lambda _, v: guarded_direction(0 * v, [1]),
        lambda _, v: GuardedDirection.from_vectors(
            Vectors("x", (0, 1, 2), v.astype(np.float32), np.full(3, np.nan, np.float32)), [1]
        ),
    ],
)
def test_bad_input_is_refused(model, vectors, build):
    with pytest.raises(GuardError):
        build(model, vectors)


def test_random_control_keeps_layers_and_length_but_not_the_direction(vectors):
    direction = guarded_direction(vectors, LAYERS)
    control = direction.turned_along(random_vectors(LAYERS, 3, 16, seed=1))
    assert control.layers == direction.layers
    assert torch.equal(control.norm, direction.norm)
    torch.testing.assert_close(control.unit.norm(dim=1), torch.ones(2))
    assert (control.unit * direction.unit).sum(dim=1).abs().max() < 0.9
    assert torch.equal(control.unit, direction.turned_along(random_vectors((0, 1, 2), 3, 16, seed=1)).unit)
    assert not torch.equal(control.unit, direction.turned_along(random_vectors(LAYERS, 3, 16, seed=2)).unit)


def test_a_direction_is_known_by_its_bytes_and_an_interrupted_training_keeps_it(model, vectors):
    def guards(layers=LAYERS, along=vectors, rank=2):
        direction = guarded_direction(along, layers)
        returns = torch.as_tensor(np.stack([along[[layer]] for layer in layers]))
        effects = (Projection(direction), Steering(direction), Subspace(direction, returns, rank=rank))
        return [Guard(effect, PROMPTS) for effect in (*effects, Together(*effects[::2]), Rehearsal())]

    digests = [own.direction_sha256 for own in guards()]
    assert digests == [own.direction_sha256 for own in guards()]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    assert digests[4] is None  # it has no direction
    turned = vectors + np.float32(1e-3)
    for changed in (guards(layers=(0, 1)), guards(along=turned)):
        assert all(own.direction_sha256 != digest for own, digest in zip(changed[:4], digests, strict=False))

    begun = guards()[0]
    begun.attach(model)
    state = begun.state()
    again = guards()[0]
    again.attach(model, saved_state=state)
    assert again.direction_sha256 == digests[0]
    with pytest.raises(GuardError, match="guarded along another direction"):
        guards(along=turned)[0].attach(model, saved_state=state)
    del state["direction"]  # as an earlier version has left it
    again.attach(model, saved_state=state)
    assert again.direction_sha256 is None
    assert "direction" not in again.state()


def test_no_hook_and_no_trace_is_left_after_an_exception(model):
    tokens = torch.tensor([PROMPTS[0]])
    before = model(tokens).logits
    with pytest.raises(IndexError), residuals(list(model.model.layers), LAYERS):
        model(torch.tensor([[99]]))  # beyond the vocabulary
    assert all(not block._forward_hooks for block in model.model.layers)
    assert torch.equal(model(tokens).logits, before)


def test_a_hook_that_cannot_be_set_leaves_none_behind(model):
    with pytest.raises(IndexError), residuals(list(model.model.layers), (0, 9)):
        pass
    assert all(not block._forward_hooks for block in model.model.layers)
