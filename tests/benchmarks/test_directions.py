"""Cost of fitting directions: a demo's size as a whole, a large model's layer, and against scikit-learn's own LDA.

Run by hand: pytest tests/benchmarks/test_directions.py --benchmark-enable -s -n 0, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from probes.directions import METHODS
from probes.directions.contrast import Scene
from probes.directions.lda import Lda
from probes.directions.tracking import fit_layer, read_layer

PROMPTS = 256


def scenes(width, checkpoints):
    rng = np.random.default_rng(0)
    harmful, fold = np.arange(PROMPTS) < PROMPTS // 2, np.arange(PROMPTS) % 2 == 1
    base = rng.standard_normal((PROMPTS, width)).astype(np.float32)
    base[harmful] += 0.3 * rng.standard_normal(width).astype(np.float32)
    witness = base + 0.5
    tuned = {
        f"step {step}": (base + 0.02 * step * rng.standard_normal((PROMPTS, width))).astype(np.float32)
        for step in range(1, checkpoints)
    }
    return {name: Scene(rows, base, witness, harmful, fold) for name, rows in {"aligned": base, **tuned}.items()}


def every(layers, width, checkpoints):
    place = scenes(width, checkpoints)
    started = time.perf_counter()
    for _ in range(layers):
        read_layer(place, fit_layer(place))
    return time.perf_counter() - started


def test_every_direction_of_a_demo(report):
    seconds = every(layers=4, width=64, checkpoints=32)
    report(
        f"{len(METHODS)} directions × 4 layers × 32 checkpoints, fitted thrice and read everywhere",
        f"{seconds:.1f} s",
        "20 s",
    )


def test_a_layer_of_a_large_model(report):
    seconds = every(layers=1, width=4096, checkpoints=4) / 4
    report("the same, one layer of one checkpoint, width 4096", f"{seconds:.2f} s", "")


def test_lda_against_scikit_learn(report):
    place = scenes(1024, 1)["aligned"]
    rows, labels = place.own.astype(np.float64), place.harmful
    clocks = {}
    for name, fit in (
        ("own", lambda: Lda(shrinkage=0.5).fit(rows, labels)),
        ("scikit-learn", lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5).fit(rows, labels)),
    ):
        fit()
        started = time.perf_counter()
        fit()
        clocks[name] = time.perf_counter() - started
    report("scikit-learn's LDA ÷ ours, width 1024", f"{clocks['scikit-learn'] / clocks['own']:.1f}", "≥ 3")
