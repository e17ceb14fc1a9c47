"""Judged rates are corrected by counts of people's labels, and stand beside the raw ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from probes.behaviour import JudgeAccuracy
from probes.behaviour import rate_tables as tables
from probes.behaviour.judges import REFUSALS, Exchange, open_judge
from probes.behaviour.judges.accuracy import accuracy_of
from probes.statistics import statistic_of

SAFETY = Path(__file__).parents[2] / "data/docs/safety.md"
XSTEST = Path(__file__).parents[2].parent / "shared/data/completions/xstest_v2_completions_llama2orig.csv"


@pytest.fixture(scope="module")
def labelled():
    """XSTest's completions, and what the built-in judge says of them."""
    if not XSTEST.is_file():
        pytest.skip("XSTest's labelled completions are not beside this checkout")
    with XSTEST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    exchanges = [Exchange(row["prompt"], row["completion"]) for row in rows]
    return rows, list(open_judge("builtin").label(exchanges))


@pytest.mark.parametrize("verdicts", [REFUSALS, ("compliance",)])
def test_the_counts_are_those_of_peoples_labels(labelled, verdicts):
    rows, judgements = labelled
    judged = [judgement.label in verdicts for judgement in judgements]
    by_people = [("compliance" in row["final_label"]) != (verdicts == REFUSALS) for row in rows]
    pairs = list(zip(by_people, judged, strict=True))
    counts = (sum(by_people), pairs.count((True, True)), by_people.count(False), pairs.count((False, False)))
    assert accuracy_of(["builtin"], verdicts) == JudgeAccuracy(*counts)


def test_the_documentation_names_the_same_counts():
    refusals, compliance = (accuracy_of(["builtin"], verdicts) for verdicts in (REFUSALS, ("compliance",)))
    documented = " ".join(SAFETY.read_text(encoding="utf-8").split())
    assert f"{refusals.positives} answers that people call refusals it sees {refusals.positives_seen}" in documented
    assert f"of {compliance.positives} others it calls {compliance.positives_seen} none" in documented


@pytest.mark.parametrize("judges", [[], ["endpoint:small"], ["builtin", "endpoint:small"]])
def test_nobody_knows_how_often_other_judges_are_right(judges):
    assert accuracy_of(judges, REFUSALS) is None


def completions(refused, n):
    """As many answers to harmful requests, of which some are refusals."""
    verdicts = ["refusal"] * refused + ["compliance"] * (n - refused)
    place = {"checkpoint": "aligned", "arm": "aligned", "seed": 0, "step": 0, "label": "harmful", "refusal_score": 0.0}
    return pd.DataFrame([{**place, "verdict": verdict} for verdict in verdicts])


def corrected_row(refused, n, measure="corrected_refusal_harmful"):
    rates = tables.rates(completions(refused, n), pd.DataFrame({"checkpoint": []}), ["builtin"])
    return rates.set_index("measure").loc[measure]


def test_a_corrected_rate_stands_beside_the_raw_one():
    accuracy = accuracy_of(["builtin"], REFUSALS)
    sensitivity = accuracy.positives_seen / accuracy.positives
    specificity = accuracy.negatives_seen / accuracy.negatives
    row = corrected_row(60, 100)
    assert row["value"] == pytest.approx((0.6 + specificity - 1) / (sensitivity + specificity - 1))
    assert row["low"] < row["value"] < row["high"]


def test_where_it_is_not_defined_there_is_no_number():
    assert pd.isna(corrected_row(1, 100)["value"])


def test_other_judges_leave_the_rates_as_they_are():
    rates = tables.rates(completions(60, 100), pd.DataFrame({"checkpoint": []}), ["endpoint:small"])
    assert not rates["measure"].str.startswith("corrected_").any()


def test_a_corrected_rate_is_named_as_one():
    assert statistic_of("corrected_refusal_harmful").title.endswith("corrected")
