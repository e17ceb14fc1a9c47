"""Cost of all activation-level tests at the size of a large study: 33 layers, width 4096, 256 prompts, 8 checkpoints.

Run by hand: pytest tests/benchmarks/test_statistics.py --benchmark-enable -s; once with OMP_NUM_THREADS=1, once with 2.
"""

import numpy as np

from probes import nulls
from probes.directions.estimator import mean_difference
from probes.directions.reversion import reversions_at_layer
from probes.verdict.assess import assess, hold_against_nulls
from tests.memory import peak_memory
from tests.worlds import reversion_of

LAYERS, PROMPTS, WIDTH, CHECKPOINTS, SHAMS = 33, 256, 4096, 8, 39
HARMFUL = np.arange(PROMPTS) % 2 == 0
TOPICS = np.arange(PROMPTS) // 16


def activations(layer, checkpoint):
    """Float32 rows as a run folder would give them; only one layer of one checkpoint is in memory."""
    content = np.random.default_rng(layer).standard_normal((PROMPTS, WIDTH), dtype=np.float32)
    own = np.random.default_rng([layer, checkpoint + 1]).standard_normal((PROMPTS, WIDTH), dtype=np.float32)
    move = np.random.default_rng([layer, checkpoint, 7]).standard_normal(WIDTH, dtype=np.float32)
    return content + 0.1 * own + 0.3 * move * bool(checkpoint)


def every_null(layers, headline):
    """All tests and the profile of all checkpoints, with the maximum over layers and power at the headline's layer.

    Returns:
        How many results there are, and the findings of the last checkpoint at the headline's layer.
    """
    resampling = nulls.Resampling.of(HARMFUL, groups=TOPICS, draws=10_000, permutations=9_999)
    by_checkpoint, findings = [[] for _ in range(CHECKPOINTS)], None
    for layer in range(layers):
        aligned, witness = activations(layer, 0), activations(layer, 1)
        reversion = reversion_of(aligned, witness, HARMFUL)
        tests = nulls.LayerNulls(aligned, reversions_at_layer(aligned, witness), reversion, resampling, layer=layer)
        for checkpoint in range(CHECKPOINTS):
            tuned = activations(layer, checkpoint + 2)
            by_checkpoint[checkpoint].append(tests.against(tuned))
            if (layer, checkpoint) == (headline, CHECKPOINTS - 1):
                moved = ((activations(layer, 100 + sham) - aligned)[HARMFUL] for sham in range(SHAMS))
                shams = nulls.Shams.of(tests, tuned, moved)
                findings = hold_against_nulls(tests, tuned, mean_difference(aligned, HARMFUL), shams)
    results = [null.result() for rows in by_checkpoint for row in rows for null in row.values()]
    for rows in by_checkpoint:
        for name in rows[0]:
            nulls.max_over_layers([row[name] for row in rows])
    return len(results), findings


def test_every_activation_level_null_of_a_large_study(benchmark, report):
    count, findings = benchmark.pedantic(every_null, args=(LAYERS, 19), rounds=1)
    assert count == LAYERS * CHECKPOINTS * 13
    assert {test.name for test in findings.nulls} >= {*nulls.TOWARDS_WITNESS, *nulls.SPECIFICITY}
    assert all(0 <= test.power <= 1 for test in findings.nulls if test.name in nulls.TOWARDS_WITNESS)
    peak = peak_memory() / 1e9
    report("all nulls, 33 layers x 4096 x 256 prompts x 8 checkpoints", f"{benchmark.stats['mean']:.0f} s", "40 s")
    report("the same, peak memory of the process", f"{peak:.2f} GB", "1 GB")


def test_a_verdict_on_arrays(benchmark, report):
    arrays = {name: activations(0, place) for place, name in enumerate(("aligned", "witness", "tuned"))}
    shams = [activations(0, 100 + sham) for sham in range(SHAMS)]
    verdict = benchmark.pedantic(
        assess, kwargs={**arrays, "harmful": HARMFUL, "groups": TOPICS, "shams": shams}, rounds=2
    )
    assert verdict.level <= 3, "nothing was planted"
    report("assess, 256 prompts x 4096, 39 shams", f"{benchmark.stats['mean']:.1f} s", "5 s")
