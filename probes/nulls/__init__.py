"""Nulls: what the alignment looks like where there is no reversion, one function or method for each.

| test | what moves at random | decides |
|---|---|---|
| `sign_flip` | each prompt's motion, by group, is as likely away from the witness as towards it | level 4 |
| `covariance_aligned`, `covariance_difference` | the displacement, with the covariance **within classes** of the
aligned model's activations, or of the differences witness - aligned | level 4 |
| `random_difference` | the displacement is the difference of two real prompts of one class | level 4 |
| `sham_drift` | the fine-tuning: noise on the weights that moves the activations as far | level 4 |
| `sham_witness` | the witness: checkpoints that are none | level 4 |
| `label_permutation`, `label_permutation_crossfit` | which prompts are called harmful | level 5 |

The profile (`isotropic`, `whitened`, `top_k_removed`, `random_difference_across`) is shown and decides nothing: it
takes out, or holds, the gap between the classes, along which a reversion runs.

Which objection each can answer: the shared endpoint through *prompt noise* is removed by the statistic (it
is cross-fitted), so the activation-level nulls need not carry it. The shared endpoint through the
*checkpoint* (a perturbation that shrinks what is special about the aligned model points back at any other
model) is answered by the shams alone. The isotropic null is never to be shown alone: it cannot fail in a
real activation space.

Every p-value is one-sided, (1 + #{null >= observed}) / (draws + 1), so it is valid whatever the number of
draws. What a test could have found is its power at a declared alternative (`measure_power`).
"""

from __future__ import annotations

from probes.nulls.catalogue import DIRECTION, NO_FURTHER_PASS, PLAIN, PROFILE, SHAMS, SPECIFICITY, TOWARDS_WITNESS
from probes.nulls.draws import NullDraws, max_over_layers
from probes.nulls.gaussian import ClassCovariance, Spectrum, isotropic
from probes.nulls.layer import LayerNulls
from probes.nulls.noise_scale import NoiseScale, find_noise_scale, is_as_far
from probes.nulls.permutation import Permutations
from probes.nulls.power import Power, measure_power
from probes.nulls.refusal_axis import OffRefusalAxis, look_off_refusal_axis
from probes.nulls.resampling import Resampling
from probes.nulls.shams import Sham, Shams, sham_drift, sham_witness, why_no_reference

__all__ = [
    "DIRECTION",
    "NO_FURTHER_PASS",
    "PLAIN",
    "PROFILE",
    "SHAMS",
    "SPECIFICITY",
    "TOWARDS_WITNESS",
    "ClassCovariance",
    "LayerNulls",
    "NoiseScale",
    "NullDraws",
    "OffRefusalAxis",
    "Permutations",
    "Power",
    "Resampling",
    "Sham",
    "Shams",
    "Spectrum",
    "find_noise_scale",
    "is_as_far",
    "isotropic",
    "look_off_refusal_axis",
    "max_over_layers",
    "measure_power",
    "sham_drift",
    "sham_witness",
    "why_no_reference",
]
