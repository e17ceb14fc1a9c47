"""What a guard costs: a training step with it ÷ one without, in one run, at batch 32 of the penalty prompts' length.

Run by hand: pytest tests/benchmarks/test_guard.py --benchmark-enable -s -n 0, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch

from probes.guard import Batch, Guard, GuardedDirection, Projection, answer_loss
from probes.guard.callback import ReversionGuard
from probes.guard.loop import Example
from probes.guard.model_in_training import LiveModel
from probes.guard.record import Record
from probes.lineage import Lineage, Witness
from tests.benchmarks.test_extraction import SMALL
from tests.builders import move_weights, save_checkpoint, tiny_tokenizer
from tests.guard.lineages import prompts
from tests.synthetic import STEPS

ROWS, PENALTY, LENGTH, ROUNDS = 32, 16, 32, 5
# The unembedding's share of a step decides what a guard, which has none, costs beside it.
SHAPES = {
    "small vocabulary (512)": {**SMALL, "vocab_size": 512},
    "large vocabulary (50,000)": SMALL,
}


def model_of(shape):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape)).train()


def rows_of(count, vocabulary, seed):
    return np.random.default_rng(seed).integers(3, vocabulary, (count, LENGTH)).tolist()


@pytest.mark.parametrize("earlier", [True, False], ids=["default", "spared"])
@pytest.mark.parametrize("name", SHAPES)
def test_block_at_every_step(name, earlier, report):
    """Paired steps, one with the guard and one without, in turn; the median of their ratios."""
    shape = SHAPES[name]
    model = model_of(shape)
    vectors = np.random.default_rng(1).standard_normal((6, 384))
    guard = Guard(
        Projection(GuardedDirection.from_vectors(vectors, range(1, 6)), earlier=earlier),
        rows_of(PENALTY, shape["vocab_size"], 2),
        rows=PENALTY,
    )
    guard.attach(model)
    move_weights(model, scale=0.01)  # so that there is something to hold back
    batch = Batch.of([Example(tuple(ids), LENGTH // 2) for ids in rows_of(ROWS, shape["vocab_size"], 3)], 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(guarded):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        answer_loss(model, batch).backward()
        if guarded:
            guard.step(model)
        optimizer.step()
        return time.perf_counter() - started

    step(False), step(True)
    ratios = [step(True) / step(False) for _ in range(ROUNDS)]
    how = "" if earlier else ", gradient spared earlier tokens"
    report(f"step with block ÷ step without, {name}{how}", f"{statistics.median(ratios):.2f}", "≤ 1.25")


def test_watch_over_a_whole_training(report, tmp_path):
    """A measurement costs so many steps; the default plan (1, 2, 5, 10, 20 …) over 1,000 steps averages it."""
    tokenizer = tiny_tokenizer()
    model = model_of(SMALL)
    aligned = save_checkpoint(tmp_path / "aligned", model.eval(), tokenizer)
    witness = save_checkpoint(tmp_path / "witness", move_weights(model_of(SMALL), scale=0.1), tokenizer)
    lineage = Lineage(name="bench", aligned=aligned, witness=Witness(model=witness.model))
    guard = ReversionGuard(lineage, probe=prompts(0, 64), out=tmp_path / "run")
    batch = Batch.of([Example(tuple(ids), LENGTH // 2) for ids in rows_of(ROWS, 272, 3)], 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step():
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        answer_loss(model.train(), batch).backward()
        optimizer.step()
        return time.perf_counter() - started

    record = Record(guard._run, tmp_path / "out", tokenizer, arm="watch")
    live = LiveModel(model, tokenizer)
    record.measure(live, 0)
    measured = []
    for number in (1, 2, 5):
        started = time.perf_counter()
        record.measure(live, number)
        measured.append(time.perf_counter() - started)
    step()
    once = statistics.median(measured) / statistics.median(step() for _ in range(ROUNDS))
    times = len([number for number in (*STEPS, 200, 500, 1000)]) + 1
    report("one measurement of the watch (128 prompts) ÷ a training step", f"{once:.1f}", "")
    report("watch, averaged over 1,000 steps", f"{times * once / 1000:.1%}", "≤ 5 %")
