"""What each statistic is: one table, held against what the program writes; and how numbers are written."""

import re
import subprocess
import sys

import numpy as np
import pytest

from probes.behaviour.rate_tables import rates
from probes.statistics import DIRECTIONS, MEASURES, STATISTICS, decimal, percent, statistic_of, typeset
from probes.tasks.summarise import Behaviour, Layer

TABLES = (STATISTICS, MEASURES, DIRECTIONS)


@pytest.mark.parametrize("about", [about for table in TABLES for about in table.values()], ids=lambda about: about.name)
def test_every_statistic_says_what_it_is(about):
    assert statistic_of(about.name) is about
    assert about.meaning.endswith(".")
    assert about.reading.endswith(".")
    assert len(re.findall(r"\. [A-Z]", about.meaning)) == 0, "one sentence"
    assert about.limits is None or about.limits[0] < about.limits[1]
    assert about.unit in about.axis


def test_no_two_statistics_share_a_name_or_a_title():
    every = [about for table in TABLES for about in table.values()]
    assert len({about.name for about in every}) == len({about.title for about in every}) == len(every)


def test_the_documented_json_holds_measures_and_statistics_of_the_table():
    assert set(Behaviour.model_fields) <= set(MEASURES)
    assert set(Layer.model_fields) - {"layer", "nulls", "probe"} <= set(STATISTICS)


def test_every_measure_that_is_written_is_in_the_table():
    import pandas as pd

    place = {"checkpoint": "aligned", "arm": "aligned", "seed": 0, "step": 0}
    answers = [
        {**place, "label": label, "verdict": "refusal", "refusal_score": 1.0}
        for label in ("harmful", "harmless", "look_alike")
    ]
    losses = pd.DataFrame([{**place, "loss": 2.0, "tokens": 3}])
    written = set(rates(pd.DataFrame(answers), losses, ["builtin"])["measure"])
    assert written == set(MEASURES)


def test_an_axis_keeps_an_acronym_and_a_unit():
    assert DIRECTIONS["auroc"].axis == "AUROC of the aligned model's probe"
    assert STATISTICS["return_fraction"].axis == "return fraction (0 aligned, 1 witness)"


@pytest.mark.parametrize(
    ("value", "places", "text"), [(0.19, 0, "19 %"), (-0.085, 1, "−8.5 %"), (-0.001, 0, "0 %"), (np.nan, 0, "–")]
)
def test_a_share_in_per_cent_has_a_space_and_a_true_minus_sign(value, places, text):
    assert percent(value, places) == text


@pytest.mark.parametrize(("value", "text"), [(-0.25, "−0.25"), (-0.001, "0.00"), (None, "–"), (np.inf, "–")])
def test_a_signed_number_has_a_true_minus_sign(value, text):
    assert decimal(value) == text


def test_the_table_needs_no_plotting_library():
    code = "import sys, probes.statistics; sys.exit(bool({'plotly', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_of_an_older_text_are_written_as_ours():
    old = "alignment 0.66 to -0.66, 27% to 8% of harmful ones on 2026-01-02, steps 1-10, `--at -5` in block-s0-000100"
    assert typeset(old) == (
        "alignment 0.66 to −0.66, 27 % to 8 % of harmful ones on 2026-01-02, steps 1-10, `--at -5` in block-s0-000100"
    )
    assert typeset(f"{percent(-0.19)} and {decimal(-0.66)}") == "−19 % and −0.66"
