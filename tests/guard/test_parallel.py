"""Two processes that train one model: every rank adds the same penalty, and both end with the same weights."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from probes.guard.record import begin_run
from probes.store.settings import Settings
from tests import processes
from tests.builders import tiny_model
from tests.guard.lineages import lineage, prompts


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_add_the_same_penalty(tmp_path):
    history = lineage(tmp_path / "models")
    begin_run(tmp_path / "run", history, prompts(0), Settings(nulls=False, splits=5, bootstraps=20), {})
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}

    def run_rank(rank):
        own = {**place, "RANK": rank, "LOCAL_RANK": rank}
        return processes.run(processes.module, "tests.guard.rank", tmp_path, environment=own)

    with ThreadPoolExecutor(2) as ranks:
        ends = list(ranks.map(run_rank, ("0", "1")))
    assert [end.returncode for end in ends] == [0, 0], [end.stderr for end in ends]
    first, second = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert not torch.equal(first["batch"], second["batch"]), "each rank has data of its own"
    names = [name.removeprefix("sum.") for name in first if name.startswith("sum.")]
    added = [{name: rank[f"sum.{name}"] - rank.get(f"task.{name}", 0) for name in names} for rank in (first, second)]
    assert max(float(gradient.abs().max()) for gradient in added[0].values()) > 1e-4, "the penalty acts"
    for name in names:
        assert torch.equal(added[0][name], added[1][name]), name
    for name in first:
        if name.startswith("weights."):
            assert torch.equal(first[name], second[name]), name


def watch_sharded(port):
    """A model in real FSDP, of one process, given to the guard."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from probes.guard.guarded_direction import GuardError
    from probes.guard.model_in_training import LiveModel

    init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    model = tiny_model()
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    try:
        LiveModel(model)
    except GuardError as error:
        sys.stdout.write(str(error))
    destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed training")
def test_a_model_in_fsdp_is_refused_with_the_way_out():
    done = processes.run(watch_sharded, free_port())
    assert done.returncode == 0, done.stderr
    assert "does not support sharded parameters; got FSDP" in done.stdout
    assert "LoRA under DistributedDataParallel" in done.stdout
