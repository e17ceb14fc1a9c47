"""Behaviour of checkpoints, judged from text they generate: refusals, compliance, over-refusal, the benign task.

`ask` generates, `judges` label, `rate_tables` count, `safety` answers. Importing this package loads no torch; `ask`,
`generate`, `task` and `refusal_score` do.
"""

from probes.behaviour.coherence import incoherence
from probes.behaviour.paired import Equivalence, Paired, equivalence, mean_over_runs, paired_rates
from probes.behaviour.rates import JudgeAccuracy, corrected_rate, mean_per_token, mean_score, wilson
from probes.behaviour.refusal_text import Reading, read_completion
from probes.behaviour.safety import SafetyAnswer, over_refusal, safety_answer
from probes.behaviour.tango import tango_interval

__all__ = [
    "Equivalence",
    "JudgeAccuracy",
    "Paired",
    "Reading",
    "SafetyAnswer",
    "corrected_rate",
    "equivalence",
    "incoherence",
    "mean_over_runs",
    "mean_per_token",
    "mean_score",
    "over_refusal",
    "paired_rates",
    "read_completion",
    "safety_answer",
    "tango_interval",
    "wilson",
]
