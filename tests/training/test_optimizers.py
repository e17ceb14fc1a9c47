"""Optimisers by name through one seam, and what the guard's gradient makes of their steps."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from probes.errors import UsageError
from probes.guard import Guard, Projection
from probes.guard.loop import Schedule, Stepping, answer_loss, shuffle_batches, train
from probes.guard.step_log import StepLog, Strength, read_step_log
from probes.training.optimizers import check_optimizer, optimizer, optimizer_names
from probes.training.preconditioning import effective_strength, reason_against
from tests.attribution.worlds import direction, examples, probe
from tests.builders import tiny_model

ROWS = examples()


def batches(steps: int) -> Any:
    return shuffle_batches(ROWS, batch_size=6, steps=steps, seed=1, pad=0)


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"block.weight": (4, 3), "norm.weight": (3,), "embed.weight": (5, 3)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def test_the_plain_loops_default_is_torchs_fused_adam_bit_for_bit() -> None:
    ours, by_hand = tiny_model().train(), tiny_model().train()
    train(ours, batches(3), Schedule(1e-3, 3))
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-3, fused=True)
    for step, batch in enumerate(batches(3), start=1):
        adam.param_groups[0]["lr"] = Schedule(1e-3, 3).learning_rate(step)
        adam.zero_grad(set_to_none=True)
        answer_loss(by_hand, batch).backward()
        adam.step()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ours.parameters(), by_hand.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "kind", "settings"),
    [
        ("adamw_torch_fused", {}, torch.optim.AdamW, {"fused": True, "lr": 1e-3}),
        ("sgd", {"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
        ("NAdam", {"betas": [0.8, 0.99]}, torch.optim.NAdam, {"betas": (0.8, 0.99)}),
        ("Adagrad", {}, torch.optim.Adagrad, {"lr": 1e-3}),
        ("adafactor", {}, None, {"relative_step": False, "lr": 1e-3}),
    ],
)
def test_an_optimiser_by_its_name(name: str, options: dict[str, Any], kind: Any, settings: dict[str, Any]) -> None:
    own = optimizer(parameters(), name, 1e-3, **options)
    assert kind is None or type(own) is kind
    assert {key: own.param_groups[0][key] for key in settings} == settings
    assert name in optimizer_names()


def test_matrices_alone_decay() -> None:
    own = optimizer(parameters(), "AdamW", 1e-3, 0.1)
    assert [(group["weight_decay"], len(group["params"])) for group in own.param_groups] == [(0.1, 2), (0.0, 1)]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("AdamV", {}, "did you mean 'Adam"),
        ("AdamW", {"beta": 1}, "AdamW has no option 'beta'; did you mean 'betas'"),
        ("AdamW", {"lr": 1}, "no option 'lr'"),
        ("LBFGS", {}, "asks for the loss several times"),
        ("SparseAdam", {}, "sparse gradients"),
        ("lomo", {}, "within the backward pass"),
        ("galore_adamw_layerwise", {}, "within the backward pass"),
        ("AdamW", {"eps": -1.0}, "cannot be made"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_optimizer(name, options)


def test_an_optimiser_of_the_extra_names_it_where_it_is_absent() -> None:
    if "soap" in optimizer_names():
        check_optimizer("soap", {})
        check_optimizer("muon", {"momentum": 0.9})
        with pytest.raises(UsageError, match="other weights while it trains"):
            check_optimizer("schedulefreeadamw", {})
    else:
        with pytest.raises(UsageError, match=r"gravity-probe\[optimizers\]"):
            check_optimizer("soap", {})


@pytest.mark.parametrize("name", ["muon", "adamuon", "adago", "normuon", "muonclip"])
def test_muons_family_decays_matrices_and_tables_and_no_vector(name: str) -> None:
    if name not in optimizer_names():
        pytest.skip("pytorch_optimizer is not installed")
    weights = parameters()
    before = {place: weight.detach().clone() for place, weight in weights.items()}
    own = optimizer(weights, name, 1e-2, 0.5)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    own.step()
    assert torch.equal(weights["norm.weight"], before["norm.weight"])
    for place in ("block.weight", "embed.weight"):
        assert torch.linalg.norm(weights[place]) < torch.linalg.norm(before[place]), place
    assert [group["use_muon"] for group in own.param_groups] == [True, False, False]
    defaults = inspect.signature(type(own).__init__).parameters
    if "adamw_lr" in defaults:  # what AdamW steps keeps its distance from the rate that is asked for
        ratio = defaults["adamw_lr"].default / defaults["lr"].default
        assert [group["lr"] for group in own.param_groups] == pytest.approx([1e-2, 1e-2 * ratio, 1e-2 * ratio])
        slower = optimizer(parameters(), name, 1e-2, 0.5, adamw_lr=3e-3)
        assert [group["lr"] for group in slower.param_groups] == [1e-2, 3e-3, 3e-3]
    with pytest.raises(UsageError, match="no option 'adamw_wd'"):
        check_optimizer(name, {"adamw_wd": 0.1})


def test_another_optimiser_steps_the_plain_loop() -> None:
    model, before = tiny_model().train(), [weight.clone() for weight in tiny_model().parameters()]
    peak, rates = 0.5, []
    own = Stepping("SGD", {"momentum": 0.5}, weight_decay=0.0)
    train(model, batches(2), Schedule(peak, 2, floor=1.0), stepping=own, on_step=lambda step, _: rates.append(step))
    assert rates == [1, 2]
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def _state_after(own: Any, weight: nn.Parameter) -> torch.Tensor:
    """d = 1 / (√v̂ + ε), from the state that the step has left."""
    group, state = own.param_groups[0], own.state[weight]
    if isinstance(own, torch.optim.SGD):
        return torch.ones_like(weight)
    if isinstance(own, torch.optim.RMSprop):
        return 1 / (state["square_avg"].sqrt() + group["eps"])
    if isinstance(own, torch.optim.Adagrad):
        return 1 / (state["sum"].sqrt() + group["eps"])
    corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** int(state["step"]))
    return 1 / (corrected.sqrt() + group["eps"])


@pytest.mark.parametrize("name", ["Adam", "AdamW", "NAdam", "RMSprop", "Adagrad", "SGD"])
def test_the_strength_is_that_of_the_very_step(name: str) -> None:
    weights = parameters()
    own = optimizer(weights, name, 1e-2)
    for step in range(3):
        drawn = [parameters(10 * step + part) for part in (1, 2)]
        task, added = ([rows[key].detach() * (step + 1) for key in weights] for rows in drawn)
        for weight, one_part, more in zip(weights.values(), task, added, strict=True):
            weight.grad = one_part + more
        strength = effective_strength(own, list(weights.values()), added)
        own.step()
        scales = [_state_after(own, weight) for weight in weights.values()]
        lengths = [
            torch.cat([(d * part).flatten() for d, part in zip(scales, parts, strict=True)]).norm()
            for parts in (added, task)
        ]
        assert strength == pytest.approx((lengths[0] / lengths[1]).item(), rel=1e-4)


def test_where_no_second_moment_is_kept_there_is_no_strength() -> None:
    weights = parameters()
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    amsgrad, rprop = optimizer(weights, "Adam", 1e-3, amsgrad=True), optimizer(weights, "Rprop", 1e-3)
    for own in (amsgrad, rprop):
        assert effective_strength(own, list(weights.values()), [None] * 3) is None
    assert "amsgrad" in (reason_against(amsgrad) or "")
    assert "Rprop does not scale" in (reason_against(rprop) or "")


def test_one_ratio_of_gradients_is_another_ratio_in_adams_step(tmp_path: Any) -> None:
    strengths = {}
    for name in ("SGD", "Adam", "Rprop"):
        model = tiny_model().train()
        effect = Projection(direction(), "push", strength=5.0)
        guard = Guard(effect, probe().token_ids, batch_size=4, gradient_ratio=0.5)
        guard.attach(model)
        log = StepLog(_folder(tmp_path / name), guard)
        train(model, batches(3), Schedule(1e-4, 3), stepping=Stepping(name), guard=guard, log=log)
        strengths[name] = Strength.of(read_step_log(tmp_path / name))
    assert strengths["SGD"].low == pytest.approx(0.5, rel=1e-3)
    assert strengths["SGD"].high == pytest.approx(0.5, rel=1e-3)
    assert strengths["Adam"].low is not None
    assert strengths["Adam"].high != pytest.approx(0.5, rel=1e-2)
    assert strengths["Rprop"].defined == 0
    assert "not defined (Rprop" in strengths["Rprop"].sentence
    assert "over 3 of 3 steps" in strengths["SGD"].sentence


def test_a_log_forgets_what_lies_beyond_the_step_that_training_goes_on_from(tmp_path: Any) -> None:
    guard = Guard(Projection(direction(), "push"), probe().token_ids)
    guard.strength = 0.25
    log = StepLog(_folder(tmp_path / "log"), guard)
    for step in (1, 2, 3):
        log.note(step)
    (tmp_path / "log" / "guard.jsonl").open("a").write('{"step": 4, "gra')
    StepLog(tmp_path / "log", guard, resumed_at=2).note(3)
    assert [line["step"] for line in read_step_log(tmp_path / "log")] == [1, 2, 3]
    assert Strength.of(read_step_log(tmp_path / "log")).median == 0.25


def _folder(path: Any) -> Any:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("name", ["AdamW", "adamw_torch", "Muon"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_weight_decay_is_the_one_that_was_asked_for(name: str, decay: float) -> None:
    own = optimizer({"a.weight": torch.nn.Parameter(torch.ones(2, 2))}, name, 1e-3, decay)
    assert [group["weight_decay"] for group in own.param_groups] == [decay]
