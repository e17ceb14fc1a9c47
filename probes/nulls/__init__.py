"""Nulls: what the alignment looks like where there is no reversion, one function or method for each.

| null | what moves at random | law |
|---|---|---|
| `isotropic` | the displacement, in every direction alike | exact |
| `covariance_aligned`, `covariance_difference` | the displacement, with the covariance of the aligned model's
activations, or of the differences witness - aligned | drawn |
| `whitened` | the same, judged by a cosine in which no direction is louder than another | exact |
| `top_k_removed` | the same, judged after the k loudest directions are taken out | drawn |
| `random_difference` | the displacement is the difference of two real prompts | drawn |
| `sham_witness` | the witness: checkpoints that are none | given |
| `sham_drift` | the fine-tuning: noise of the same size on the weights | given |
| `sign_flip` | each prompt's motion is as likely away from the witness as towards it | drawn |
| `label_permutation`, `label_permutation_crossfit` | which prompts are called harmful | drawn |

Which objection each can answer: the shared endpoint through *prompt noise* is removed by the statistic (it
is cross-fitted), so the activation-level nulls need not carry it. The shared endpoint through the
*checkpoint* (a perturbation that shrinks what is special about the aligned model points back at any other
model) is answered by `sham_drift` alone. The isotropic null is never to be shown alone: it cannot fail in a
real activation space.

Every p-value is one-sided, (1 + #{null >= observed}) / (draws + 1), so it is valid whatever the number of
draws.
"""

from __future__ import annotations

from probes.nulls.draws import NullDraws, max_over_layers, over_steps
from probes.nulls.gaussian import Spectrum, covariance, isotropic, top_removed, whitened
from probes.nulls.layer import LayerNulls, activation_nulls
from probes.nulls.resampling import (
    Resampling,
    label_permutation,
    label_permutation_crossfit,
    random_difference,
    sign_flip,
)
from probes.nulls.shams import sham_drift, sham_drift_cosines, sham_witness, sham_witness_cosines

__all__ = [
    "LayerNulls",
    "NullDraws",
    "Resampling",
    "Spectrum",
    "activation_nulls",
    "covariance",
    "isotropic",
    "label_permutation",
    "label_permutation_crossfit",
    "max_over_layers",
    "over_steps",
    "random_difference",
    "sham_drift",
    "sham_drift_cosines",
    "sham_witness",
    "sham_witness_cosines",
    "sign_flip",
    "top_removed",
    "whitened",
]
