"""Drift: how far a fine-tuned checkpoint moved, how much of that points back at the witness, and how surely.

Everything is computed from inner products between prompts (Gram matrices, prompts x prompts), so that fold
splits and bootstraps cost nothing that grows with the model's width. All arithmetic is float64.

Three estimators of the alignment stand side by side, because the displacement and the reversion direction
share an endpoint: both subtract the aligned model's activations, so whatever is accidental in those, on these
prompts, pushes the naive cosine up. The cross-fitted one never uses a prompt on both sides; the disattenuated
one also divides out what prompt noise takes away. Sources: A Gravitational Interpretation of Fine-Tuning
Reversion, arXiv 2606.28525 (displacement, alignment, return fraction); Spearman's correction for attenuation.
"""

from probes.drift.estimates import (
    MIN_PROMPTS,
    NOISE_FACTOR,
    WITHOUT_WITNESS,
    check,
    check_prompts,
    crossfit,
    crossfit_grams,
    interval,
    measure,
    measure_grams,
    too_few_groups,
    undefined_statistics,
    without_witness,
)
from probes.drift.grams import (
    MIN_GROUPS,
    Grams,
    Groups,
    Products,
    bootstrap_weights,
    cosine,
    count_groups,
    group_codes,
    split_weights,
    splits_of_seed,
)
from probes.drift.trajectory import (
    MIN_RELIABILITY,
    MIN_RUNS,
    PROMPT_LEVEL,
    RunLevel,
    crossfit_draws,
    log_spaced,
    mean_cosine,
    measurable,
    over_runs,
    trajectory,
)

__all__ = [
    "MIN_GROUPS",
    "MIN_PROMPTS",
    "MIN_RELIABILITY",
    "MIN_RUNS",
    "NOISE_FACTOR",
    "PROMPT_LEVEL",
    "WITHOUT_WITNESS",
    "Grams",
    "Groups",
    "Products",
    "RunLevel",
    "bootstrap_weights",
    "check",
    "check_prompts",
    "cosine",
    "count_groups",
    "crossfit",
    "crossfit_draws",
    "crossfit_grams",
    "group_codes",
    "interval",
    "log_spaced",
    "mean_cosine",
    "measurable",
    "measure",
    "measure_grams",
    "over_runs",
    "split_weights",
    "splits_of_seed",
    "too_few_groups",
    "trajectory",
    "undefined_statistics",
    "without_witness",
]
