"""Cost of all activation-level nulls at the size of a large study: 33 layers, width 4096, 256 prompts, 8 checkpoints.

Run by hand: pytest tests/benchmarks/test_statistics.py --benchmark-enable -s; once with OMP_NUM_THREADS=1, once with 2.
"""

import resource

import numpy as np

from probes import nulls

LAYERS, PROMPTS, WIDTH, CHECKPOINTS = 33, 256, 4096, 8


def activations(layer, checkpoint):
    """Float32 rows as a run folder would give them; only one layer of one checkpoint is in memory."""
    content = np.random.default_rng(layer).standard_normal((PROMPTS, WIDTH), dtype=np.float32)
    own = np.random.default_rng([layer, checkpoint + 1]).standard_normal((PROMPTS, WIDTH), dtype=np.float32)
    return content + 0.1 * own


def every_null(layers):
    """All nulls of all checkpoints with p-values, p99 and the maximum over layers; returns how many there are."""
    harmful = np.arange(PROMPTS) % 2 == 0
    resampling = nulls.Resampling.of(harmful, draws=10_000, permutations=9_999)
    found = [[] for _ in range(CHECKPOINTS)]
    for layer in range(layers):
        prepared = nulls.LayerNulls(activations(layer, 0), activations(layer, 1), resampling, layer=layer)
        for checkpoint in range(CHECKPOINTS):
            found[checkpoint].append(prepared.against(activations(layer, checkpoint + 2)))
    results = [null.result() for rows in found for row in rows for null in row.values()]
    for rows in found:
        for name in rows[0]:
            nulls.max_over_layers([row[name] for row in rows])
    return len(results)


def test_every_activation_level_null_of_a_large_study(benchmark, report):
    count = benchmark.pedantic(every_null, args=(LAYERS,), rounds=1)
    assert count == LAYERS * CHECKPOINTS * 12
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report("all nulls, 33 layers x 4096 x 256 prompts x 8 checkpoints", f"{benchmark.stats['mean']:.0f} s", "60 s")
    report("the same, peak memory of the process", f"{peak:.2f} GB", "3 GB")
