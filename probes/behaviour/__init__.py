"""Behaviour of checkpoints, judged from text they generate: refusals, compliance, over-refusal, the benign task.

`ask` generates, `judges` label, `tables` count. Importing this package loads no torch; `ask`, `generate`, `task` and
`refusal_score` do.
"""

from probes.behaviour.coherence import incoherence
from probes.behaviour.paired import Equivalence, Paired, equivalence, mean_over_runs, paired_rates
from probes.behaviour.rates import mean_per_token, mean_score, wilson
from probes.behaviour.refusal_text import Reading, read

__all__ = [
    "Equivalence",
    "Paired",
    "Reading",
    "equivalence",
    "incoherence",
    "mean_over_runs",
    "mean_per_token",
    "mean_score",
    "paired_rates",
    "read",
    "wilson",
]
