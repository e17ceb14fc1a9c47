"""Memory that a process takes: for the next checkpoint one shard beside the model, for activations one batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from probes.activations import extract
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from probes.models.weight_space import drift_norms
from probes.store import ActivationWriter
from tests.builders import move_weights, save_checkpoint, tiny_model, tiny_tokenizer
from tests.memory import CAN_RESET, peak_memory, reset_peak, resident_memory
from tests.processes import run

pytestmark = pytest.mark.skipif(not CAN_RESET, reason="only Linux says what a process held at most since a moment")
LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 7, "initializer_range": 0.02}
SHARD = "40MB"
TENSOR = 4 * LARGE["hidden_size"] * LARGE["intermediate_size"]  # bytes of the largest tensor of a shard
WIDE = {"hidden_size": 512, "intermediate_size": 32, "num_hidden_layers": 4}
PROMPTS = 12288  # 126 MB of activations, many times what the allocator leaves over, which is up to 10 MB


def rise(work) -> int:
    """Bytes that a piece of work held at most, beside what was there before."""
    before = resident_memory()
    reset_peak()
    work()
    return peak_memory() - before


def put_next(aligned: str, tuned: str) -> None:
    host, ref = ModelHost(CheckpointRef(model=aligned), device="cpu"), CheckpointRef(model=tuned)
    first = rise(lambda: host.put(ref))
    norms = rise(lambda: drift_norms(host, ref))
    sys.stdout.write(json.dumps({"put": first, "norms": norms, "again": rise(lambda: host.put(ref))}))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    """Two checkpoints of 183 MB, in five shards each."""
    home, model = tmp_path_factory.mktemp("large"), tiny_model(**LARGE)
    save_checkpoint(home / "aligned", model, tiny_tokenizer(), shard_size=SHARD)
    save_checkpoint(home / "tuned", move_weights(model), shard_size=SHARD)
    return [home / "aligned", home / "tuned"]


def test_the_next_checkpoint_takes_one_shard_beside_the_model(shards):
    """The limit is far under the checkpoint itself, which any second copy of the model would take."""
    sizes = [path.stat().st_size for path in shards[1].glob("*.safetensors")]
    assert len(sizes) == 5
    done = run(put_next, *map(str, shards))
    assert done.returncode == 0, done.stderr
    rises = json.loads(done.stdout)
    assert 0.5 * max(sizes) < rises["put"] <= 1.2 * max(sizes), rises
    assert rises["again"] <= 1.2 * max(sizes), rises
    # Two tensors, their difference, and one that the allocator has not yet given back; far from a second shard.
    assert rises["norms"] <= 1.2 * max(sizes) + 4 * TENSOR < 2 * max(sizes), rises


def read_prompts(folder: str, out: str) -> None:
    host = ModelHost(CheckpointRef(model=folder), device="cpu")

    def read(count: int) -> None:
        shape = (host.n_layers, count, host.d_model)
        with ActivationWriter(Path(out) / str(count), shape, dtype="float32", about={}) as writer:
            extract(host, [[5, 6, prompt % 200] for prompt in range(count)], writer.write, batch_tokens=256)

    read(64)
    sys.stdout.write(json.dumps({"few": rise(lambda: read(128)), "many": rise(lambda: read(PROMPTS))}))


def test_activations_take_the_memory_of_one_batch(tmp_path):
    aligned = save_checkpoint(tmp_path / "wide", tiny_model(**WIDE), tiny_tokenizer())
    done = run(read_prompts, aligned.model, str(tmp_path))
    assert done.returncode == 0, done.stderr
    rises = json.loads(done.stdout)
    written = (tmp_path / str(PROMPTS)).stat().st_size
    # All of them at once would be the whole of it.
    assert rises["many"] - rises["few"] < 0.2 * written, (rises, written)
