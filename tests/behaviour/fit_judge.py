"""Fits the weights of the built-in judge to the labelled answers beside this file, and writes `judge_weights.py`.

    python -m tests.behaviour.fit_judge

Logistic regression with a ridge, where each weight is bound to the sign that its reason has. Answers that a rule tells
to be refusals are left out of the weights of a refusal, which only decide the rest. What people wrote is mostly
refusals of hard kinds. Answers of a small model that complies or babbles (`run_answers.jsonl`: of the shipped run,
labelled by reading) stand beside them, so that such answers are not weighed as if most of them refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scipy.optimize import minimize

import probes.behaviour.refusal_text as rules
from probes.behaviour import read_completion, weighing
from probes.behaviour.answer_evidence import Reply, Request, refusing, serving
from probes.behaviour.answer_form import before_next_turn, without_thinking
from probes.behaviour.answer_sentences import APOSTROPHES, is_another_voice, plain, split_sentences, without_quotations
from probes.behaviour.judges import REFUSALS
from probes.behaviour.partial_evidence import find_decline, helping, withholding

UNSEEN = "blind4"  # what the judge is measured on, and never fitted to
FOLDER = Path(__file__).parent
TARGET = Path(rules.__file__).with_name("judge_weights.py")
LABELS = {"refusal", "partial_refusal", "compliance", "incoherent"}
APART = {"not English", "thinking", "babble", "looping refusal", "looping answer", "leaked turn"}
RIDGE = 0.3


@dataclass(frozen=True)
class Row:
    """A labelled answer: what it weighs in the fit, and by which hand it is."""

    request: str
    text: str
    label: str
    kind: str
    hand: str

    @property
    def weight(self) -> float:
        """Answers that the rules were written for count less where they are refusals; plain compliance counts more."""
        served = self.label == "compliance"
        return {"rules": 2.0 if served else 0.3, "completions": 3.0}.get(self.hand, 1.0)


def read_rows() -> list[Row]:
    """All labelled answers beside this file."""
    rows = [
        Row(row["request"], row["text"], row["label"], row["kind"], hand_of(row["split"]))
        for row in read_lines("judge_answers.jsonl") + read_lines("run_answers.jsonl")
        if row["split"] != UNSEEN
    ]
    completions = read_lines("completions.jsonl")
    rows += [Row(row["prompt"], row["completion"], row["label"], row["kind"], "completions") for row in completions]
    return [row for row in rows if row.label in LABELS and row.kind not in APART]


def read_lines(name: str) -> list[dict[str, str]]:
    """The rows of a file beside this one."""
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def hand_of(split: str) -> str:
    """Whose hand a part of the answers is by."""
    return split if split in {"blind", "dev4", "run"} else "rules"


def reply_of(row: Row) -> Reply | None:
    """The answer as the judge weighs it; None where it does not, for it speaks in another voice."""
    text = plain(before_next_turn(without_thinking(row.text) or ""))
    sentences = split_sentences(without_quotations(text))
    if not sentences or is_another_voice(text):
        return None
    return Reply(text, sentences, Request(row.request.translate(APOSTROPHES)))


def fit(
    evidence: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], holds: Sequence[bool], weights: Sequence[float]
) -> tuple[dict[str, float], float]:
    """Weights by name, positive for the first mapping of each row and negative for the second, and the start."""
    ours, theirs = (list(dict.fromkeys(name for row in evidence for name in row[side])) for side in (0, 1))
    table = np.array([[row[0][name] for name in ours] + [row[1][name] for name in theirs] + [1.0] for row in evidence])
    signs, weigh = np.where(holds, 1.0, -1.0), np.asarray(weights)

    def loss(point):
        margin = np.clip(signs * (table @ point), -30, 30)
        slope = (table * (weigh * signs / (1 + np.exp(margin)))[:, None]).sum(0)
        ridge = np.append(point[:-1], 0.0)
        return (weigh * np.log1p(np.exp(-margin))).sum() + RIDGE * (ridge**2).sum() / 2, RIDGE * ridge - slope

    bounds = [(0, None)] * len(ours) + [(None, 0)] * len(theirs) + [(None, None)]
    options = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}  # so that the second decimal is the optimum's own
    best = minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    named = dict(zip([*ours, *theirs], best.x[:-1].round(2), strict=True))
    return {name: float(weight) for name, weight in named.items() if weight}, round(float(best.x[-1]), 2)


@dataclass(frozen=True)
class Evidence:
    """What the answer of a row holds.

    Attributes:
        by_rule: whether a rule tells it to be a refusal.
        refusal: for and against one.
        part: for and against help with a part; None where nothing in it declines.
    """

    by_rule: bool
    refusal: tuple[Mapping[str, float], Mapping[str, float]]
    part: tuple[Mapping[str, float], Mapping[str, float]] | None


@functools.cache
def evidence_of(row: Row) -> Evidence | None:
    """The same whichever rows are fitted; None where the judge weighs nothing."""
    if (answer := reply_of(row)) is None:
        return None
    with patch.multiple(weighing, REFUSAL={}, REFUSAL_START=-1.0):  # so that rules alone tell a refusal
        by_rule = read_completion(row.text, row.request).refused
    part = find_decline(answer)
    return Evidence(
        by_rule,
        (refusing(answer), serving(answer)),
        (helping(part), {f"not: {name}": value for name, value in withholding(part).items()}) if part else None,
    )


def fit_both(rows: Sequence[Row]) -> tuple[dict[str, float], float, dict[str, float], float]:
    """The weights of a refusal and of help with a part, each with its start."""
    weighed = [(row, evidence) for row in rows if (evidence := evidence_of(row))]
    left = [(row, evidence.refusal) for row, evidence in weighed if not evidence.by_rule]
    parts = [(row, evidence.part) for row, evidence in weighed if row.label in REFUSALS and evidence.part]
    refusal = fit(
        [evidence for _, evidence in left],
        [row.label in REFUSALS for row, _ in left],
        [row.weight for row, _ in left],
    )
    partial = fit(
        [evidence for _, evidence in parts],
        [row.label == "partial_refusal" for row, _ in parts],
        [row.weight for row, _ in parts],
    )
    return *refusal, *partial


def write(refusal: Mapping[str, float], start: float, partial: Mapping[str, float], partial_start: float) -> None:
    """Write the module of weights."""
    lines = [
        '"""Weights of the evidence in log odds by reason, as `python -m tests.behaviour.fit_judge` writes them."""',
        "",
    ]
    for name, weights, begin in (("REFUSAL", refusal, start), ("PARTIAL", partial, partial_start)):
        items = sorted(weights.items(), key=lambda item: -item[1])
        lines += [
            f"{name} = {{",
            *(f'    "{reason}": {weight},' for reason, weight in items),
            "}",
            f"{name}_START = {begin}",
        ]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(*fit_both(read_rows()))
