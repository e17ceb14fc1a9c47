"""Memory that a gradient takes: what one backward pass holds, and nothing for a second derivative."""

from __future__ import annotations

import sys

import pytest
import torch

from probes.attribution.replay import Replay
from probes.guard.recorded_path import RecordedExample
from tests.builders import tiny_model
from tests.memory import CAN_RESET
from tests.processes import run
from tests.test_models_memory import rise

pytestmark = pytest.mark.skipif(not CAN_RESET, reason="only Linux says what a process held at most since a moment")
LARGE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}


def read_gradient(way: str) -> None:
    """Print the bytes that a gradient of 1,024 tokens held at most: by the replay, or by torch alone."""
    model = tiny_model(**LARGE)
    rows = torch.randint(3, 60, (8, 128), generator=torch.Generator().manual_seed(0)).tolist()
    replay = Replay(model, [RecordedExample(tuple(row), tuple(row)) for row in rows], [*dict(model.named_parameters())])
    by_way = {
        "replay": lambda: replay.gradient(range(8), torch.ones(8)),
        "torch": lambda: replay.losses(range(8))(replay.weights).sum().backward(),
    }
    sys.stdout.write(str(rise(by_way[way])))


def test_a_gradient_takes_little_more_than_a_backward_pass():
    done = {way: run(read_gradient, way) for way in ("replay", "torch")}
    assert all(process.returncode == 0 for process in done.values()), done
    held = {way: int(process.stdout) for way, process in done.items()}
    assert held["replay"] <= 1.6 * held["torch"], held
