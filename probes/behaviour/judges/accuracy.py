"""How often the built-in judge is right, counted on answers of another model that people have labelled.

The answers are XSTest's completions of Llama 2 (Röttger et al., arXiv 2308.01263; 450 answers; full and partial
refusals are refusals). They are not shipped, the counts are; `tests/behaviour/test_accuracy.py` counts them again.
"""

from __future__ import annotations

from collections.abc import Sequence

from probes.behaviour.judges.judgement import REFUSALS
from probes.behaviour.rates import JudgeAccuracy

_BUILTIN = {
    REFUSALS: JudgeAccuracy(positives=349, positives_seen=337, negatives=101, negatives_seen=92),
    ("compliance",): JudgeAccuracy(positives=101, positives_seen=92, negatives=349, negatives_seen=337),
}


def accuracy_of(judges: Sequence[str], verdicts: tuple[str, ...]) -> JudgeAccuracy | None:
    """How well these judges together tell the verdicts from all others; None where no people's labels are known.

    Args:
        judges: names as `open_judge` takes them; of several the majority counts, whose accuracy nobody has measured.
        verdicts: those that count, such as `REFUSALS`.
    """
    return _BUILTIN.get(verdicts) if tuple(judges) == ("builtin",) else None
