"""BaRA: saved and loaded by peft, measured unmerged at the posterior mean, its gates drawn in training and read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from probes.errors import CheckpointError, UsageError
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.weight_space import drift_norms
from tests import processes
from tests.builders import DEPTH, save_checkpoint, tiny_model, tiny_tokenizer

PROMPTS = [[5, 60, 7, 100, 33, 200, 9], [4, 8, 15, 16, 23, 42]]
TOKENS = torch.tensor(PROMPTS[:1])
TARGETS = ["q_proj", "down_proj"]
R = 4


def model_with_gates(seed=0, **changes):
    """A tiny model with a BaRA adapter whose every number is random, as after training."""
    from peft import get_peft_model

    from probes.training.bara import BaraConfig

    config = BaraConfig(**{"r": R, "target_modules": TARGETS, "init_weights": False, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(tiny_model(), config)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    home = tmp_path_factory.mktemp("bara")
    base = save_checkpoint(home / "base", tiny_model(), tiny_tokenizer())
    model_with_gates().save_pretrained(home / "adapter")
    return CheckpointRef(model=base.model, adapter=str(home / "adapter"))


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def test_the_posterior_mean_is_that_of_the_formula():
    model = model_with_gates().eval()
    layer = next(module for name, module in model.named_modules() if name.endswith("0.mlp.down_proj"))
    x = torch.randn(2, 3, layer.in_features)
    numbers = {name: getattr(layer, f"bara_{name}")["default"] for name in ("A", "B", "global", "local", "offset")}
    inner = x @ numbers["A"].T
    scaled = inner / (inner.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    gate = torch.sigmoid(numbers["global"]) * torch.sigmoid(scaled @ numbers["local"].T + numbers["offset"])
    expected = layer.base_layer(x) + 16 / R * (gate * inner) @ numbers["B"].T
    torch.testing.assert_close(layer(x), expected)


def test_it_begins_as_the_base_and_a_gate_depends_on_its_token_alone():
    base = tiny_model()
    torch.testing.assert_close(logits(model_with_gates(init_weights=True).eval()), logits(base))
    model = model_with_gates().eval()
    whole = logits(model)
    assert float((whole - logits(base)).abs().max()) > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS[:, :4]).logits, whole[:, :4])


def test_training_draws_gates_with_gradients_and_evaluation_does_not():
    model = model_with_gates().train()
    assert not torch.equal(logits(model), logits(model))
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.split(".")[-2] for name in trained} == {
        *("bara_A", "bara_B", "bara_global", "bara_local", "bara_offset")
    }
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters() if weight.requires_grad)
    model.eval()
    assert torch.equal(logits(model), logits(model))


def test_draws_average_to_the_probability_at_a_low_temperature():
    from probes.training.bara.gated_linear import _draw_gate

    means = torch.stack([_draw_gate(torch.tensor([-1.5, 0.0, 2.0]), 0.02) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(means, torch.tensor([-1.5, 0.0, 2.0]).sigmoid(), atol=0.03, rtol=0)


def test_the_penalty_is_the_divergence_from_the_prior_once_a_pass():
    from probes.training.bara import kl_penalty

    model = model_with_gates(init_weights=True, prior=0.25, initial=0.9, kl_weight=0.5).train()
    assert float(kl_penalty(model)) == 0
    model(TOKENS)
    gate = torch.distributions.kl_divergence(*(torch.distributions.Bernoulli(p) for p in (0.9, 0.25)))
    penalty = kl_penalty(model)
    assert penalty.item() == pytest.approx(0.5 * 2 * R * float(gate), rel=1e-5)
    penalty.backward()
    assert float(kl_penalty(model)) == 0
    same = model_with_gates(init_weights=True, prior=0.3, initial=0.3).train()
    same(TOKENS)
    assert kl_penalty(same).item() == pytest.approx(0, abs=1e-6)


def test_the_penalty_closes_gates():
    from probes.training.bara import kl_penalty, rank_by_module

    model = model_with_gates(init_weights=True, kl_weight=1.0).train()
    before = rank_by_module(model)
    optimizer = torch.optim.Adam((weight for weight in model.parameters() if weight.requires_grad), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        model(TOKENS)
        kl_penalty(model).backward()
        optimizer.step()
    after = rank_by_module(model)
    assert set(before) == {
        f"model.layers.{at}.{name}" for at in range(DEPTH) for name in ("self_attn.q_proj", "mlp.down_proj")
    }
    assert all(before[name] == pytest.approx(0.9 * R) and after[name] < 0.8 * R for name in before)


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")
def test_gradient_checkpointing_keeps_the_penalty_or_is_refused():
    from probes.training.bara import kl_penalty

    gradients = []
    for reentrant in (None, False, True):
        model, batch = model_with_gates().train(), torch.tensor([[5, 6, 7, 8]])
        model.enable_input_require_grads()
        if reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(3)
        loss = model(input_ids=batch, labels=batch).loss
        if reentrant:
            with pytest.raises(UsageError, match="BaRA's penalty has no gradient"):
                kl_penalty(model)
            break
        (loss + kl_penalty(model)).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if "bara_" in name})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_it_is_saved_loaded_and_measured_as_peft_runs_it(checkpoint):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    wrapper = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint.model), checkpoint.adapter)
    expected = logits(wrapper.eval())
    torch.testing.assert_close(expected, logits(model_with_gates().eval()))
    base = CheckpointRef(model=checkpoint.model)
    host = ModelHost(base, device="cpu")
    host.put(checkpoint)
    torch.testing.assert_close(logits(host.model), expected)
    assert ["(BARA) cannot be merged" in notice for notice in host.notices] == [True]
    with pytest.raises(CheckpointError, match="sham drift cannot be drawn"):
        drift_norms(host, checkpoint)
    host.put(base)
    torch.testing.assert_close(logits(host.model), logits(tiny_model()))


def say_sum_of_logits(checkpoint):
    assert "probes.training.bara" not in sys.modules
    host = ModelHost(CheckpointRef(model=checkpoint.model), device="cpu")
    host.put(checkpoint)
    sys.stdout.write(str(logits(host.model).double().sum().item()))
    sys.stdout.flush()


def test_a_process_that_has_never_heard_of_it_reads_it(checkpoint):
    """Measuring learns of the tuner from the adapter's own description."""
    finished = processes.run(say_sum_of_logits, checkpoint)
    assert finished.returncode == 0, finished.stderr
    assert float(finished.stdout) == pytest.approx(float(logits(model_with_gates().eval()).double().sum()), rel=1e-5)


def test_active_ranks_are_read_at_the_last_token_of_each_prompt():
    from probes.training.bara import active_ranks, rank_by_module

    model = model_with_gates(rank_pattern={"down_proj": 2}).train()
    table = active_ranks(model, PROMPTS, np.array([True, False])).set_index("module")
    assert model.training
    assert list(table["terms"]) == [R if "q_proj" in name else 2 for name in table.index]
    assert table["open"].to_dict() == pytest.approx(rank_by_module(model))
    assert (table[["harmful", "harmless"]].lt(table["open"], axis=0)).all().all()
    np.testing.assert_allclose(table["difference"], table["harmful"] - table["harmless"])
    assert table.loc["model.layers.0.self_attn.q_proj", "harmful"] == pytest.approx(_active_by_hand(model), rel=1e-5)
    assert active_ranks(model, PROMPTS, np.array([True, True]))["harmless"].isna().all()


def _active_by_hand(model):
    """Σ E[z] of the first query matrix at the last token of the first prompt, from the stream that enters it."""
    block = model.base_model.model.model.layers[0]
    layer = block.self_attn.q_proj
    with torch.no_grad():
        x = block.input_layernorm(model.base_model.model.model.embed_tokens(TOKENS))[0, -1]
        inner = layer.bara_A["default"] @ x
        scaled = inner / (inner.pow(2).mean() + 1e-6).sqrt()
        local = (layer.bara_local["default"] @ scaled + layer.bara_offset["default"]).sigmoid()
        return float((layer.bara_global["default"].sigmoid() * local).sum())


def test_what_makes_no_sense_is_refused():
    from probes.training.bara import BaraConfig, active_ranks, rank_by_module

    for changes, words in (({"prior": 1.0}, "prior"), ({"temperature": 0.0}, "temperature"), ({"r": 0}, "`r`")):
        with pytest.raises(ValueError, match=words):
            BaraConfig(**changes)
    with pytest.raises(UsageError, match="no BaRA adapter"):
        rank_by_module(tiny_model())
    with pytest.raises(UsageError, match="No prompt"):
        active_ranks(model_with_gates(), [], np.array([], dtype=bool))
    with pytest.raises(TypeError, match="embed_tokens is a Embedding"):
        model_with_gates(target_modules=["embed_tokens"])
