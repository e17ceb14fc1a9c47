"""How much slower than the bare model we are, and how much faster than the usual ways. Ratios within one run.

Run with `pytest tests/benchmarks --benchmark-enable`; a table for the README is printed at the end. No time is
asserted: a busy machine must not fail a test.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.activations import automatic_batch_tokens, batches, extract
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.prefix import body_inputs
from tests.builders import move_weights, save_checkpoint, tiny_tokenizer

REPO = Path(__file__).parents[2]
ROUNDS = 7
VOCABULARY = 50_000
TEMPLATE_TOKENS, TOKENS_PER_WORD = 10, 1.3
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "tie_word_embeddings": True,
}
LIKE_LLAMA_3_2_3B = {
    "vocab_size": 128_256,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
Report = Callable[[str, str, str], None]
PEAK = """
import sys
import numpy as np
from pathlib import Path
from probes.activations import extract
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.prefix import body_inputs
from probes.store import ActivationWriter
from tests.benchmarks.test_extraction import chat_prompts
from tests.memory import peak_memory

folder, out, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
host = ModelHost(CheckpointRef(model=folder), device="cpu")
before = peak_memory()
prompts = (chat_prompts(64) * (count // 64))[:count]
writer = ActivationWriter(out / f"{count}.safetensors", (host.n_layers, count, host.d_model), dtype="float16", about={})
extract(host, prompts, writer.write)
writer.close()
print(before / 2**20, peak_memory() / 2**20)
"""


def chat_prompts(count: int, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Token ids of as many chat prompts of 8 to 40 words, in no order of length."""
    rng = np.random.default_rng(0)
    words = rng.integers(8, 41, size=count)
    return [rng.integers(3, vocabulary, size=TEMPLATE_TOKENS + round(TOKENS_PER_WORD * n)).tolist() for n in words]


def random_llama(seed: int = 0, **config: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**config))


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> tuple[CheckpointRef, CheckpointRef]:
    place = tmp_path_factory.mktemp("llama")
    model = random_llama(**SMALL)
    start = save_checkpoint(place / "aligned", model, tiny_tokenizer())
    return start, save_checkpoint(place / "tuned", move_weights(model))


@pytest.fixture(scope="module")
def host(lineage: tuple[CheckpointRef, CheckpointRef]) -> ModelHost:
    return ModelHost(lineage[0], device="cpu")


def time_ratio(benchmark: Any, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Our shortest time over theirs; the two take turns, so that both meet the same machine."""
    their_times: list[float] = []
    timer = benchmark._timer

    def their_turn() -> None:
        start = timer()
        theirs()
        their_times.append(timer() - start)

    benchmark.pedantic(ours, setup=their_turn, rounds=rounds, warmup_rounds=1)
    return benchmark.stats.stats.min / min(their_times[1:])


def nowhere(layer: int, prompts: Any, rows: np.ndarray) -> None:
    """A place for activations whose time does not count."""


def bare_body(host: ModelHost, token_ids: Sequence[Sequence[int]]) -> Callable[[], None]:
    """One pass of the body over our own batches of these prompts, without anything read."""
    groups = list(batches([len(ids) for ids in token_ids], automatic_batch_tokens(host)))
    inputs = [body_inputs(host, [token_ids[prompt] for prompt in group]) for group in groups]

    def run() -> None:
        with torch.inference_mode():
            for batch in inputs:
                host.body(**batch)

    return run


def test_beside_the_bare_body(host: ModelHost, benchmark: Any, report: Report) -> None:
    prompts = chat_prompts(64)
    ratio = time_ratio(benchmark, lambda: extract(host, prompts, nowhere), bare_body(host, prompts))
    report("extraction ÷ bare body on the same batches", f"{ratio:.2f}", "≤ 1.10")


def test_beside_output_hidden_states(host: ModelHost, benchmark: Any, report: Report) -> None:
    prompts = chat_prompts(64)
    tokenizer = tiny_tokenizer(padding_side="left")
    padded = [
        tokenizer.pad({"input_ids": prompts[start : start + 16]}, return_tensors="pt") for start in range(0, 64, 16)
    ]

    def usual() -> None:
        with torch.inference_mode():
            for batch in padded:
                states = host.model(**batch, output_hidden_states=True, use_cache=False).hidden_states
                torch.stack([state[:, -1] for state in states]).float().numpy()

    ratio = time_ratio(benchmark, lambda: extract(host, prompts, nowhere), usual, rounds=4)
    report("`output_hidden_states`, left padding, batches of 16 ÷ extraction", f"{1 / ratio:.1f}", "≥ 3")


def test_beside_run_with_cache(
    host: ModelHost, lineage: tuple[CheckpointRef, CheckpointRef], benchmark: Any, report: Report
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(lineage[0].model, device="cpu", dtype=torch.float32)
    prompts = chat_prompts(64)
    tokenizer = tiny_tokenizer(padding_side="right")
    padded = [
        tokenizer.pad({"input_ids": prompts[start : start + 16]}, return_tensors="pt") for start in range(0, 64, 16)
    ]
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(host.n_layers)]

    def usual() -> None:
        with torch.inference_mode():
            for batch in padded:
                cache = bridge.run_with_cache(
                    batch["input_ids"], attention_mask=batch["attention_mask"], names_filter=names
                )[1]
                last = batch["attention_mask"].sum(dim=1) - 1
                torch.stack([cache[name][torch.arange(len(last)), last] for name in names]).numpy()

    ratio = time_ratio(benchmark, lambda: extract(host, prompts, nowhere), usual, rounds=4)
    report("`run_with_cache` of `resid_post` only, batches of 16 ÷ extraction", f"{1 / ratio:.1f}", "≥ 3")


def test_next_checkpoint(
    host: ModelHost, lineage: tuple[CheckpointRef, CheckpointRef], benchmark: Any, report: Report
) -> None:
    """The whole of `put`: checks, weights, kinship; in turns with reading the same file."""
    files = [Path(ref.model) / "model.safetensors" for ref in lineage]
    prepared = bytearray(files[0].stat().st_size)
    into_prepared: list[float] = []
    turn = [0]

    def read() -> None:
        with open(files[turn[0] % 2], "rb", buffering=0) as file:
            file.read()

    def read_into() -> None:
        start = benchmark._timer()
        with open(files[turn[0] % 2], "rb", buffering=0) as file:
            file.readinto(prepared)
        into_prepared.append(benchmark._timer() - start)

    def put() -> None:
        host.put(lineage[turn[0] % 2])

    def alternate() -> None:
        turn[0] += 1
        read()

    host.put(lineage[0])
    for _ in range(3):
        read_into()
    ratio = time_ratio(benchmark, put, alternate)
    size = files[0].stat().st_size / 1e6
    report(f"next checkpoint ({size:.0f} MB) ÷ reading its file", f"{ratio:.2f}", "≤ 1.5")
    strict = benchmark.stats.stats.min / min(into_prepared)
    report("next checkpoint ÷ reading its file into memory that is there already", f"{strict:.2f}", "")


def test_memory_does_not_grow_with_the_prompts(
    lineage: tuple[CheckpointRef, CheckpointRef], tmp_path: Path, report: Report
) -> None:
    peaks = {}
    for count in (64, 4096):
        command = [sys.executable, "-c", PEAK, lineage[0].model, str(tmp_path), str(count)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[count] = [float(number) for number in done.stdout.split()]
    ratio = peaks[4096][1] / peaks[64][1]
    report(f"peak memory of 4,096 prompts ÷ of 64 ({peaks[64][1]:.0f} MB)", f"{ratio:.3f}", "≤ 1.10")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda(tmp_path: Path, benchmark: Any, report: Report) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        ref = save_checkpoint(tmp_path, random_llama(**LIKE_LLAMA_3_2_3B), tiny_tokenizer())
    finally:
        torch.set_default_dtype(torch.float32)
    host = ModelHost(ref, device="cuda")
    prompts = chat_prompts(4096, LIKE_LLAMA_3_2_3B["vocab_size"])
    groups = list(batches([len(ids) for ids in prompts], automatic_batch_tokens(host)))
    inputs = [body_inputs(host, [prompts[prompt] for prompt in group]) for group in groups]

    def bare() -> None:
        with torch.inference_mode():
            for batch in inputs:
                host.body(**batch)
        torch.cuda.synchronize()

    start = time.perf_counter()
    bare()
    first = time.perf_counter() - start
    ratio = time_ratio(benchmark, lambda: extract(host, prompts, nowhere), bare, rounds=3 if first > 20 else ROUNDS)
    tokens = sum(map(len, prompts)) / benchmark.stats.stats.min
    report("Llama-3.2-3B's shape in bfloat16: tokens per second", f"{tokens:,.0f}", "")
    report("its extraction ÷ bare body on the same batches", f"{ratio:.2f}", "≤ 1.10")
