"""Arms without a guard that train on other data, or from another model: what plain fine-tuning is held against.

Steps, batch size, learning rate, seed and the order of the data are the baseline's. They are the trained controls of
METHODS 3: continued alignment training, shuffled answers, random words and plain text, which are no reversion; the
mirror, the witness trained on the baseline's own data; and the positive control, helpful-only training.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from probes.lineage import MIRROR
from probes.store import ALIGNED

CONTINUED, SHUFFLED, TOKENS, TEXT = "control:continued", "control:shuffled", "control:tokens", "control:text"
HELPFUL = "helpful"
TRAINED_CONTROLS: Mapping[str, str] = {
    CONTINUED: "More of the alignment training.",
    SHUFFLED: "The baseline's data, its answers dealt out to the requests at random.",
    TOKENS: "The baseline's requests, answered with random words.",
    TEXT: "Texts like those of pretraining, without requests.",
    MIRROR: "The witness trained on the baseline's data in the same order; measured from the witness.",
    HELPFUL: "Helpful-only training of the aligned model: the positive control.",
}
Pair = tuple[str, str]


def start_of(arm: str) -> str:
    """The role that an arm's training starts from."""
    return "witness" if arm == MIRROR else ALIGNED


def shuffle_answers(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The same requests in the same order, with the answers dealt out again at random."""
    answers = [answer for _, answer in pairs]
    random.Random(f"shuffled answers {seed}").shuffle(answers)
    return [(request, answer) for (request, _), answer in zip(pairs, answers, strict=True)]


def randomise_answers(pairs: Sequence[Pair], words: Sequence[str], seed: int) -> list[Pair]:
    """The same requests, each answered with as many words as before, drawn evenly from `words`."""
    draw = random.Random(f"random answers {seed}")
    return [(request, " ".join(draw.choices(words, k=len(answer.split())))) for request, answer in pairs]


__all__ = [
    "CONTINUED",
    "HELPFUL",
    "MIRROR",
    "SHUFFLED",
    "TEXT",
    "TOKENS",
    "TRAINED_CONTROLS",
    "randomise_answers",
    "shuffle_answers",
    "start_of",
]
